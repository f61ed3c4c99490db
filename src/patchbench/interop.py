"""Weights in from timm's Vision Transformers, and out to them (Wightman, 2019).

timm adds a position to its class token as well: coming in it folds into the token, going out it is zero. Patch kernels
are resampled by pseudo-inverse (Beyer et al., 2023), positions bicubically.
"""

import json
import math
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import timm
import torch
from huggingface_hub.utils import logging as hub_logging
from safetensors import safe_open
from safetensors.torch import save_file
from timm.layers import resample_abs_pos_embed, resample_patch_embed
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from patchbench.embed.conv import ConvEmbed
from patchbench.embed.linear import LinearEmbed
from patchbench.layout import Size, size, spell
from patchbench.pos.learned import Learned
from patchbench.vit import PLACES, ViT

FILES = (".safetensors", ".ckpt", ".pth", ".pt", ".bin", ".tar")
WHERE = ("state_dict_ema", "model_ema", "state_dict", "model")  # in a file of timm's, what is averaged first
PREFIX = ("cls_token", "dist_token", "reg_token")  # in timm's order
SIZES = {(192, 12, 3): "tiny", (384, 12, 6): "small", (768, 12, 12): "base", (1024, 24, 16): "large"}


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
        held = "none" if head is None else f"{len(head)} classes"
        remarks.append(f"the head is new: {held} there, {len(own['head.weight'])} here")
        state |= {name: own[name] for name in ("head.weight", "head.bias")}
    if weights.pool != net.pool:
        remarks.append(f"the head reads model.pool={net.pool}, in training it read {weights.pool}")

    odd = [name for name in sorted({*state, *own}) if name not in state or name not in own]
    if odd:
        raise ValueError(
            f"model.init_from={init_from} is another architecture: "
            + ", ".join(f"{name} is only {'there' if name in state else 'here'}" for name in odd[:4])
            + (", ..." if len(odd) > 4 else "")
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
    odd = [knob for knob, value in there.items() if value != here[knob]]
    if odd:
        found = " ".join(f"model.{knob}={here[knob]:g}" for knob in odd)
        cure = " ".join(f"model.{knob}={there[knob]:g}" for knob in odd)
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


def places(net: ViT) -> set[str]:
    filled = {place for place in PLACES if place != "tokens" and len(getattr(net, place))}
    return filled if isinstance(net.tokens, nn.Identity) else filled | {"tokens"}


def mlp_ratio(net: ViT) -> float:
    block: Any = net.blocks[0]
    return block.mlp.fc1.out_features / net.layout.embed_dim


def in_chans(net: ViT) -> int:
    embed: Any = net.embed
    return embed.proj.weight[0].numel() // math.prod(embed.patch_size)


def shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "a number"


def read(init_from: str, grid_size: Size) -> Weights:
    """From the hub or from a file. grid_size: taken for the file's own where that is not square and does not say.

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
        close = get_close_matches(name, timm.list_models("*vit*") + timm.list_pretrained("vit_*"), 1)
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
    """Of a training of ours; nothing of a network that is no ViT."""
    if checkpoint["patchbench"]["factors"]["pos"] is None:
        return Weights({}, None, False, set(), "mean")
    config = checkpoint["patchbench"]["config"]
    state = net_state(checkpoint)
    patches = config["embed"]["_target_"].rpartition(".")[2] in (ConvEmbed.__name__, LinearEmbed.__name__)
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


def export(net: ViT, path: Path, *, img_size: Size, num_classes: int) -> str:
    """Write the weights for timm, as safetensors, and return the call that builds the network and loads them.

    ValueError where timm's VisionTransformer is not the same function.
    """
    arguments, state = to_timm(net, img_size=img_size, num_classes=num_classes)
    name = arguments.pop("model_name")
    written = ", ".join([repr(name), *(f"{key}={value!r}" for key, value in arguments.items())])
    call = f"timm.create_model({written}, checkpoint_path={str(path)!r})"
    facts = {"grid_size": net.layout.grid_size, "num_heads": net.layout.num_heads, "pool": net.pool, "timm": call}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(state, path, {"format": "pt", "patchbench": json.dumps(facts)})
    return call


def to_timm(net: ViT, *, img_size: Size, num_classes: int) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The arguments of timm.create_model, and the state dict that its network loads."""
    embed, layout = net.embed, net.layout
    if not isinstance(embed, ConvEmbed | LinearEmbed):
        raise ValueError(
            "timm has no Vision Transformer with this embed: only embed=conv and embed=linear can be exported"
        )
    if any(n % p for n, p in zip(img_size, embed.patch_size, strict=True)):
        raise ValueError(
            f"timm's patches do not cover data.img_size={spell(img_size)} by padding as embed.pad=true does: "
            f"only a multiple of patch={spell(embed.patch_size)} can be exported"
        )
    if places(net) - {"tokens"}:
        raise ValueError(
            "timm's Vision Transformer knows position in its tokens only: no pos that turns q and k, shifts attention "
            "or stands between blocks can be exported"
        )
    ours = {name: w.detach().cpu() for name, w in net.state_dict().items()}
    names = {"embed": "patch_embed", "norm": "norm" if net.pool == "cls" else "fc_norm"}
    state = {".".join([names.get(n.split(".")[0], n.split(".")[0]), *n.split(".")[1:]]): w for n, w in ours.items()}
    state = {n: w for n, w in state.items() if n.split(".")[0] not in ("prefix", "tokens")}
    state["patch_embed.proj.weight"] = ours["embed.proj.weight"].flatten(1).unflatten(1, (-1, *embed.patch_size))
    prefix = ours["prefix"]
    if len(prefix):
        state["cls_token"] = prefix[None, :1]
    if len(prefix) > 1:
        state["reg_token"] = prefix[None, 1:]
    if not isinstance(net.tokens, nn.Identity):
        table = added(net.tokens, layout.grid_size, layout.embed_dim)
        placed = len(prefix) == 1  # timm's own convention: with registers, only patches have a position
        state["pos_embed"] = torch.cat([torch.zeros(int(placed), layout.embed_dim), table.flatten(0, 1)])[None]

    shape = (layout.embed_dim, len(net.blocks), layout.num_heads)
    p, s = embed.patch_size[0], img_size[0]
    name = f"vit_{SIZES.get(shape, 'tiny')}_patch{p}_{s}"
    if embed.patch_size != (p, p) or img_size != (s, s) or not timm.is_model(name):
        name, p, s = f"vit_{SIZES.get(shape, 'tiny')}_patch16_224", 16, 224
    arguments: dict[str, Any] = {"model_name": name}
    asked = {
        "img_size": (img_size, (s, s)),
        "patch_size": (embed.patch_size, (p, p)),
        "in_chans": (in_chans(net), 3),
        "num_classes": (num_classes, 1000),
        "embed_dim": (shape[0], shape[0] if shape in SIZES else 192),
        "depth": (shape[1], shape[1] if shape in SIZES else 12),
        "num_heads": (shape[2], shape[2] if shape in SIZES else 3),
        "mlp_ratio": (mlp_ratio(net), 4.0),
        "global_pool": ("token" if net.pool == "cls" else "avg", "token"),
        "class_token": (len(prefix) > 0, True),
        "reg_tokens": (max(0, len(prefix) - 1), 0),
        "no_embed_class": (len(prefix) > 1, False),
        "pos_embed": ("learn" if "pos_embed" in state else "none", "learn"),
    }
    arguments |= {key: value for key, (value, default) in asked.items() if value != default}
    return arguments, {n: w.contiguous().clone() for n, w in state.items()}


def added(tokens: nn.Module, grid_size: Size, embed_dim: int) -> Tensor:
    """What a scheme adds to every image's tokens. ValueError if that is not the same for all."""
    with torch.no_grad():
        table, probe = tokens(torch.zeros(1, *grid_size, embed_dim)), torch.randn(1, *grid_size, embed_dim)
        if not torch.allclose(tokens(probe) - probe, table, atol=1e-5):
            raise ValueError(
                "timm's positions are a table that is added: this pos depends on the tokens, and cannot be exported"
            )
    return table[0].cpu()
