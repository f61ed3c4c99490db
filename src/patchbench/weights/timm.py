"""Conversion of the weights of a Vision Transformer of timm to our `ViT` (Wightman, 2019).

timm has several forms of one function. Separate q, k and v become one projection; a missing bias is zero; the position
of the class token is added to the token. If timm rotates other pairs of channels of a head, the channels of q and k are
reordered.
"""

import math
import re
from dataclasses import dataclass, field
from typing import Any

import torch
from timm.layers import PatchEmbed, RotaryEmbeddingCat, RotaryEmbeddingDinoV3, RotaryEmbeddingMixed
from timm.models.deit import VisionTransformerDistilled
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from patchbench.checks import Size

PREFIX = ("cls_token", "dist_token", "reg_token")  # in timm's order
POOLS = {"token": "cls", "avg": "mean", "map": "map"}
ACTS = {  # class of the MLP, class of its activation: value of model.act
    ("Mlp", "GELU"): "gelu",
    ("Mlp", "GELUTanh"): "gelu_tanh",
    ("Mlp", "QuickGELU"): "quick_gelu",
    ("GluMlp", "SiLU"): "swiglu",
    ("SwiGLU", "SiLU"): "swiglu",
}
NAMES = {"patch_embed": "embed", "fc_norm": "norm"}
OTHERS = {  # parts of names of parameters that `ViT` does not have, and a description of their module
    "patch_embed.backbone.": "a convolutional network before its patches",
    "patch_embed.norm.": "a norm in its patch embedding",
    "attn.rel_pos": "relative positions of another kind than ours",
    "rel_pos_bias.": "relative positions of another kind than ours",
    "relative_position_bias_table": "relative positions that reach to its class token",
    "q_norm.": "a norm of q and k",
    "attn.gate.": "a gate on its attention",
    "neck.": "a convolutional neck",
    "blocks.0.in_proj.": "attention and MLP side by side",
}
CLASSES = {  # classes of timm, and their difference from a plain ViT
    "Beit": "relative positions that reach to its class token",
    "NaFlexVit": "another embedding, of images of any shape",
    "VisionTransformerRelPos": "relative positions of another kind than ours",
    "VisionTransformerSAM": "windows and relative positions",
}


@dataclass(frozen=True)
class Metadata:
    """Properties of a network that its state dict does not contain.

    knobs: by their names on the command line. grid_size: of the position table. rotation: scheme that rotates q and k;
    None: no rotation; `unknown`: there may be a rotation without parameters. order: indices of the channels of a head
    in the order of our rotation. pool: input of the head, a value of model.pool; None: no head.
    """

    knobs: dict[str, Any] = field(default_factory=dict)
    grid_size: Size | None = None
    rotation: str | None = "unknown"
    order: Tensor | None = None
    pool: str | None = "unknown"


@dataclass(frozen=True)
class Weights:
    """Weights of a trained network under the names of `ViT`.

    state: the weight of a patch projection has the shape of a convolution d c P Q, a position table is h w d.
    knobs: see `knobs_of`, without unknown ones. patches: true if the embedding projects patches, as conv and linear do.
    places: scheme of each place, without unknown ones. pool, final_norm: see `ViT`. remarks: on weights that were left
    out. unknown: properties that were guessed, or that the network that loads the weights decides.
    """

    state: dict[str, Tensor]
    knobs: dict[str, Any] = field(default_factory=dict)
    patches: bool = False
    places: dict[str, str] = field(default_factory=dict)
    pool: str | None = None
    final_norm: str = "pooled"
    remarks: tuple[str, ...] = ()
    unknown: frozenset[str] = frozenset()


def metadata_of(vit: nn.Module) -> Metadata:
    """Return the metadata of a network of timm. ValueError names the reason if `ViT` cannot represent it."""
    if type(vit) not in (VisionTransformer, VisionTransformerDistilled, Eva):
        difference = f", with {CLASSES[kind]}" if (kind := type(vit).__name__) in CLASSES else ""
        raise ValueError(f"is a {kind}{difference}: use a plain one, such as vit_tiny_patch16_224")
    net: Any = vit
    block, embed, rope = net.blocks[0], net.patch_embed, getattr(net, "rope", None)
    if type(embed) is not PatchEmbed:
        raise ValueError(f"has {spell_class(embed)} before its blocks: use one whose patches are projected at once")
    if kinds := {type(b).__name__ for b in net.blocks} - {"Block", "EvaBlock"}:
        raise ValueError(f"has blocks of another kind ({', '.join(sorted(kinds))}): use one with plain blocks")
    norms = {type(m) for m in net.modules() if "Norm" in type(m).__name__}
    if other := {norm.__name__ for norm in norms if not issubclass(norm, nn.LayerNorm)}:
        raise ValueError(f"has norms of another kind ({', '.join(sorted(other))}): use one with layer norms")
    if block.attn.head_dim * block.attn.num_heads != net.embed_dim:
        raise ValueError(
            f"has {block.attn.num_heads} heads of {block.attn.head_dim} values, which do not make up its width of "
            f"{net.embed_dim}: use one whose heads do"
        )
    mlp = type(block.mlp).__name__, type(block.mlp.act).__name__
    if mlp not in ACTS or getattr(block.mlp, "gate_last", False):
        raise ValueError(
            f"has MLPs of another kind ({' with '.join(mlp)}): use one with {', '.join(dict.fromkeys(ACTS.values()))}"
        )
    if net.global_pool not in ("", *POOLS):
        raise ValueError(f"pools its tokens by {net.global_pool}: use one that reads {', '.join(POOLS)}")
    over_all = getattr(net, "pool_include_prefix", False) or (net.global_pool == "map" and isinstance(net, Eva))
    if over_all and net.num_prefix_tokens:
        raise ValueError("pools the class token or registers together with the patches: use one that pools patches")
    if net.global_pool == "map" and net.attn_pool.num_heads != block.attn.num_heads:
        raise ValueError(
            f"pools by {net.attn_pool.num_heads} heads, and its blocks have {block.attn.num_heads}: use one of as many"
        )
    knobs = {
        "model.num_heads": block.attn.num_heads,
        "model.act": ACTS[mlp],
        "model.norm_eps": block.norm1.eps,
    }
    rotation, order = None, None
    if isinstance(rope, RotaryEmbeddingMixed) and rope.grid_indexing == "xy":
        rotation = "rope_mixed"
    elif isinstance(rope, RotaryEmbeddingCat | RotaryEmbeddingDinoV3):
        rotation = "rope"
        centred = isinstance(rope, RotaryEmbeddingDinoV3)
        offset = "centre" if centred else rope.grid_offset
        values: dict[str, Any] = {"temperature": rope.temperature, "span": span_of(rope), "offset": offset}
        knobs |= {f"pos.rope.rotation.{name}": value for name, value in values.items()}
        order = channels(block.attn.head_dim, halves=rope.rotate_half, columns_first=rope.grid_indexing == "xy")
    elif rope is not None:
        raise ValueError(f"turns q and k in another way ({type(rope).__name__}): use one without")
    return Metadata(knobs, embed.grid_size, rotation, order, POOLS.get(net.global_pool))


def spell_class(module: nn.Module) -> str:
    name = type(module).__name__
    return f"{'an' if name[0] in 'AEIOU' else 'a'} {name}"


def span_of(rope: Any) -> float | None:
    """Angle in radians by which the fastest pair of channels turns over a whole grid, see pos/rope.py.

    None if the angle depends on the number of patches. ValueError for a grid that is not square.
    """
    if isinstance(rope, RotaryEmbeddingDinoV3):  # coordinates from -1 to 1, in turns of 2 pi
        return 4 * math.pi
    if rope.ref_feat_shape is None:
        return None
    rows, cols = rope.ref_feat_shape
    if rows != cols:
        raise ValueError(f"turns q and k for a grid of {rows}x{cols} patches: use one for a square grid")
    return float(rows)


def channels(head_dim: int, *, halves: bool, columns_first: bool) -> Tensor:
    """Return indices that order the channels of a head as our rotation: neighbours form a pair, row pairs come first.

    halves: timm pairs the channels i and i + head_dim / 2. columns_first: in timm the column pairs come first.
    """
    pairs = torch.arange(head_dim // 2)
    if columns_first:
        pairs = pairs.roll(head_dim // 4)
    return torch.stack([pairs, pairs + head_dim // 2] if halves else [2 * pairs, 2 * pairs + 1], dim=1).flatten()


def from_timm(state: dict[str, Tensor], metadata: Metadata, target_grid: Size) -> Weights:
    """Convert a state dict of timm to the names and the form of `ViT`.

    target_grid: grid of the network that will load the weights. ValueError if `ViT` cannot represent the network. Empty
    weights if the state dict is not that of a Vision Transformer.
    """
    state = {name: w.float() for name, w in state.items()}
    for fragment, thing in OTHERS.items():
        if any(fragment in name for name in state):
            raise ValueError(f"has {thing}: use a network without")
    if not {"patch_embed.proj.weight", "blocks.0.norm1.weight", "blocks.0.mlp.fc2.weight"} <= set(state):
        return Weights({})
    if "blocks.0.norm1.bias" not in state:
        raise ValueError("has norms of another kind, without bias: use a network with layer norms")
    if {"norm.weight", "fc_norm.weight"} <= set(state):
        raise ValueError("has a norm before pooling and one after it: use a network with one of them")
    remarks = []
    if "head_dist.weight" in state:
        state = {name: w for name, w in state.items() if not name.startswith("head_dist.")}
        remarks.append("its second head is left out: its own logits are the mean of two heads")
    depth = len({name.split(".")[1] for name in state if name.startswith("blocks.")})
    for i in range(depth):
        fold(state, f"blocks.{i}", metadata)
    for name in [name for name, w in state.items() if name.endswith(".weight") and w.ndim > 1]:
        state.setdefault(name.removesuffix("weight") + "bias", torch.zeros(len(state[name])))
    embed_dim, hidden = state["blocks.0.mlp.fc2.weight"].shape
    gated = "blocks.0.mlp.fc1_g.weight" in state or len(state["blocks.0.mlp.fc1.weight"]) == 2 * hidden
    knobs = {
        "model.embed_dim": embed_dim,
        "model.depth": depth,
        "model.mlp_ratio": hidden / embed_dim,
        "model.num_prefix_tokens": sum(state[name].shape[1] for name in PREFIX if name in state),
        "model.pre_norm": "norm_pre.weight" in state,
        "model.scale_attn_norm": "blocks.0.attn.norm.weight" in state,
        "model.scale_mlp_norm": "blocks.0.mlp.norm.weight" in state,
    }
    knobs |= metadata.knobs | ({"model.act": "swiglu"} if gated else {})
    unknown = [knob for knob in ("model.num_heads", "model.act", "model.norm_eps") if knob not in knobs]

    pool, final_norm = metadata.pool, "pooled" if "fc_norm.weight" in state else "tokens"
    if "norm.weight" not in state and final_norm == "tokens":
        final_norm = "none"
    if pool == "unknown":
        pool = "mean" if "cls_token" not in state or final_norm == "pooled" else "cls"
        unknown += ["model.pool"] if pool == "cls" else []
    if "attn_pool.latent" in state:
        pool = "map"

    tokens = [state.pop(name)[0] for name in PREFIX if name in state]
    prefix = torch.cat(tokens) if tokens else torch.empty(0, embed_dim)
    places = {} if metadata.rotation in (None, "unknown") else {"rotation": str(metadata.rotation)}
    if "pos_embed" in state:
        position, places["tokens"] = state.pop("pos_embed").flatten(0, -2), "learned"
        grid_size, num_placed, certain = grid_of(len(position), len(prefix), metadata.grid_size, target_grid)
        unknown += [] if certain else ["grid_size"]
        prefix = prefix + nn.functional.pad(position[:num_placed], (0, 0, 0, len(prefix) - num_placed))
        state["tokens.table"] = position[num_placed:].unflatten(0, grid_size)
    if "rope.freqs" in state:
        places["rotation"] = "rope_mixed"
        state |= {f"rotation.{i}.freqs": w for i, w in enumerate(state.pop("rope.freqs").unbind(1))}
    elif metadata.rotation == "unknown":
        unknown.append("rotation")
    renamed = {re.sub(r"^\w+", lambda first: NAMES.get(first[0], first[0]), name): w for name, w in state.items()}
    return Weights(
        renamed | {"prefix": prefix}, knobs, True, places, pool, final_norm, tuple(remarks), frozenset(unknown)
    )


def fold(state: dict[str, Tensor], block: str, metadata: Metadata) -> None:
    """Convert one block of a state dict to the form of `ViT`, in place."""
    for number in (1, 2):
        if (gamma := state.pop(f"{block}.ls{number}.gamma", None)) is not None:
            state[f"{block}.gamma_{number}"] = gamma
    qkv = f"{block}.attn.qkv"
    if f"{block}.attn.q_proj.weight" in state:
        weights = [state.pop(f"{block}.attn.{part}_proj.weight") for part in "qkv"]
        biases = [state.pop(f"{block}.attn.{part}_proj.bias", torch.zeros(len(weights[0]))) for part in "qkv"]
        state[f"{qkv}.weight"], state[f"{qkv}.bias"] = torch.cat(weights), torch.cat(biases)
    if (q := state.pop(f"{block}.attn.q_bias", None)) is not None:
        state[f"{qkv}.bias"] = torch.cat([q, torch.zeros_like(q), state.pop(f"{block}.attn.v_bias")])
    if metadata.order is not None:
        for name in [name for name in (f"{qkv}.weight", f"{qkv}.bias") if name in state]:
            q, k, v = state[name].unflatten(0, (3, -1, len(metadata.order)))
            state[name] = torch.stack([q[:, metadata.order], k[:, metadata.order], v]).flatten(0, 2)
    if f"{block}.mlp.fc1_g.weight" in state and f"{block}.mlp.norm.weight" not in state:  # one projection for both
        for part in ("weight", "bias"):
            if f"{block}.mlp.fc1_g.{part}" in state:
                halves = [state.pop(f"{block}.mlp.fc1_{half}.{part}") for half in "gx"]
                state[f"{block}.mlp.fc1.{part}"] = torch.cat(halves)


def grid_of(num_positions: int, num_prefix_tokens: int, known: Size | None, target: Size) -> tuple[Size, int, bool]:
    """Return the grid of a position table, the number of its rows for prefix tokens, and whether both are certain.

    The number of rows for prefix tokens is num_prefix_tokens or 0. The grid is `known`, if given; else a square, as
    nearly all are; else the grid `target`. ValueError if none of them has as many places.
    """

    def fits(grid_size: Size, placed: int) -> bool:
        return math.prod(grid_size) == num_positions - placed

    candidates = []
    for placed in dict.fromkeys((num_prefix_tokens, 0)):
        side = math.isqrt(max(0, num_positions - placed))
        grids = [known] if known else [(side, side), target]
        candidates += [(grid, placed) for grid in dict.fromkeys(grids) if math.prod(grid) and fits(grid, placed)]
    if not candidates:
        expected = known or target
        raise ValueError(
            f"has {num_positions} positions, which make no square grid, nor one of {expected[0]}x{expected[1]} "
            "patches: ask for the data.img_size and patch that it was trained with"
        )
    (rows, cols), placed = min(candidates, key=lambda reading: (reading[0][0] != reading[0][1], reading[0] != target))
    return (rows, cols), placed, known is not None or (len(candidates) == 1 and rows == cols)
