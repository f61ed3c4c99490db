"""The knobs with which a network was built, by their names on the command line, read from the network itself."""

import math
from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn

from patchbench.layout import PLACES
from patchbench.nets.vit import ViT
from patchbench.pos.rope import AxialRope

HEAD_DIM = 64  # dimensions of a head in nearly all published Vision Transformers


def places(net: ViT) -> set[str]:
    """Return the places that a positional scheme fills."""
    filled = {place for place in PLACES if place != "tokens" and len(getattr(net, place))}
    return filled if isinstance(net.tokens, nn.Identity) else filled | {"tokens"}


def knobs_of(net: ViT) -> dict[str, Any]:
    """Return the knobs on which the meaning of the weights of the trunk depends, with their values."""
    knobs = {
        "model.embed_dim": net.layout.embed_dim,
        "model.depth": len(net.blocks),
        "model.num_prefix_tokens": net.layout.num_prefix_tokens,
        "model.num_heads": net.layout.num_heads,
        "model.act": net.act,
        "model.norm_eps": net.norm_eps,
        "model.pre_norm": not isinstance(net.norm_pre, nn.Identity),
    }
    for block in net.blocks[:1]:
        parts: Any = block
        knobs["model.mlp_ratio"] = parts.mlp.fc2.in_features / net.layout.embed_dim
        knobs["model.scale_attn_norm"] = not isinstance(parts.attn.norm, nn.Identity)
        knobs["model.scale_mlp_norm"] = not isinstance(parts.mlp.norm, nn.Identity)
    if len(net.rotation) and isinstance(rope := net.rotation[0], AxialRope):
        knobs |= {f"pos.rope.rotation.{name}": getattr(rope, name) for name in ("temperature", "span", "offset")}
    return knobs


# Values of the knobs that the files of earlier versions do not contain.
OLD_DEFAULTS = {
    "model.act": "gelu",
    "model.norm_eps": 1e-6,
    "pos.rope.rotation.span": None,
    "pos.rope.rotation.offset": 0.0,
}


def in_chans(net: ViT) -> int:
    """Number of channels of the images, from the patch projection."""
    embed: Any = net.embed
    return embed.proj.weight[0].numel() // math.prod(embed.patch_size)


def equal(one: Any, other: Any) -> bool:
    """True if two values of a knob give the same network. Numbers may differ after nine digits, as they are printed."""
    numbers = all(isinstance(value, int | float) for value in (one, other))
    return math.isclose(one, other, rel_tol=1e-8) if numbers else one == other


def spell_knobs(knobs: Iterable[str], values: dict[str, Any]) -> str:
    """Spell knobs with their values as on the command line."""
    return " ".join(f"{knob}={spell_knob(knob, values)}" for knob in knobs)


def spell_knob(knob: str, values: dict[str, Any]) -> str:
    """Spell the value of a knob as on the command line. values: of all knobs."""
    value = values[knob]
    if knob == "model.mlp_ratio":
        return spell_ratio(value, values["model.embed_dim"])
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return decimal(f"{value:.9g}") if isinstance(value, float) else str(value)


def decimal(number: str) -> str:
    return number if "." in number or "e" in number else f"{number}.0"


def spell_ratio(ratio: float, embed_dim: int) -> str:
    """Spell the MLP ratio with the fewest digits that give the same hidden width, int(ratio * embed_dim)."""
    hidden = round(ratio * embed_dim)
    spellings = [f"{(hidden + part) / embed_dim:.{digits}g}" for part in (0, 0.5) for digits in range(1, 18)]
    return decimal(next(text for text in spellings if int(embed_dim * float(text)) == hidden))


def spell_pos(schemes: Iterable[str]) -> str:
    """Spell the option pos with these schemes."""
    names = sorted(set(schemes))
    return f"pos=[{','.join(names)}]" if len(names) > 1 else f"pos={''.join(names) or 'none'}"


def shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "a number"
