"""What every part of the network must agree on: sizes as (height, width), and the shape of the token grid."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from patchbench.checks import Size, size, spell


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


def padded(images: Float[Tensor, "b c H W"], patch_size: Size, pad: bool) -> Float[Tensor, "b c H2 W2"]:
    """With rows and columns of zeros at the bottom and right, up to whole patches. ValueError if any and not `pad`."""
    _, (bottom, right) = cover(images.shape[2:], patch_size, pad)
    return F.pad(images, (0, right, 0, bottom))
