"""Definitions that the parts of a network share: token grid, places for position, names of norms, cover by patches."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from jaxtyping import Float
from timm.layers import LayerNorm2d
from torch import Tensor, nn

from patchbench.checks import Size, size, spell

# Places where position may enter a network, in the order in which tokens pass them: see nets/vit.py.
PLACES = ("tokens", "rotation", "bias", "between")
# Norms of maps `b c h w`, by their names on the command line.
NORMS: dict[str, type[nn.Module]] = {"batch": nn.BatchNorm2d, "layer": LayerNorm2d, "none": nn.Identity}


@dataclass(frozen=True)
class Layout:
    """The tokens for which a positional scheme is built.

    grid_size: rows and columns of patches. num_prefix_tokens: class token and registers, which have no place on the
    grid.
    """

    grid_size: Size
    embed_dim: int
    num_heads: int
    num_prefix_tokens: int = 0

    @property
    def head_dim(self) -> int:
        return self.embed_dim // self.num_heads


def cover(img_size: int | Sequence[int], patch_size: int | Sequence[int], pad: bool) -> tuple[Size, Size]:
    """Return the grid of patches that cover an image edge to edge, and the zeros to add.

    Returns grid_size, and the numbers of rows and columns of zeros at the bottom and at the right.
    ValueError if the patches do not cover the image exactly and `pad` is false: pixels are never cropped silently.
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
    """Add zeros at the bottom and right, up to whole patches. ValueError if zeros are needed and `pad` is false."""
    _, (bottom, right) = cover(img_size_of(images), patch_size, pad)
    return F.pad(images, (0, right, 0, bottom))


def img_size_of(images: Float[Tensor, "b c H W"]) -> Size:
    """Return height and width of images as integers: while torch traces a network, a shape consists of tensors."""
    return int(images.shape[2]), int(images.shape[3])
