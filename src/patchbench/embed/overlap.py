"""Embeddings of overlapping windows: convolutions with a kernel wider than the stride."""

from collections.abc import Sequence

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from patchbench.checks import Size, cover, size, spell
from patchbench.layout import img_size_of


class OverlapEmbed(nn.Module):
    """Embed by a convolution such as `Conv2d(in_chans, embed_dim, kernel_size=5, stride=2)`.

    The grid of tokens is the output of the convolution, floor((size + 2 padding - kernel_size) / stride) + 1 per axis:
    with the values above, 32 pixels give 14 tokens per axis and 224 give 110. Pixels beyond the last whole window are
    not read, as in any convolution. ValueError if the kernel does not fit into the padded image.
    """

    def __init__(
        self, img_size: Size, in_chans: int, embed_dim: int, *, kernel_size: int, stride: int, padding: int
    ) -> None:
        super().__init__()
        self.grid_size = conv_grid(img_size, kernel_size, stride, padding)
        self.proj = nn.Conv2d(in_chans, embed_dim, kernel_size, stride, padding)

    def forward(self, images: Float[Tensor, "b c H W"]) -> Float[Tensor, "b h w d"]:
        return self.proj(images).permute(0, 2, 3, 1)


class OverlapSumEmbed(nn.Module):
    """Compute `OverlapEmbed` channel by channel: 2-D convolutions of each channel, then the sum over channels.

    The weights and the map are those of `OverlapEmbed`. The class shows how in_chans x H x W become
    embed_dim x h x w: `proj` has a 2-D kernel for each output value and channel. Sums of floats depend on their order,
    so the two classes give equal results up to rounding.
    """

    def __init__(
        self, img_size: Size, in_chans: int, embed_dim: int, *, kernel_size: int, stride: int, padding: int
    ) -> None:
        super().__init__()
        self.grid_size = conv_grid(img_size, kernel_size, stride, padding)
        self.proj = nn.Conv2d(in_chans, embed_dim, kernel_size, stride, padding)

    def forward(self, images: Float[Tensor, "b c H W"]) -> Float[Tensor, "b h w d"]:
        stride, padding, bias = self.proj.stride, self.proj.padding, self.proj.bias
        assert not isinstance(padding, str)
        assert bias is not None
        channels = zip(images.split(1, 1), self.proj.weight.split(1, 1), strict=True)
        maps = (F.conv2d(channel, kernels, None, stride, padding) for channel, kernels in channels)
        return sum(maps, start=bias[:, None, None]).permute(0, 2, 3, 1)


def conv_grid(img_size: Size, kernel_size: int, stride: int, padding: int) -> Size:
    """Compute rows and columns of the output of a convolution.

    ValueError for a kernel or stride below 1 or a negative padding, and if the kernel exceeds the padded image.
    """
    if min(kernel_size, stride) < 1 or padding < 0:
        raise ValueError(
            f"kernel_size={kernel_size} stride={stride} padding={padding} is no convolution: "
            "kernel_size and stride must be at least 1, padding at least 0"
        )
    if kernel_size > min(img_size) + 2 * padding:
        raise ValueError(
            f"kernel_size={kernel_size} is larger than the image with its padding, "
            f"{img_size[0]}x{img_size[1]} + 2*{padding}: use a smaller kernel or a larger data.img_size"
        )
    rows, cols = ((n + 2 * padding - kernel_size) // stride + 1 for n in img_size)
    return rows, cols


class OverlapPatchEmbed(nn.Module):
    """Embed each patch from a window that reaches into its neighbours (after Wang et al., 2022, sec. 3.2).

    The number of tokens is that of `conv`. The window is centred on its patch; pixels outside the image are zero. A
    window as wide as the patch gives `conv`. The published embedding differs in two points: its window is centred on
    the first pixel of the patch, so that narrower windows would miss the last pixels, and a LayerNorm follows.
    ValueError for a kernel smaller than the patch, and if the patches do not cover the image, unless `pad`.
    """

    def __init__(
        self,
        img_size: Size,
        in_chans: int,
        embed_dim: int,
        *,
        patch_size: int | Sequence[int],
        kernel_size: int | Sequence[int] | None,
        pad: bool,
    ) -> None:
        super().__init__()
        self.patch_size, self.pad = size("patch", patch_size), pad
        self.grid_size, _ = cover(img_size, self.patch_size, pad)
        p, q = self.patch_size
        kernel = (2 * p - 1, 2 * q - 1) if kernel_size is None else size("kernel_size", kernel_size)
        self.margin = (kernel[0] - p, kernel[1] - q)
        if min(self.margin) < 0:
            raise ValueError(
                f"kernel_size={spell(kernel)} is smaller than patch={spell(self.patch_size)}, and pixels between "
                f"two windows would not be read: use kernel_size={spell((2 * p - 1, 2 * q - 1))}, or null"
            )
        self.proj = nn.Conv2d(in_chans, embed_dim, kernel, self.patch_size)

    def forward(self, images: Float[Tensor, "b c H W"]) -> Float[Tensor, "b h w d"]:
        _, (bottom, right) = cover(img_size_of(images), self.patch_size, self.pad)
        y, x = self.margin
        padding = (x // 2, x - x // 2 + right, y // 2, y - y // 2 + bottom)
        return self.proj(F.pad(images, padding)).permute(0, 2, 3, 1)
