"""Trained weights into a network that was built here."""

from typing import Any

from timm.layers import resample_abs_pos_embed, resample_patch_embed

from patchbench.checks import spell
from patchbench.embed.conv import ConvEmbed
from patchbench.embed.linear import LinearEmbed
from patchbench.nets.vit import ViT
from patchbench.pos.learned import Learned
from patchbench.weights.facts import in_chans, mlp_ratio, places, shape
from patchbench.weights.read import Weights, read


def load(net: ViT, init_from: str) -> str:
    """Start `net` from trained weights, and say in a line what was adapted to it.

    init_from: timm's name of a Vision Transformer, whose weights come from the Hugging Face hub, or a file: a state
    dict of timm's, an export of ours, or a checkpoint. Patch kernel and positions are resampled to the net's; a head
    for another number of classes is left out. ValueError where anything else differs.
    """
    weights = read(init_from, net.layout.grid_size)
    refuse_another_shape(net, weights, init_from)
    state, own = dict(weights.state), net.state_dict()
    remarks = []

    kernel = state.get("embed.proj.weight")
    if kernel is not None and weights.patches:
        patch_size: Any = net.embed.patch_size
        if kernel.shape[2:] != patch_size:
            remarks.append(f"patch {spell((kernel.shape[2], kernel.shape[3]))} resampled to {spell(patch_size)}")
            kernel = resample_patch_embed(kernel, list(patch_size))
        state["embed.proj.weight"] = kernel if own["embed.proj.weight"].ndim == 4 else kernel.flatten(1)

    table = state.get("tokens.table")
    if table is not None and "tokens.table" not in own:
        remarks.append("its positions are left out (pos=none)")
        del state["tokens.table"]
    elif table is not None and table.shape[:2] != net.layout.grid_size:
        there, here = table.shape[:2], net.layout.grid_size
        remarks.append(f"positions of {there[0]}x{there[1]} patches resampled to {here[0]}x{here[1]}")
        flat = resample_abs_pos_embed(table.flatten(0, 1)[None], list(here), list(there), num_prefix_tokens=0)
        state["tokens.table"] = flat[0].unflatten(0, here)

    head = state.get("head.weight")
    if head is None or head.shape != own["head.weight"].shape:
        classes = "none" if head is None else f"{len(head)} classes"
        remarks.append(f"the head is new: {classes} there, {len(own['head.weight'])} here")
        state |= {name: own[name] for name in ("head.weight", "head.bias")}
    if weights.pool != net.pool:
        remarks.append(f"the head reads model.pool={net.pool}, in training it read {weights.pool}")

    differing = [name for name in sorted({*state, *own}) if name not in state or name not in own]
    if differing:
        raise ValueError(
            f"model.init_from={init_from} is another architecture: "
            + ", ".join(f"{name} is only {'there' if name in state else 'here'}" for name in differing[:4])
            + (", ..." if len(differing) > 4 else "")
            + ": choose a plain Vision Transformer of timm's, or the options this checkpoint was trained with"
        )
    unequal = [name for name in own if state[name].shape != own[name].shape]
    if unequal:
        raise ValueError(
            f"model.init_from={init_from} does not fit: "
            + ", ".join(f"{n} is {shape(state[n])} there and {shape(own[n])} here" for n in unequal[:4])
            + ": give the options that it was trained with"
        )
    net.load_state_dict(state)
    return f"starting from {init_from}" + "".join(f"; {remark}" for remark in remarks)


def refuse_another_shape(net: ViT, weights: Weights, init_from: str) -> None:
    """ValueError that names the options of the trained network where those of `net` are others."""
    state, layout = weights.state, net.layout
    blocks = {name.split(".")[1] for name in state if name.startswith("blocks.")}
    if not blocks or not {"prefix", "blocks.0.mlp.fc1.weight"} <= set(state):
        raise ValueError(
            f"model.init_from={init_from} holds no Vision Transformer: use a name that timm.list_pretrained('vit_*') "
            "gives, or a file with the state dict of one"
        )
    hidden, embed_dim = state["blocks.0.mlp.fc1.weight"].shape
    there: dict[str, Any] = {"embed_dim": embed_dim, "depth": len(blocks), "mlp_ratio": hidden / embed_dim}
    there["num_prefix_tokens"] = len(state["prefix"])
    if weights.num_heads is not None:
        there["num_heads"] = weights.num_heads
    here = {
        "embed_dim": layout.embed_dim,
        "depth": len(net.blocks),
        "mlp_ratio": mlp_ratio(net),
        "num_prefix_tokens": layout.num_prefix_tokens,
        "num_heads": layout.num_heads,
    }
    differing = [knob for knob, value in there.items() if value != here[knob]]
    if differing:
        found = " ".join(f"model.{knob}={here[knob]:g}" for knob in differing)
        cure = " ".join(f"model.{knob}={there[knob]:g}" for knob in differing)
        raise ValueError(f"model.init_from={init_from} was trained otherwise than {found}: use {cure}")
    if weights.patches != isinstance(net.embed, ConvEmbed | LinearEmbed):
        raise ValueError(
            f"model.init_from={init_from} has {'a patch' if weights.patches else 'another kind of'} embedding than "
            "the embed asked for: use embed=conv or embed=linear for networks of timm, or the embed it was trained with"
        )
    if weights.patches and state["embed.proj.weight"].shape[1] != in_chans(net):
        raise ValueError(
            f"model.init_from={init_from} was trained on {state['embed.proj.weight'].shape[1]} channels, and these "
            f"data have {in_chans(net)}: use data with as many"
        )
    filled = places(net)
    table = "tokens.table" in state and "tokens" in filled and not isinstance(net.tokens, Learned)
    if filled - weights.places or weights.places - filled - {"tokens"} or table:
        trained = " and ".join(sorted(weights.places)) or "no place"
        cure = "pos=learned or pos=none" if "tokens.table" in state else "pos=none"
        other = weights.places - {"tokens"}
        raise ValueError(
            f"model.init_from={init_from} was trained with position in {trained}, not with the pos asked for: use "
            + ("the pos it was trained with" if other else cure)
        )
