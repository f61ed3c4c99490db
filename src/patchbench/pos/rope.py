"""Rotary positions on a grid, one axis per half of the channels (Su et al., 2021; Heo et al., 2024)."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from patchbench.layout import Layout, Size


def axial_rotation(grid_size: Size, head_dim: int, temperature: float) -> Float[Tensor, "n sincos"]:
    """Sines, then cosines, of the angle by which each channel of a head turns at each place, row by row.

    The first half of the channels turns with the row, the second with the column; neighbours form the pairs that turn.
    """
    quarter = head_dim // 4
    omega = temperature ** -(torch.arange(quarter) / quarter)
    rows, cols = (torch.outer(torch.arange(n, dtype=torch.float32), omega) for n in grid_size)
    angles = torch.cat([rows[:, None].expand(*grid_size, quarter), cols[None].expand(*grid_size, quarter)], dim=-1)
    angles = angles.flatten(0, 1).repeat_interleave(2, dim=-1)
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


class AxialRope(nn.Module):
    """Attention depends on distance in rows and columns, not on place. ValueError unless 4 divides head_dim."""

    table: Tensor

    def __init__(self, layout: Layout, *, temperature: float) -> None:
        super().__init__()
        if layout.head_dim % 4:
            raise ValueError(
                f"pos=rope splits head_dim={layout.head_dim} (model.embed_dim={layout.embed_dim} / "
                f"model.num_heads={layout.num_heads}) into pairs of channels for rows and for columns: use a multiple "
                f"of 4, such as model.embed_dim={layout.num_heads * (layout.head_dim // 4 * 4 or 4)}"
            )
        self.grid_size, self.head_dim, self.temperature = layout.grid_size, layout.head_dim, temperature
        table = axial_rotation(layout.grid_size, layout.head_dim, temperature)
        self.register_buffer("table", table, persistent=False)

    def forward(self, grid_size: Size) -> Float[Tensor, "n sincos"]:
        if grid_size == self.grid_size:
            return self.table
        return axial_rotation(grid_size, self.head_dim, self.temperature).to(self.table)
