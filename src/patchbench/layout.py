"""Definitions that the parts of a network share: token grid, places for position, names of norms, padding."""

from dataclasses import dataclass

import torch.nn.functional as F
from jaxtyping import Float
from timm.layers import LayerNorm2d
from torch import Tensor, nn

from patchbench.checks import Size, cover

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


def padded(images: Float[Tensor, "b c H W"], patch_size: Size, pad: bool) -> Float[Tensor, "b c H2 W2"]:
    """Add zeros at the bottom and right, up to whole patches. ValueError if zeros are needed and `pad` is false."""
    _, (bottom, right) = cover(img_size_of(images), patch_size, pad)
    return F.pad(images, (0, right, 0, bottom))


def img_size_of(images: Float[Tensor, "b c H W"]) -> Size:
    """Return height and width of images as integers: while torch traces a network, a shape consists of tensors."""
    return int(images.shape[2]), int(images.shape[3])
