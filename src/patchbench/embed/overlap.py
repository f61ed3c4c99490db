"""Overlapping windows: a convolution whose kernel is wider than its stride."""

from collections.abc import Sequence

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from patchbench.checks import Size, size, spell
from patchbench.layout import cover


class OverlapEmbed(nn.Module):
    """`Conv2d(in_chans, embed_dim, kernel_size=5, stride=2)` and its like: the stride alone sets the number of tokens.

    The grid is that of a convolution, floor((size + 2 padding - kernel_size) / stride) + 1 on each axis: as written, 32
    pixels give 14 places and 224 give 110. Pixels beyond the last whole window are not seen, as in any convolution.
    ValueError if the kernel does not fit into the padded image.
    """

    def __init__(
        self, img_size: Size, in_chans: int, embed_dim: int, *, kernel_size: int, stride: int, padding: int
    ) -> None:
        super().__init__()
        self.grid_size = windows(img_size, kernel_size, stride, padding)
        self.proj = nn.Conv2d(in_chans, embed_dim, kernel_size, stride, padding)

    def forward(self, images: Float[Tensor, "b c H W"]) -> Float[Tensor, "b h w d"]:
        return self.proj(images).permute(0, 2, 3, 1)


class OverlapSumEmbed(nn.Module):
    """`OverlapEmbed` written out: each channel by itself through 2-D kernels of its own, and the results added up.

    The same map of the same weights, `proj` holding a 2-D kernel for each value and channel: why in_chans x H x W
    become embed_dim x h x w. Sums of floats depend on their order: results equal up to rounding.
    """

    def __init__(
        self, img_size: Size, in_chans: int, embed_dim: int, *, kernel_size: int, stride: int, padding: int
    ) -> None:
        super().__init__()
        self.grid_size = windows(img_size, kernel_size, stride, padding)
        self.proj = nn.Conv2d(in_chans, embed_dim, kernel_size, stride, padding)

    def forward(self, images: Float[Tensor, "b c H W"]) -> Float[Tensor, "b h w d"]:
        stride, padding, bias = self.proj.stride, self.proj.padding, self.proj.bias
        assert not isinstance(padding, str)
        assert bias is not None
        channels = zip(images.split(1, 1), self.proj.weight.split(1, 1), strict=True)
        maps = (F.conv2d(channel, kernels, None, stride, padding) for channel, kernels in channels)
        return sum(maps, start=bias[:, None, None]).permute(0, 2, 3, 1)


def windows(img_size: Size, kernel_size: int, stride: int, padding: int) -> Size:
    """The grid of a convolution. ValueError for one that cannot be, or does not fit into the padded image."""
    if min(kernel_size, stride) < 1 or padding < 0:
        raise ValueError(
            f"embed.kernel_size={kernel_size} embed.stride={stride} embed.padding={padding} is no convolution: "
            "kernel_size and stride start at 1, padding at 0"
        )
    if kernel_size > min(img_size) + 2 * padding:
        raise ValueError(
            f"embed.kernel_size={kernel_size} is larger than the image with its padding, "
            f"{img_size[0]}x{img_size[1]} + 2*{padding}: use a smaller kernel or a larger data.img_size"
        )
    rows, cols = ((n + 2 * padding - kernel_size) // stride + 1 for n in img_size)
    return rows, cols


class OverlapPatchEmbed(nn.Module):
    """One window to a patch, reaching into those around it (after Wang et al., 2022, sec. 3.2): the tokens of `conv`.

    The window is centred on its patch, and pads with zeros what lies outside of the image; as wide as the patch it is
    `conv`. The published one is centred on the first pixel of the patch, so that narrower windows would miss its last.
    ValueError for a kernel smaller than the patch, and where the patches do not cover the image, unless `pad`.
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
        kernel = (2 * p - 1, 2 * q - 1) if kernel_size is None else size("embed.kernel_size", kernel_size)
        self.around = (kernel[0] - p, kernel[1] - q)
        if min(self.around) < 0:
            raise ValueError(
                f"embed.kernel_size={spell(kernel)} is smaller than patch={spell(self.patch_size)}, and pixels between "
                f"two windows would not be seen: use embed.kernel_size={spell((2 * p - 1, 2 * q - 1))}, or null"
            )
        self.proj = nn.Conv2d(in_chans, embed_dim, kernel, self.patch_size)

    def forward(self, images: Float[Tensor, "b c H W"]) -> Float[Tensor, "b h w d"]:
        _, (bottom, right) = cover(images.shape[2:], self.patch_size, self.pad)
        y, x = self.around
        padding = (x // 2, x - x // 2 + right, y // 2, y - y // 2 + bottom)
        return self.proj(F.pad(images, padding)).permute(0, 2, 3, 1)
