"""Stems: several convolutions in sequence, from pixels to the grid of the patch."""

import math
from collections.abc import Sequence
from itertools import zip_longest

from jaxtyping import Float
from torch import Tensor, nn

from patchbench.checks import Size, cover, size, spell
from patchbench.layout import NORMS, padded

ACTS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "gelu": nn.GELU, "none": nn.Identity}


class OverlapStackEmbed(nn.Module):
    """Apply `Conv2d(kernel_size=5, stride=2)` repeatedly, down to the grid of the patch.

    Windows overlap, and the number of tokens is that of `conv`. The width doubles up to embed_dim. Norm and activation
    stand between two convolutions; the last convolution is the projection. Patch 2 has one convolution. Padding moves
    the window of a token: its centre lies (patch - 1) / 2 pixels before the centre of the patch. ValueError unless the
    sides of the patch are powers of two and one side is at least 2, and if the patches do not cover the image, unless
    `pad`.
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
                f"kernel_size={kernel_size} must be odd, so that padding keeps the grid, and wider than the "
                "stride of 2: use kernel_size=5"
            )
        strides = strides_to(self.patch_size, first=2)
        layers: list[nn.Module] = []
        widths, padding = doubling_widths(embed_dim, len(strides)), kernel_size // 2
        for width, stride in zip(widths[:-1], strides[:-1], strict=True):
            conv = nn.Conv2d(in_chans, width, kernel_size, stride, padding, bias=norm != "batch")
            layers += [conv, *norm_and_act(width, norm, act)]
            in_chans = width
        self.stack = nn.Sequential(*layers)
        self.proj = nn.Conv2d(in_chans, embed_dim, kernel_size, strides[-1], padding)

    def forward(self, images: Float[Tensor, "b c H W"]) -> Float[Tensor, "b h w d"]:
        return self.proj(self.stack(padded(images, self.patch_size, self.pad))).permute(0, 2, 3, 1)


class StemEmbed(nn.Module):
    """Apply early convolutions (Xiao et al., 2021): 3x3 of stride 2 with norm and activation, then a 1x1 projection.

    The width doubles up to embed_dim. At patch 16 this is the authors' stem for embed_dim 192 and 384 (1GF, 4GF). For
    768 and 1024 (18GF, 36GF) the authors' stem has seven convolutions, of widths 64, 128, 128, 256, 256, 512 and
    embed_dim, and fewer parameters. The authors remove one block of the trunk to compensate for the cost; set
    `model.depth` to do the same. The centre of a token's window lies (patch - 1) / 2 pixels before the centre of the
    patch. ValueError unless the sides of the patch are powers of two and one side is at least 2, and if the patches do
    not cover the image, unless `pad`.
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
        strides = strides_to(self.patch_size, first=2)
        layers: list[nn.Module] = []
        for width, stride in zip(doubling_widths(embed_dim, len(strides)), strides, strict=True):
            # No bias before a batch norm, because the norm subtracts it.
            layers += [nn.Conv2d(in_chans, width, 3, stride, 1, bias=norm != "batch"), *norm_and_act(width, norm, act)]
            in_chans = width
        self.stack = nn.Sequential(*layers)
        self.proj = nn.Conv2d(embed_dim, embed_dim, 1)

    def forward(self, images: Float[Tensor, "b c H W"]) -> Float[Tensor, "b h w d"]:
        return self.proj(self.stack(padded(images, self.patch_size, self.pad))).permute(0, 2, 3, 1)


class HMlpEmbed(nn.Module):
    """Embed patches of 4 and merge them 2x2 up to `patch`, the hierarchical MLP stem (Touvron et al., 2022, sec. 5).

    Kernels equal strides, so no patch reads another one, as masked training needs. A norm follows every convolution,
    and an activation every convolution but the last. Below patch 8, for which the authors define no stem, the first
    patches have a side of 2. ValueError unless the sides of the patch are powers of two and one side is at least 2, and
    if the patches do not cover the image, unless `pad`.
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
        kernels = strides_to(self.patch_size, first=4 if min(self.patch_size) >= 8 else 2)
        layers: list[nn.Module] = []
        for kernel in kernels[:-1]:
            width = max(1, embed_dim // 4)
            conv = nn.Conv2d(in_chans, width, kernel, kernel, bias=norm != "batch")
            layers += [conv, *norm_and_act(width, norm, act)]
            in_chans = width
        last = nn.Conv2d(in_chans, embed_dim, kernels[-1], kernels[-1], bias=norm != "batch")
        self.stack = nn.Sequential(*layers, last, *norm_and_act(embed_dim, norm, "none"))

    def forward(self, images: Float[Tensor, "b c H W"]) -> Float[Tensor, "b h w d"]:
        return self.stack(padded(images, self.patch_size, self.pad)).permute(0, 2, 3, 1)


def strides_to(patch_size: Size, first: int) -> list[Size]:
    """List strides with the patch as their product: `first`, then 2 each, and 1 on an axis that is complete earlier.

    ValueError names `patch` unless both sides are powers of two and one side is at least 2.
    """
    if any(n & (n - 1) for n in patch_size) or max(patch_size) == 1:
        nearest = spell((max(2, 1 << patch_size[0].bit_length() - 1), max(2, 1 << patch_size[1].bit_length() - 1)))
        raise ValueError(
            f"patch={spell(patch_size)} is no product of strides of 2: this embedding takes powers of two from 2 on, "
            f"such as patch={nearest}; or use embed=conv"
        )
    starts = [min(first, n) for n in patch_size]
    rows, cols = (
        [start] * (start > 1) + [2] * int(math.log2(n // start)) for start, n in zip(starts, patch_size, strict=True)
    )
    return list(zip_longest(rows, cols, fillvalue=1))


def doubling_widths(embed_dim: int, count: int) -> list[int]:
    """List `count` widths, each twice the one before; the last is embed_dim."""
    return [max(1, embed_dim >> (count - 1 - i)) for i in range(count)]


def norm_and_act(width: int, norm: str, act: str) -> list[nn.Module]:
    """Build norm and activation, the layers after a convolution. ValueError for an unknown norm or activation."""
    if norm not in NORMS or act not in ACTS:
        raise ValueError(f"norm={norm} act={act}: norm may be {', '.join(NORMS)}, and act may be {', '.join(ACTS)}")
    layers = (NORMS[norm](width), ACTS[act]())
    return [layer for layer in layers if not isinstance(layer, nn.Identity)]
