"""Trained weights into a network that was built here."""

from typing import Any

import torch
from timm.models import adapt_input_conv
from torch import Tensor

from patchbench.checks import Size, spell
from patchbench.embed.conv import ConvEmbed
from patchbench.embed.flexi import resampling
from patchbench.embed.linear import LinearEmbed
from patchbench.nets.vit import ViT
from patchbench.pos.grid import stretch
from patchbench.pos.learned import Learned
from patchbench.pos.rope import AxialRope, MixedRope
from patchbench.weights.knobs import HEAD_DIM, assign, equal, in_chans, knobs_of, places, shape, spell_pos, spelt
from patchbench.weights.read import read
from patchbench.weights.timm import Weights


def load(net: ViT, init_from: str) -> str:
    """Start `net` from trained weights, and say in a line what was adapted to it or had to be guessed.

    init_from: timm's name of a Vision Transformer, whose weights come from the Hugging Face hub, or a file: a state
    dict of timm's, an export of ours, or a checkpoint. Patch kernel and positions are resampled to the net's, channels
    summed or repeated as timm does; a head for another number of classes is left out. ValueError where anything else
    differs.
    """
    weights = read(init_from, net.layout.grid_size)
    try:
        remarks = fit(net, weights)
    except ValueError as error:
        raise ValueError(f"model.init_from={init_from} {error}") from error
    return f"starting from {init_from}" + "".join(f"; {remark}" for remark in remarks)


def fit(net: ViT, weights: Weights) -> list[str]:
    """Load weights into `net`, and list what was adapted or guessed. ValueError if that would be another function."""
    refuse_another_trunk(net, weights)
    state, own = dict(weights.state), net.state_dict()
    remarks = [*weights.remarks, *not_told(net, weights)]
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
    """ValueError that names the options of the trained network where those of `net` are others."""
    there, here = weights.knobs, knobs_of(net)
    if "prefix" not in weights.state:
        raise ValueError(
            "holds no Vision Transformer: use a name that timm.list_pretrained('vit_*') gives, or a file with the "
            "state dict of one"
        )
    refuse_another_position(net, weights)
    if differing := [knob for knob in here if knob in there and not equal(there[knob], here[knob])]:
        raise ValueError(f"was trained otherwise than {assign(differing, here)}: use {assign(differing, there)}")
    if weights.patches != isinstance(net.embed, ConvEmbed | LinearEmbed):
        raise ValueError(
            f"has {'a patch' if weights.patches else 'another kind of'} embedding than the embed asked for: use "
            "embed=conv or embed=linear for networks of timm, or the embed it was trained with"
        )


def refuse_another_position(net: ViT, weights: Weights) -> None:
    there, filled, table = weights.places, places(net), "tokens.table" in weights.state
    rotation = net.rotation[0] if len(net.rotation) else None
    untold = {"rotation"} if "rotation" in weights.untold and isinstance(rotation, AxialRope) else set()
    kinds = {"rope": AxialRope, "rope_mixed": MixedRope}
    other_kind = rotation is not None and not isinstance(rotation, kinds.get(there.get("rotation", ""), type(rotation)))
    other_table = table and "tokens" in filled and not isinstance(net.tokens, Learned)
    if filled - set(there) - untold or set(there) - filled - {"tokens"} or other_kind or other_table:
        cures = [spell_pos(there.values())]
        if table:
            cures.append(spell_pos(scheme for place, scheme in there.items() if place != "tokens"))
        if not there:
            raise ValueError(f"holds no position, as the pos asked for would: use {' or '.join(cures)}")
        raise ValueError(f"was trained with {cures[0]}, and not with the pos asked for: use {' or '.join(cures)}")


def not_told(net: ViT, weights: Weights) -> list[str]:
    """Remark on knobs that the file does not tell, and that are therefore taken as asked for."""
    here, untold = knobs_of(net), [knob for knob in knobs_of(net) if knob in weights.untold]
    said = [f"{knob}={spelt(knob, here)}" for knob in untold]
    if "model.num_heads" in untold and net.layout.head_dim != HEAD_DIM and net.layout.embed_dim % HEAD_DIM == 0:
        usual = net.layout.embed_dim // HEAD_DIM
        said[0] += f" (most networks of this width have {usual}, with {HEAD_DIM} values each)"
    if "rotation" in weights.untold:
        said.append("q and k turned by pos=rope" if len(net.rotation) else "no rotation of q and k")
    return [f"its file does not say, and these are assumed: {', '.join(said)}"] if said else []


def fit_kernel(net: ViT, weights: Weights, state: dict[str, Tensor]) -> list[str]:
    """Resample the patch kernel to the patch, and sum or repeat its channels."""
    if not weights.patches:
        return []
    remarks, embed = [], net.embed
    kernel, patch_size, channels = state["embed.proj.weight"], size_of(embed), in_chans(net)
    if (there := kernel.shape[1]) != channels:
        try:
            kernel = adapt_input_conv(channels, kernel, base_chans=there)
        except NotImplementedError:
            raise ValueError(
                f"was trained on {there} channels, and these data have {channels}: use data with as many"
            ) from None
        how = "summed to one" if channels == 1 else f"repeated for {channels}"
        remarks.append(f"the kernels of its {there} channels are {how}")
    if (there_size := (kernel.shape[2], kernel.shape[3])) != patch_size:
        remarks.append(f"patch {spell(there_size)} resampled to {spell(patch_size)}")
        rows, cols = (
            resampling(old, new, "bicubic", antialias=True).to(kernel)
            for old, new in zip(there_size, patch_size, strict=True)
        )
        kernel = torch.einsum("d c y x, p y, q x -> d c p q", kernel, rows, cols)
    state["embed.proj.weight"] = kernel.flatten(1) if isinstance(embed, LinearEmbed) else kernel
    return remarks


def size_of(embed: Any) -> Size:
    return embed.patch_size


def fit_table(net: ViT, weights: Weights, state: dict[str, Tensor]) -> list[str]:
    """Resample the table of positions to the grid, or leave it out."""
    if (table := state.get("tokens.table")) is None:
        return []
    if not isinstance(net.tokens, Learned):
        del state["tokens.table"]
        return ["its positions are left out, as pos=learned is not asked for"]
    rows, cols = net.layout.grid_size
    state["tokens.table"] = stretch(table, (rows, cols))
    there = f"{table.shape[0]}x{table.shape[1]} patches"
    assumed = (
        f", as which its {table.shape[0] * table.shape[1]} places are read," if "grid_size" in weights.untold else ""
    )
    if table.shape[:2] != (rows, cols):
        return [f"positions of {there}{assumed} resampled to {rows}x{cols}"]
    return [f"positions of {there}{assumed} are taken as they are"] if assumed else []


def fit_head(net: ViT, weights: Weights, state: dict[str, Tensor]) -> list[str]:
    """Leave out or add what stands between the blocks and the logits, where that differs."""
    own, remarks = net.state_dict(), []
    head = state.get("head.weight")
    if head is None or head.shape != own["head.weight"].shape:
        classes = "none" if head is None else f"{len(head)} classes"
        remarks.append(f"the head is new: {classes} there, {len(own['head.weight'])} here")
        state |= {name: own[name] for name in ("head.weight", "head.bias")}
    if weights.pool not in (net.pool, None):
        seems = " as it seems" if "model.pool" in weights.untold else ""
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
