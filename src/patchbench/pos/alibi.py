"""Attention that fades with distance on the grid (Press et al., 2022; in two dimensions Fuller et al., 2023, CROMA)."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from patchbench.checks import Size, one_of
from patchbench.layout import Layout
from patchbench.pos.grid import RESIZE, coordinates


class Alibi2d(nn.Module):
    """Return the bias -slope[head] * distance(i, j) of attention between patches i and j, with the slopes of `slopes`.

    resize="extrapolate" measures distance in patches on every grid, the purpose of ALiBi; "interpolate" in patches of
    the grid that the scheme was built for. The bias has heads * n * n numbers for n patches, once for all layers, and
    excludes flash attention.
    """

    table: Tensor

    def __init__(self, layout: Layout, *, resize: str) -> None:
        super().__init__()
        one_of("resize", resize, RESIZE)
        self.layout, self.resize = layout, resize
        self.register_buffer("table", self.compute(layout.grid_size), persistent=False)

    def compute(self, grid_size: Size, device: torch.device | None = None) -> Float[Tensor, "heads n n"]:
        rows, cols = coordinates(grid_size, self.layout.grid_size, self.resize, device)
        by_row, by_col = (x[:, None] - x for x in (rows, cols))
        distance = torch.hypot(by_row[:, None, :, None], by_col[None, :, None, :]).flatten(2, 3).flatten(0, 1)
        return -torch.tensor(slopes(self.layout.num_heads), device=device)[:, None, None] * distance

    def forward(self, grid_size: Size) -> Float[Tensor, "heads n n"]:
        if grid_size == self.layout.grid_size:
            return self.table
        return self.compute(grid_size, self.table.device).to(self.table)


def slopes(num_heads: int) -> list[float]:
    """List the slope of each head, as in the code of Press et al. and of Fuller et al.

    If num_heads is a power of two, the slopes fall geometrically to 1/256 at the last head, as in the paper. Otherwise
    the slopes of the next smaller power of two come first, then every second slope of the next larger one.
    """
    power = 2 ** int(math.log2(num_heads))
    if power == num_heads:
        return [2 ** (-8 * head / num_heads) for head in range(1, num_heads + 1)]
    return slopes(power) + slopes(2 * power)[::2][: num_heads - power]
