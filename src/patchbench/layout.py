"""What every part of the network must agree on: sizes as (height, width), and the shape of the token grid."""

from collections.abc import Sequence
from dataclasses import dataclass

Size = tuple[int, int]


@dataclass(frozen=True)
class Layout:
    """The tokens that a positional scheme is built for.

    grid_size: rows and columns of patches; num_prefix_tokens: class token and registers, which lie off the grid.
    """

    grid_size: Size
    embed_dim: int
    num_heads: int
    num_prefix_tokens: int = 0

    @property
    def head_dim(self) -> int:
        return self.embed_dim // self.num_heads


def size(name: str, value: object) -> Size:
    """S or [h, w] as (h, w); ValueError names the option unless both are whole and positive."""
    pair = (value, value) if isinstance(value, int) else tuple(value) if isinstance(value, Sequence) else ()
    if len(pair) != 2 or not all(isinstance(n, int) and n > 0 for n in pair) or isinstance(value, bool):
        raise ValueError(f"{name}={value} is no size in pixels: give a whole number or [height,width], as in {name}=16")
    return pair[0], pair[1]


def one_of(name: str, value: object, choices: Sequence[str]) -> None:
    """ValueError names the option unless its value is among the choices."""
    if value not in choices:
        raise ValueError(f"{name}={value} is unknown: use {' or '.join(choices)}")


def positive(name: str, value: object) -> None:
    """ValueError names the option unless its value is a number above 0."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        raise ValueError(f"{name}={value} must be a number above 0")


def cover(img_size: int | Sequence[int], patch_size: int | Sequence[int], pad: bool) -> tuple[Size, Size]:
    """Lay patches edge to edge over an image.

    Returns grid_size, and how many rows and columns of zeros are to be added at the bottom and right.
    ValueError if the patches do not cover the image exactly and may not pad: pixels are never cropped in silence.
    """
    image, patch = size("data.img_size", img_size), size("patch", patch_size)
    missing = (-image[0] % patch[0], -image[1] % patch[1])
    if any(missing) and not pad:
        larger = (image[0] + missing[0], image[1] + missing[1])
        smaller = (image[0] // patch[0] * patch[0], image[1] // patch[1] * patch[1])
        fitting = " or ".join(f"data.img_size={spell(s)}" for s in (smaller, larger) if min(s) > 0)
        patches = [p for p in range(1, min(image) + 1) if image[0] % p == 0 and image[1] % p == 0]
        raise ValueError(
            f"patch={spell(patch)} does not cover data.img_size={spell(image)} exactly: use {fitting}, "
            f"or patch={'|'.join(map(str, patches))}, or pad with embed.pad=true"
        )
    return ((image[0] + missing[0]) // patch[0], (image[1] + missing[1]) // patch[1]), missing


def spell(pair: Size) -> str:
    """A size as the command line takes it: 16, or [8,16] where height and width differ."""
    return str(pair[0]) if pair[0] == pair[1] else f"[{pair[0]},{pair[1]}]"
