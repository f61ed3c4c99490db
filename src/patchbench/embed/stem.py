"""Stems: several convolutions in a row, from pixels down to the grid of the patch."""

import math
from collections.abc import Sequence
from itertools import zip_longest

from jaxtyping import Float
from timm.layers import LayerNorm2d
from torch import Tensor, nn

from patchbench.checks import Size, size, spell
from patchbench.layout import cover, padded

NORMS: dict[str, type[nn.Module]] = {"batch": nn.BatchNorm2d, "layer": LayerNorm2d, "none": nn.Identity}
ACTS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "gelu": nn.GELU, "none": nn.Identity}


class OverlapStackEmbed(nn.Module):
    """`Conv2d(kernel_size=5, stride=2)` repeated down to the grid of the patch: the tokens of `conv`, overlapping.

    The width doubles up to embed_dim. Norm and activation stand between two convolutions, none after the last, which
    is the projection: at patch 2 it is one convolution. ValueError unless the patch is a power of two, from 2.
    """

    def __init__(
        self,
        img_size: Size,
        in_chans: int,
        embed_dim: int,
        *,
        patch_size: int | Sequence[int],
        kernel_size: int,
        norm: str,
        act: str,
        pad: bool,
    ) -> None:
        super().__init__()
        self.patch_size, self.pad = size("patch", patch_size), pad
        self.grid_size, _ = cover(img_size, self.patch_size, pad)
        if kernel_size < 3 or kernel_size % 2 == 0:
            raise ValueError(
                f"embed.kernel_size={kernel_size} must be odd, so that padding keeps the grid, and wider than the "
                "stride of 2: use embed.kernel_size=5"
            )
        strides = halvings(self.patch_size, first=2)
        layers: list[nn.Module] = []
        widths, padding = doubling(embed_dim, len(strides)), kernel_size // 2
        for width, stride in zip(widths[:-1], strides[:-1], strict=True):
            conv = nn.Conv2d(in_chans, width, kernel_size, stride, padding, bias=norm != "batch")
            layers += [conv, *normed(width, norm, act)]
            in_chans = width
        self.stack = nn.Sequential(*layers)
        self.proj = nn.Conv2d(in_chans, embed_dim, kernel_size, strides[-1], padding)

    def forward(self, images: Float[Tensor, "b c H W"]) -> Float[Tensor, "b h w d"]:
        return self.proj(self.stack(padded(images, self.patch_size, self.pad))).permute(0, 2, 3, 1)


class StemEmbed(nn.Module):
    """Early convolutions (Xiao et al., 2021): 3x3 of stride 2 with norm and activation, then a 1x1 projection.

    The width doubles up to embed_dim. The authors leave out one block of the trunk to pay for it; `model.depth` does
    that. ValueError unless the patch is a power of two, from 2.
    """

    def __init__(
        self,
        img_size: Size,
        in_chans: int,
        embed_dim: int,
        *,
        patch_size: int | Sequence[int],
        norm: str,
        act: str,
        pad: bool,
    ) -> None:
        super().__init__()
        self.patch_size, self.pad = size("patch", patch_size), pad
        self.grid_size, _ = cover(img_size, self.patch_size, pad)
        strides = halvings(self.patch_size, first=2)
        layers: list[nn.Module] = []
        for width, stride in zip(doubling(embed_dim, len(strides)), strides, strict=True):
            # What a convolution adds to all places alike, batch norm takes away: no bias there.
            layers += [nn.Conv2d(in_chans, width, 3, stride, 1, bias=norm != "batch"), *normed(width, norm, act)]
            in_chans = width
        self.stack = nn.Sequential(*layers)
        self.proj = nn.Conv2d(embed_dim, embed_dim, 1)

    def forward(self, images: Float[Tensor, "b c H W"]) -> Float[Tensor, "b h w d"]:
        return self.proj(self.stack(padded(images, self.patch_size, self.pad))).permute(0, 2, 3, 1)


class HMlpEmbed(nn.Module):
    """Hierarchical MLP stem (Touvron et al., 2022, sec. 5): patches of 4, merged 2x2 by 2x2 up to `patch`.

    Kernels equal strides, so that no patch sees another, as masked training needs; a norm follows every convolution
    and an activation all but the last. Below patch 8, where the authors have no stem, every merge is of 2.
    ValueError unless the patch is a power of two, from 2.
    """

    def __init__(
        self,
        img_size: Size,
        in_chans: int,
        embed_dim: int,
        *,
        patch_size: int | Sequence[int],
        norm: str,
        act: str,
        pad: bool,
    ) -> None:
        super().__init__()
        self.patch_size, self.pad = size("patch", patch_size), pad
        self.grid_size, _ = cover(img_size, self.patch_size, pad)
        kernels = halvings(self.patch_size, first=4 if min(self.patch_size) >= 8 else 2)
        layers: list[nn.Module] = []
        for kernel in kernels[:-1]:
            width = max(1, embed_dim // 4)
            layers += [nn.Conv2d(in_chans, width, kernel, kernel, bias=norm != "batch"), *normed(width, norm, act)]
            in_chans = width
        last = nn.Conv2d(in_chans, embed_dim, kernels[-1], kernels[-1], bias=norm != "batch")
        self.stack = nn.Sequential(*layers, last, *normed(embed_dim, norm, "none"))

    def forward(self, images: Float[Tensor, "b c H W"]) -> Float[Tensor, "b h w d"]:
        return self.stack(padded(images, self.patch_size, self.pad)).permute(0, 2, 3, 1)


def halvings(patch_size: Size, first: int) -> list[Size]:
    """Strides that multiply to the patch: `first`, then 2 after 2; 1 on an axis that is done before the other.

    ValueError names `patch` unless both sides are powers of two and one of them is 2 or more.
    """
    if any(n & (n - 1) for n in patch_size) or max(patch_size) == 1:
        nearest = spell((max(2, 1 << patch_size[0].bit_length() - 1), max(2, 1 << patch_size[1].bit_length() - 1)))
        raise ValueError(
            f"patch={spell(patch_size)} is not reached by halving the image: this embedding takes powers of two from "
            f"2, such as patch={nearest}; or use embed=conv"
        )
    starts = [min(first, n) for n in patch_size]
    rows, cols = (
        [start] * (start > 1) + [2] * int(math.log2(n // start)) for start, n in zip(starts, patch_size, strict=True)
    )
    return list(zip_longest(rows, cols, fillvalue=1))


def doubling(embed_dim: int, count: int) -> list[int]:
    """Widths that double up to embed_dim."""
    return [max(1, embed_dim >> (count - 1 - i)) for i in range(count)]


def normed(width: int, norm: str, act: str) -> list[nn.Module]:
    """What follows a convolution. ValueError names the options."""
    if norm not in NORMS or act not in ACTS:
        raise ValueError(
            f"embed.norm={norm} embed.act={act}: norm may be {', '.join(NORMS)}, and act may be {', '.join(ACTS)}"
        )
    built = (nn.Identity() if norm == "none" else NORMS[norm](width), ACTS[act]())
    return [layer for layer in built if not isinstance(layer, nn.Identity)]
