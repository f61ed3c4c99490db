"""Conditional positions: a depthwise convolution over the tokens, between two blocks (Chu et al., 2023, CPVT)."""

from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from patchbench.checks import one_of, positive, spell
from patchbench.layout import Layout


class PEG(nn.Module):
    """Add to each token a weighted sum of its neighbourhood, channel by channel, on any grid.

    With padding="zeros" tokens at the border can tell their position, and later blocks pass it on. With "circular"
    there is no border, so the network cannot notice a cyclic shift of the image by whole patches.
    ValueError for an even kernel, and for a circular kernel that wraps around the grid more than once.
    """

    def __init__(self, layout: Layout, *, kernel_size: int, padding: str) -> None:
        super().__init__()
        one_of("padding", padding, ("zeros", "circular"))
        positive("kernel_size", kernel_size)
        if kernel_size % 2 == 0:
            raise ValueError(f"kernel_size={kernel_size} has no central patch: use kernel_size={kernel_size - 1}")
        if padding == "circular" and kernel_size // 2 > min(layout.grid_size):
            raise ValueError(
                f"kernel_size={kernel_size} wraps around a grid of {spell(layout.grid_size)} patches "
                f"more than once: use kernel_size={2 * min(layout.grid_size) + 1} or less"
            )
        channels = layout.embed_dim
        mode: Any = padding
        self.conv = nn.Conv2d(channels, channels, kernel_size, padding="same", padding_mode=mode, groups=channels)
        for name, parameter in self.conv.named_parameters():
            # Variance 2 / fan-out, as in the code of Chu et al.
            nn.init.normal_(parameter, std=2**0.5 / kernel_size) if name == "weight" else nn.init.zeros_(parameter)

    def forward(self, x: Float[Tensor, "b h w d"]) -> Float[Tensor, "b h w d"]:
        return x + self.conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
