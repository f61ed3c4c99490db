"""Parameter groups of an optimizer: which parameters are trained, which are decayed, which Muon leaves to AdamW."""

from typing import Any


def parameter_groups(net: Any, *, muon: bool) -> list[dict[str, Any]]:
    """Decay matrices and kernels, but no biases, no norms, and no parameter that `net.no_weight_decay()` names.

    Parameters that need no gradient are left out. muon: leave all that is not decayed, and all outside of `net.blocks`,
    to the AdamW in timm's Muon, which is for hidden layers (Jordan et al., 2024): every embedding has one optimizer.
    """
    exempt = net.no_weight_decay()
    # An empty parameter, which fsdp cannot shard, keeps its number in the states that a checkpoint holds.
    parameters = {name: p for name, p in net.named_parameters() if p.requires_grad or not p.numel()}
    decayed = [p for name, p in parameters.items() if p.ndim > 1 and name not in exempt]
    rest = {"params": [p for name, p in parameters.items() if p.ndim <= 1 or name in exempt], "weight_decay": 0.0}
    if not muon:
        return [{"params": decayed}, rest]
    inner = {parameter for block in net.blocks for parameter in block.parameters()}
    hidden, outer = ([p for p in decayed if (p in inner) == wanted] for wanted in (True, False))
    return [{"params": hidden}, {"params": outer, "use_fallback": True}, rest | {"use_fallback": True}]
