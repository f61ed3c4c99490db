"""Loading of trained weights into a network, with the adaptations that keep its function."""

from typing import Any

import torch
from timm.models import adapt_input_conv
from torch import Tensor

from patchbench.checks import Size, spell
from patchbench.embed.conv import ConvEmbed
from patchbench.embed.flexi import resampling
from patchbench.embed.linear import LinearEmbed
from patchbench.nets.vit import ViT
from patchbench.pos.grid import resample
from patchbench.pos.learned import Learned
from patchbench.pos.rope import AxialRope, MixedRope
from patchbench.weights.knobs import (
    HEAD_DIM,
    equal,
    in_chans,
    knobs_of,
    places,
    shape,
    spell_knob,
    spell_knobs,
    spell_pos,
)
from patchbench.weights.read import read
from patchbench.weights.timm import Weights


def load(net: ViT, init_from: str) -> str:
    """Load trained weights into `net`, and return a line that names all adaptations and assumptions.

    init_from: timm's name of a Vision Transformer, to download its weights from the Hugging Face hub, or a file: a
    state dict of timm, an export or a checkpoint of this project. Patch kernel and positions are resampled, channels
    are summed or repeated as in timm, and a head for another number of classes is left out. ValueError for any other
    difference.
    """
    weights = read(init_from, net.layout.grid_size)
    try:
        remarks = fit(net, weights)
    except ValueError as error:
        raise ValueError(f"model.init_from={init_from} {error}") from error
    return f"starting from {init_from}" + "".join(f"; {remark}" for remark in remarks)


def fit(net: ViT, weights: Weights) -> list[str]:
    """Load weights into `net`, and list the adaptations and assumptions. ValueError if the function would change."""
    refuse_another_trunk(net, weights)
    state, own = dict(weights.state), net.state_dict()
    remarks = [*weights.remarks, *remarks_on_unknown(net, weights)]
    remarks += fit_kernel(net, weights, state)
    remarks += fit_table(net, weights, state)
    remarks += fit_head(net, weights, state)
    remarks += fit_scale(net, state)
    differing = [name for name in sorted({*state, *own}) if name not in state or name not in own]
    if differing:
        raise ValueError(
            "is another architecture: "
            + ", ".join(f"{name} is only {'there' if name in state else 'here'}" for name in differing[:4])
            + (", ..." if len(differing) > 4 else "")
            + ": choose a plain Vision Transformer of timm's, or the options this checkpoint was trained with"
        )
    unequal = [name for name in own if state[name].shape != own[name].shape]
    if unequal:
        raise ValueError(
            "does not fit: "
            + ", ".join(f"{n} is {shape(state[n])} there and {shape(own[n])} here" for n in unequal[:4])
            + ": give the options that it was trained with"
        )
    net.load_state_dict(state)
    return remarks


def refuse_another_trunk(net: ViT, weights: Weights) -> None:
    """Raise ValueError, with the options of the trained network, if the trunk of `net` has other options."""
    stored, own = weights.knobs, knobs_of(net)
    if "prefix" not in weights.state:
        raise ValueError(
            "contains no Vision Transformer: use a name that timm.list_pretrained('vit_*') gives, or a file with the "
            "state dict of one"
        )
    refuse_another_position(net, weights)
    if differing := [knob for knob in own if knob in stored and not equal(stored[knob], own[knob])]:
        cure = spell_knobs(differing, stored)
        raise ValueError(f"was not trained with {spell_knobs(differing, own)}: use {cure}")
    if weights.patches != isinstance(net.embed, ConvEmbed | LinearEmbed):
        raise ValueError(
            f"has {'a' if weights.patches else 'no'} patch embedding, unlike the embed asked for: use embed=conv or "
            "embed=linear for networks of timm, or the embed that it was trained with"
        )


def refuse_another_position(net: ViT, weights: Weights) -> None:
    """Raise ValueError, with the `pos` of the trained network, if `net` has other positional schemes."""
    stored, filled, table = weights.places, places(net), "tokens.table" in weights.state
    rotation = net.rotation[0] if len(net.rotation) else None
    unknown = {"rotation"} if "rotation" in weights.unknown and isinstance(rotation, AxialRope) else set()
    kinds = {"rope": AxialRope, "rope_mixed": MixedRope}
    stored_kind = kinds.get(stored.get("rotation", ""), type(rotation))
    other_kind = rotation is not None and not isinstance(rotation, stored_kind)
    other_table = table and "tokens" in filled and not isinstance(net.tokens, Learned)
    if filled - set(stored) - unknown or set(stored) - filled - {"tokens"} or other_kind or other_table:
        cures = [spell_pos(stored.values())]
        if table:
            cures.append(spell_pos(scheme for place, scheme in stored.items() if place != "tokens"))
        if not stored:
            raise ValueError(f"was trained without position, not with the pos asked for: use {' or '.join(cures)}")
        raise ValueError(f"was trained with {cures[0]}, not with the pos asked for: use {' or '.join(cures)}")


def remarks_on_unknown(net: ViT, weights: Weights) -> list[str]:
    """Return a remark on knobs that the file does not contain; the values of `net` are assumed."""
    knobs, unknown = knobs_of(net), [knob for knob in knobs_of(net) if knob in weights.unknown]
    assumed = [f"{knob}={spell_knob(knob, knobs)}" for knob in unknown]
    if "model.num_heads" in unknown and net.layout.head_dim != HEAD_DIM and net.layout.embed_dim % HEAD_DIM == 0:
        usual = net.layout.embed_dim // HEAD_DIM
        assumed[0] += f" (most networks of this width have {usual}, with {HEAD_DIM} values each)"
    if "rotation" in weights.unknown:
        assumed.append("q and k turned by pos=rope" if len(net.rotation) else "no rotation of q and k")
    return [f"its file does not say, and these are assumed: {', '.join(assumed)}"] if assumed else []


def fit_kernel(net: ViT, weights: Weights, state: dict[str, Tensor]) -> list[str]:
    """Resample the patch kernel in `state` to the patch of `net`, and sum or repeat its channels; return remarks."""
    if not weights.patches:
        return []
    remarks, embed = [], net.embed
    kernel, patch_size, channels = state["embed.proj.weight"], size_of(embed), in_chans(net)
    if (num_stored := kernel.shape[1]) != channels:
        try:
            kernel = adapt_input_conv(channels, kernel, base_chans=num_stored)
        except NotImplementedError:
            raise ValueError(
                f"was trained on {num_stored} channels, and these data have {channels}: use data with as many"
            ) from None
        how = "summed to one" if channels == 1 else f"repeated for {channels}"
        remarks.append(f"the kernels of its {num_stored} channels are {how}")
    if (stored_size := (kernel.shape[2], kernel.shape[3])) != patch_size:
        remarks.append(f"patch {spell(stored_size)} resampled to {spell(patch_size)}")
        rows, cols = (
            resampling(old, new, "bicubic", antialias=True).to(kernel)
            for old, new in zip(stored_size, patch_size, strict=True)
        )
        kernel = torch.einsum("d c y x, p y, q x -> d c p q", kernel, rows, cols)
    state["embed.proj.weight"] = kernel.flatten(1) if isinstance(embed, LinearEmbed) else kernel
    return remarks


def size_of(embed: Any) -> Size:
    return embed.patch_size


def fit_table(net: ViT, weights: Weights, state: dict[str, Tensor]) -> list[str]:
    """Resample the table of positions in `state` to the grid of `net`, or leave it out; return remarks."""
    if (table := state.get("tokens.table")) is None:
        return []
    if not isinstance(net.tokens, Learned):
        del state["tokens.table"]
        return ["its positions are left out, as pos=learned is not asked for"]
    rows, cols = net.layout.grid_size
    state["tokens.table"] = resample(table, (rows, cols))
    shown = f"{table.shape[0]}x{table.shape[1]} patches"
    assumed = (
        f", as which its {table.shape[0] * table.shape[1]} places are read," if "grid_size" in weights.unknown else ""
    )
    if table.shape[:2] != (rows, cols):
        return [f"positions of {shown}{assumed} resampled to {rows}x{cols}"]
    return [f"positions of {shown}{assumed} are taken as they are"] if assumed else []


def fit_head(net: ViT, weights: Weights, state: dict[str, Tensor]) -> list[str]:
    """Leave out, or take from `net`, the layers after the blocks that differ: head, pooling, norm; return remarks."""
    own, remarks = net.state_dict(), []
    head = state.get("head.weight")
    if head is None or head.shape != own["head.weight"].shape:
        classes = "none" if head is None else f"{len(head)} classes"
        remarks.append(f"the head is new: {classes} there, {len(own['head.weight'])} here")
        state |= {name: own[name] for name in ("head.weight", "head.bias")}
    if weights.pool not in (net.pool, None):
        seems = " as it seems" if "model.pool" in weights.unknown else ""
        remarks.append(f"the head reads model.pool={net.pool}, in training it read {weights.pool}{seems}")
    for part in ("attn_pool", "norm"):
        names = {name for name in {*state, *own} if name.startswith(f"{part}.")}
        if not names & set(state):
            state |= {name: own[name] for name in names}
        elif not names & set(own):
            for name in names:
                del state[name]
    if weights.final_norm != net.final_norm and not (
        net.pool == "cls" == (weights.pool or "cls") and "none" not in (net.final_norm, weights.final_norm)
    ):
        remarks.append(f"the last norm acts by model.final_norm={net.final_norm}, in training by {weights.final_norm}")
    return remarks


def fit_scale(net: ViT, state: dict[str, Tensor]) -> list[str]:
    """Fold the scales of branches into the projections before them; those that only the network has start at 1."""
    remarks = []
    for i in range(len(net.blocks)):
        for name, branch in ((f"blocks.{i}.gamma_1", "attn.proj"), (f"blocks.{i}.gamma_2", "mlp.fc2")):
            if net.layer_scale is not None:
                if name not in state:
                    remarks = ["its branches have no scale: those of model.layer_scale start at 1"]
                state.setdefault(name, torch.ones(net.layout.embed_dim))
            elif (scale := state.pop(name, None)) is not None:
                for path in (f"blocks.{i}.{branch}.weight", f"blocks.{i}.{branch}.bias"):
                    state[path] = scale.view(-1, *[1] * (state[path].ndim - 1)) * state[path]
    return remarks
