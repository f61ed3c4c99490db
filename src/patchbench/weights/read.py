"""Weights in from timm's Vision Transformers, and out to them (Wightman, 2019).

timm adds a position to its class token as well: coming in it folds into the token, going out it is zero. Patch kernels
are resampled by pseudo-inverse (Beyer et al., 2023), positions bicubically.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from huggingface_hub.utils import logging as hub_logging
from safetensors import safe_open
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from patchbench.checks import Size, nearest, size
from patchbench.layout import PLACES

FILES = (".safetensors", ".ckpt", ".pth", ".pt", ".bin", ".tar")
WHERE = ("state_dict_ema", "model_ema", "state_dict", "model")  # in a file of timm's, what is averaged first
PATCHES = ("conv", "linear")  # options of embed that cut and project
PREFIX = ("cls_token", "dist_token", "reg_token")  # in timm's order


@dataclass(frozen=True)
class Weights:
    """A trained network's, under the names of `ViT`; a patch projection is conv-shaped, a position table on its grid.

    num_heads: None where the file does not say. patches: whether the embedding is cut-and-project, as conv and linear
    are. places: where position entered, see `Position`. pool: what its head read.
    """

    state: dict[str, Tensor]
    num_heads: int | None
    patches: bool
    places: set[str]
    pool: str


def read(init_from: str, grid_size: Size) -> Weights:
    """Read weights from the hub or from a file.

    grid_size: taken for that of the file, where the file does not say and its table is not square.
    ValueError if there is nothing, or nothing of this kind, under that name.
    """
    path = Path(init_from)
    if path.suffix not in FILES and not path.is_file():
        return download(init_from)
    if not path.is_file():
        raise ValueError(f"model.init_from={init_from}: there is no such file")
    facts: dict[str, Any] = {}
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, "pt") as file:
                facts = json.loads((file.metadata() or {}).get("patchbench", "{}"))
                state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, it is no dict
        else:
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
            if "patchbench" in checkpoint:
                return from_checkpoint(checkpoint)
            inside = [checkpoint[key] for key in WHERE if checkpoint.get(key)]
            state = {name.removeprefix("module."): w for name, w in (inside or [checkpoint])[0].items()}
    except Exception as error:  # torch and safetensors raise a class of their own for each way to be no such file
        raise ValueError(f"model.init_from={init_from} cannot be read: {str(error).splitlines()[0]}") from error
    rows, cols = facts.get("grid_size", grid_size)
    return from_timm(state, grid_size=(rows, cols), num_heads=facts.get("num_heads"), pool=facts.get("pool"))


def download(name: str) -> Weights:
    hub_logging.set_verbosity_error()  # of each failed attempt it would say so
    hub = name.startswith(("hf-hub:", "hf_hub:"))
    if not hub and not timm.is_model(name):
        close = nearest(name, timm.list_models("*vit*") + timm.list_pretrained("vit_*"))
        hint = f"did you mean {close[0]}?" if close else "timm.list_pretrained('vit_*') lists the names"
        raise ValueError(f"model.init_from={name} is neither a file nor a network of timm: {hint}")
    try:
        vit = timm.create_model(name, pretrained=True)
    except Exception as error:  # of the hub, of the network below it, or of timm where it has no weights to give
        raise ValueError(
            f"model.init_from={name} cannot be had from the hub ({str(error).splitlines()[0]}): give a file instead, "
            "or download it once where there is a network"
        ) from error
    if not isinstance(vit, VisionTransformer):
        raise ValueError(
            f"model.init_from={name} is a {type(vit).__name__}: use a plain one, such as vit_tiny_patch16_224"
        )
    pool = "cls" if vit.global_pool == "token" else "mean"
    block: Any = vit.blocks[0]
    return from_timm(vit.state_dict(), grid_size=vit.patch_embed.grid_size, num_heads=block.attn.num_heads, pool=pool)


def net_state(checkpoint: dict[str, Any]) -> dict[str, Tensor]:
    """The network's part of what a training of ours keeps, under the network's own names."""
    return {n.removeprefix("net."): w for n, w in checkpoint["state_dict"].items() if n.startswith("net.")}


def from_checkpoint(checkpoint: dict[str, Any]) -> Weights:
    """Weights of a training of ours; none of a network that is no ViT."""
    origin = checkpoint["patchbench"]
    if origin["factors"]["pos"] is None:
        return Weights({}, None, False, set(), "mean")
    config, state = origin["config"], net_state(checkpoint)
    patches = origin["options"]["embed"] in PATCHES
    if patches:
        patch_size = size("patch", config["embed"]["patch_size"])
        state["embed.proj.weight"] = state["embed.proj.weight"].flatten(1).unflatten(1, (-1, *patch_size))
    filled = {place for scheme in config["pos"].values() for place, part in scheme.items() if part is not None}
    return Weights(state, config["model"]["num_heads"], patches, filled & set(PLACES), config["model"]["pool"])


def from_timm(state: dict[str, Tensor], *, grid_size: Size, num_heads: int | None, pool: str | None) -> Weights:
    """Rename, fold the position of prefix tokens into them, and LayerScale into the projection before it.

    grid_size: of the position table, where it is not square.
    """
    state = {name: w.float() for name, w in state.items() if not name.startswith("head_dist.")}
    if "patch_embed.proj.weight" not in state:
        return Weights({}, num_heads, False, set(), "cls")
    pool = pool or ("cls" if "cls_token" in state and "fc_norm.weight" not in state else "mean")
    if pool == "mean" and "norm.weight" in state:
        pool = "the mean of what the norm had passed"
    tokens = [state.pop(name)[0] for name in PREFIX if name in state]
    prefix = torch.cat(tokens) if tokens else torch.empty(0, len(state["patch_embed.proj.weight"]))
    if "pos_embed" in state:
        position = state.pop("pos_embed").flatten(0, -2)
        grid_size, num_placed = grid_of(len(position), len(prefix), (grid_size[0], grid_size[1]))
        prefix = prefix + nn.functional.pad(position[:num_placed], (0, 0, 0, len(prefix) - num_placed))
        state["tokens.table"] = position[num_placed:].unflatten(0, grid_size)
    for name in [name for name in state if name.endswith((".ls1.gamma", ".ls2.gamma"))]:
        gamma, block = state.pop(name), name.rpartition(".ls")[0]
        for part in ("weight", "bias"):
            folded = f"{block}.{'attn.proj' if '.ls1.' in name else 'mlp.fc2'}.{part}"
            state[folded] = gamma.view(-1, *[1] * (state[folded].ndim - 1)) * state[folded]
    names = {"patch_embed": "embed", "fc_norm": "norm"}
    renamed = {".".join([names.get(first := n.split(".")[0], first), *n.split(".")[1:]]): w for n, w in state.items()}
    filled = {"tokens"} & {name.split(".")[0] for name in renamed}
    return Weights(renamed | {"prefix": prefix}, num_heads, True, filled, pool)


def grid_of(num_positions: int, num_prefix_tokens: int, expected: Size) -> tuple[Size, int]:
    """The grid of a table, and how many of its rows belong to prefix tokens: all of them, or none.

    A table does not tell its grid: the expected one if it fits, else a square. ValueError if neither does.
    """
    for placed in dict.fromkeys((num_prefix_tokens, 0)):
        if num_positions - placed == math.prod(expected):
            return expected, placed
    for placed in dict.fromkeys((num_prefix_tokens, 0)):
        side = math.isqrt(max(0, num_positions - placed))
        if side and side**2 == num_positions - placed:
            return (side, side), placed
    raise ValueError(
        f"model.init_from: {num_positions} positions make no square grid, nor the asked one of "
        f"{expected[0]}x{expected[1]} patches: ask for the data.img_size and patch that it was trained with"
    )
