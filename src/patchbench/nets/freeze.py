"""Parts of a network that are not trained: they stay as they start, at random or from trained weights."""

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from patchbench.layout import PLACES

PARTS = ("trunk", "embed")
BESIDE = ("embed.", "head.", "attn_pool.", *(f"{place}." for place in PLACES))  # trained if the trunk is frozen


def freeze(net: nn.Module, part: str) -> None:
    """Freeze a part of the network, one of PARTS: its parameters get no gradients.

    trunk: everything except the embedding, the positional schemes, the head and the attention that pools. embed: the
    embedding. Batch norms in the part normalise by their running averages, as in evaluation, and do not update them.
    ValueError if the part has no parameters, or if the network has no other parameters to train.
    """

    def frozen(name: str) -> bool:
        return name.startswith("embed.") if part == "embed" else not name.startswith(BESIDE)

    inside = [parameter for name, parameter in net.named_parameters() if parameter.numel() and frozen(name)]
    if not inside:
        raise ValueError(f"freeze={part}: this network learns nothing in its {part}: use freeze=null")
    for parameter in inside:
        parameter.requires_grad_(False)
    if not any(parameter.requires_grad for parameter in net.parameters() if parameter.numel()):
        raise ValueError(f"freeze={part}: this network has nothing beside its {part} to train: use freeze=null")
    for name, module in net.named_modules():
        if isinstance(module, _BatchNorm) and frozen(name):
            module.eval()
