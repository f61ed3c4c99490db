"""Fixed 2-D sine-cosine positions (Chen et al., 2021; Beyer et al., 2022)."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from patchbench.layout import Layout, Size


def sincos_2d(grid_size: Size, embed_dim: int, temperature: float) -> Float[Tensor, "h w d"]:
    """A quarter of the channels each for sin(row), sin(column), cos(row), cos(column), from fast to slow."""
    quarter = embed_dim // 4
    omega = temperature ** -(torch.arange(quarter) / quarter)
    rows, cols = (torch.outer(torch.arange(n, dtype=torch.float32), omega) for n in grid_size)
    angles = torch.cat([rows[:, None].expand(*grid_size, quarter), cols[None].expand(*grid_size, quarter)], dim=-1)
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


class SinCos2d(nn.Module):
    """Add the table. It has no parameters, so every grid has one. ValueError unless 4 divides embed_dim."""

    table: Tensor

    def __init__(self, layout: Layout, *, temperature: float) -> None:
        super().__init__()
        if layout.embed_dim % 4:
            raise ValueError(
                f"pos=sincos splits model.embed_dim={layout.embed_dim} into sine and cosine of row and column: "
                f"use a multiple of 4, such as model.embed_dim={layout.embed_dim // 4 * 4 or 4}"
            )
        self.embed_dim, self.temperature = layout.embed_dim, temperature
        self.register_buffer("table", sincos_2d(layout.grid_size, layout.embed_dim, temperature), persistent=False)

    def forward(self, x: Float[Tensor, "b h w d"]) -> Float[Tensor, "b h w d"]:
        table = self.table
        if table.shape[:2] != x.shape[1:3]:
            table = sincos_2d((x.shape[1], x.shape[2]), self.embed_dim, self.temperature).to(table)
        return x + table
