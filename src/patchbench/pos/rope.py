"""Rotary positions on a grid, along its axes or in learned directions (Su et al., 2021; Heo et al., 2024)."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from patchbench.checks import Size, one_of, positive
from patchbench.layout import Layout
from patchbench.pos.grid import RESIZE, axial_angles, coordinates


def rotation(angles: Float[Tensor, "*heads h w pairs"]) -> Float[Tensor, "*heads n sincos"]:
    """Return sines, then cosines, of the angle of each channel at each place; two neighbouring channels share one."""
    angles = angles.flatten(-3, -2).repeat_interleave(2, dim=-1)
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


def check_rope(option: str, layout: Layout, temperature: float, resize: str) -> None:
    """Check the knobs of a rotary scheme. ValueError for a bad knob, and unless 4 divides head_dim."""
    positive("temperature", temperature)
    one_of("resize", resize, RESIZE)
    if layout.head_dim % 4:
        raise ValueError(
            f"{option} splits head_dim={layout.head_dim} (model.embed_dim={layout.embed_dim} / "
            f"model.num_heads={layout.num_heads}) into pairs of channels for two directions: use a multiple of 4, "
            f"such as model.embed_dim={layout.num_heads * (layout.head_dim // 4 * 4 or 4)}"
        )


class AxialRope(nn.Module):
    """Rotate half of a head's channels by the row, half by the column: attention sees displacement, not position.

    Frequencies are temperature ** -(i / n), i from 0 to n - 1. The first half of the channels turns by the row, as in
    EVA-02; in the code of Heo et al. it turns by the column.
    resize="extrapolate" continues the rotation beyond the grid that the scheme was built for (Heo et al., 2024);
    "interpolate" scales a new grid to the size of that grid (Fang et al., 2023, EVA-02). span: radians by which the
    fastest pair of channels turns from one side of that grid to the other; None: one radian per patch. offset: row and
    column of the first patch, or `centre` to count from the centre of the grid; only the attention of prefix tokens,
    which do not turn, depends on the offset. ValueError unless 4 divides head_dim.
    """

    table: Tensor

    def __init__(
        self, layout: Layout, *, temperature: float, span: float | None, offset: float | str, resize: str
    ) -> None:
        super().__init__()
        check_rope("pos=rope", layout, temperature, resize)
        if span is not None:
            positive("span", span)
        if isinstance(offset, bool) or (offset != "centre" and not isinstance(offset, int | float)):
            raise ValueError(f"offset={offset} is unknown: use a number of patches, or centre")
        self.layout, self.temperature, self.resize = layout, temperature, resize
        self.span, self.offset = span, offset
        self.register_buffer("table", self.compute(layout.grid_size), persistent=False)

    def compute(self, grid_size: Size, device: torch.device | None = None) -> Float[Tensor, "n sincos"]:
        built_for = self.layout.grid_size
        places = coordinates(grid_size, built_for, self.resize, device)
        first = [(1 - n) / 2 if self.offset == "centre" else float(self.offset) for n in built_for]
        step = [self.span / n if self.span else 1.0 for n in built_for]
        rows, cols = ((x + start) * turn for x, start, turn in zip(places, first, step, strict=True))
        quarter = self.layout.head_dim // 4
        omega = self.temperature ** -(torch.arange(quarter, device=device) / quarter)
        return rotation(axial_angles(rows, cols, omega))

    def forward(self, grid_size: Size) -> Float[Tensor, "n sincos"]:
        if grid_size == self.layout.grid_size:
            return self.table
        return self.compute(grid_size, self.table.device).to(self.table)


class MixedRope(nn.Module):
    """Learn a frequency along x and one along y for each pair of channels of each head, so diagonals are possible.

    Initial frequencies are temperature ** -(i / n), i from 0 to n - 1, in two orthogonal directions, drawn at random
    for each head. resize: see `AxialRope`. ValueError unless 4 divides head_dim.
    """

    rows: Tensor
    cols: Tensor

    def __init__(self, layout: Layout, *, temperature: float, resize: str) -> None:
        super().__init__()
        check_rope("pos=rope_mixed", layout, temperature, resize)
        self.grid_size, self.resize = layout.grid_size, resize
        rows, cols = coordinates(layout.grid_size, layout.grid_size, resize)
        self.register_buffer("rows", rows, persistent=False)
        self.register_buffer("cols", cols, persistent=False)
        quarter = layout.head_dim // 4
        speed = temperature ** -(torch.arange(quarter) / quarter)
        direction = 2 * torch.pi * torch.rand(layout.num_heads, 1)
        angles = torch.cat([direction.expand(-1, quarter), (direction + torch.pi / 2).expand(-1, quarter)], dim=-1)
        # x before y, as in the checkpoints of Heo et al.
        self.freqs = nn.Parameter(speed.repeat(2) * torch.stack([angles.cos(), angles.sin()]))

    def forward(self, grid_size: Size) -> Float[Tensor, "heads n sincos"]:
        rows, cols = self.rows, self.cols
        if grid_size != self.grid_size:
            rows, cols = coordinates(grid_size, self.grid_size, self.resize, rows.device)
        along_x, along_y = self.freqs[:, :, None, None]
        return rotation(rows[:, None, None] * along_y + cols[:, None] * along_x)
