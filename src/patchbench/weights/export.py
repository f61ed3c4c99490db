"""Export of a trained ViT to a file that timm loads."""

import json
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import save
from torch import Tensor, nn

from patchbench.checks import Size, spell
from patchbench.embed.conv import ConvEmbed
from patchbench.embed.linear import LinearEmbed
from patchbench.machine import whole_file
from patchbench.nets.vit import ViT
from patchbench.weights.knobs import equal, in_chans, knobs_of, places

SIZES = {(192, 12, 3): "tiny", (384, 12, 6): "small", (768, 12, 12): "base", (1024, 24, 16): "large"}


def export(net: ViT, path: Path, *, img_size: Size, num_classes: int) -> str:
    """Write the weights for timm, as safetensors, and return the call of timm that builds the network and loads them.

    ValueError if no VisionTransformer of timm computes the same function.
    """
    arguments, state = to_timm(net, img_size=img_size, num_classes=num_classes)
    name = arguments.pop("model_name")
    written = ", ".join([repr(name), *(f"{key}={value!r}" for key, value in arguments.items())])
    call = f"timm.create_model({written}, checkpoint_path={str(path)!r})"
    knobs = {name: value for name, value in knobs_of(net).items() if name in ("model.act", "model.norm_eps")}
    facts = {
        "grid_size": net.layout.grid_size,
        "num_heads": net.layout.num_heads,
        "pool": net.pool,
        "knobs": knobs,
        "timm": call,
    }
    with whole_file(path, "wb") as file:  # safetensors' save_file ignores the umask and sets mode 0600
        file.write(save(state, {"format": "pt", "patchbench": json.dumps(facts)}))
    return call


def to_timm(net: ViT, *, img_size: Size, num_classes: int) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return the arguments of timm.create_model, and the state dict for its network.

    ValueError if no VisionTransformer of timm computes the same function.
    """
    embed, layout = net.embed, net.layout
    if not isinstance(embed, ConvEmbed | LinearEmbed):
        raise ValueError(
            "timm has no Vision Transformer with this embed: only embed=conv and embed=linear can be exported"
        )
    if any(n % p for n, p in zip(img_size, embed.patch_size, strict=True)):
        raise ValueError(
            f"timm does not pad data.img_size={spell(img_size)} as embed.pad=true does: only a multiple of "
            f"patch={spell(embed.patch_size)} can be exported"
        )
    if places(net) - {"tokens"}:
        raise ValueError(
            "timm's Vision Transformer adds position to its tokens only: a pos that turns q and k, shifts attention or "
            "is applied between blocks cannot be exported"
        )
    knobs = knobs_of(net)
    if net.act == "swiglu" or knobs["model.pre_norm"] or not equal(net.norm_eps, 1e-6):
        raise ValueError(
            "timm's Vision Transformer cannot express model.act=swiglu, model.pre_norm=true or a model.norm_eps other "
            "than 1e-6: a network with one of them cannot be exported"
        )
    own = {name: w.detach().cpu() for name, w in net.state_dict().items()}
    after_pool = net.final_norm == "pooled" and net.pool != "cls"
    names = {"embed": "patch_embed", "norm": "fc_norm" if after_pool else "norm"}
    state = {".".join([names.get(n.split(".")[0], n.split(".")[0]), *n.split(".")[1:]]): w for n, w in own.items()}
    state = {n: w for n, w in state.items() if n.split(".")[0] not in ("prefix", "tokens")}
    state["patch_embed.proj.weight"] = own["embed.proj.weight"].flatten(1).unflatten(1, (-1, *embed.patch_size))
    state = {n.replace("gamma_1", "ls1.gamma").replace("gamma_2", "ls2.gamma"): w for n, w in state.items()}
    prefix = own["prefix"]
    if len(prefix):
        state["cls_token"] = prefix[None, :1]
    if len(prefix) > 1:
        state["reg_token"] = prefix[None, 1:]
    if not isinstance(net.tokens, nn.Identity):
        table = position_table(net.tokens, layout.grid_size, layout.embed_dim)
        placed = len(prefix) == 1  # convention of timm: with registers, only patches have a position
        state["pos_embed"] = torch.cat([torch.zeros(int(placed), layout.embed_dim), table.flatten(0, 1)])[None]

    shape = (layout.embed_dim, len(net.blocks), layout.num_heads)
    p, s = embed.patch_size[0], img_size[0]
    name = f"vit_{SIZES.get(shape, 'tiny')}_patch{p}_{s}"
    if embed.patch_size != (p, p) or img_size != (s, s) or not timm.is_model(name):
        name, p, s = f"vit_{SIZES.get(shape, 'tiny')}_patch16_224", 16, 224
    arguments: dict[str, Any] = {"model_name": name}
    values = {
        "img_size": (img_size, (s, s)),
        "patch_size": (embed.patch_size, (p, p)),
        "in_chans": (in_chans(net), 3),
        "num_classes": (num_classes, 1000),
        "embed_dim": (shape[0], shape[0] if shape in SIZES else 192),
        "depth": (shape[1], shape[1] if shape in SIZES else 12),
        "num_heads": (shape[2], shape[2] if shape in SIZES else 3),
        "mlp_ratio": (knobs.get("model.mlp_ratio", 4.0), 4.0),
        "global_pool": ({"cls": "token", "mean": "avg", "map": "map"}[net.pool], "token"),
        "fc_norm": (after_pool, net.pool == "mean"),
        "final_norm": (net.final_norm != "none", True),
        "act_layer": (net.act, "gelu"),
        "scale_attn_norm": (knobs.get("model.scale_attn_norm", False), False),
        "scale_mlp_norm": (knobs.get("model.scale_mlp_norm", False), False),
        "init_values": (net.layer_scale, None),
        "class_token": (len(prefix) > 0, True),
        "reg_tokens": (max(0, len(prefix) - 1), 0),
        "no_embed_class": (len(prefix) > 1, False),
        "pos_embed": ("learn" if "pos_embed" in state else "none", "learn"),
    }
    arguments |= {key: value for key, (value, default) in values.items() if value != default}
    return arguments, {n: w.contiguous().clone() for n, w in state.items()}


def position_table(tokens: nn.Module, grid_size: Size, embed_dim: int) -> Tensor:
    """Return the vectors h w d that a scheme adds to the tokens. ValueError if they depend on the tokens."""
    with torch.no_grad():
        table, probe = tokens(torch.zeros(1, *grid_size, embed_dim)), torch.randn(1, *grid_size, embed_dim)
        if not torch.allclose(tokens(probe) - probe, table, atol=1e-5):
            raise ValueError("timm adds a table of positions: this pos depends on the tokens, and cannot be exported")
    return table[0].cpu()
