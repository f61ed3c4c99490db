"""Fixed sine-cosine positions in one dimension (Vaswani et al., 2017) or two (Chen et al., 2021)."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from patchbench.checks import Size, one_of, positive
from patchbench.layout import Layout
from patchbench.pos.grid import RESIZE, axial_angles, coordinates, resample


def sincos_1d(grid_size: Size, embed_dim: int, temperature: float, device: torch.device | None = None) -> Tensor:
    """Return the code of the number of each patch, row by row: h w d, sines in the first half of d, then cosines."""
    half = embed_dim // 2
    omega = temperature ** -(torch.arange(half, device=device) / half)
    places = torch.arange(grid_size[0] * grid_size[1], dtype=torch.float32, device=device)
    angles = torch.outer(places, omega)
    return torch.cat([angles.sin(), angles.cos()], dim=-1).unflatten(0, grid_size)


def sincos_2d(rows: Float[Tensor, " h"], cols: Float[Tensor, " w"], embed_dim: int, temperature: float) -> Tensor:
    """Return the code of rows and columns: h w d, a quarter of d each for sin(row), sin(col), cos(row), cos(col).

    Frequencies are temperature ** -(i / n), i from 0 to n - 1, as in the code of Chen et al. (MoCo v3). Their code has
    the quarters in another order: sin(row), cos(row), sin(col), cos(col).
    """
    quarter = embed_dim // 4
    omega = temperature ** -(torch.arange(quarter, device=rows.device) / quarter)
    angles = axial_angles(rows, cols, omega)
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


class SinCos1d(nn.Module):
    """Add the sine-cosine code of the patch's number in the sequence. ValueError unless embed_dim is even.

    resize="extrapolate" continues the numbers on a larger grid (Vaswani et al., 2017); "interpolate" resamples the
    table to the new grid, as Dosovitskiy et al. (2021, sec. 3.2) do with their one-dimensional positions.
    """

    table: Tensor

    def __init__(self, layout: Layout, *, temperature: float, resize: str) -> None:
        super().__init__()
        one_of("resize", resize, RESIZE)
        positive("temperature", temperature)
        if layout.embed_dim % 2:
            raise ValueError(
                f"pos=sincos1d splits model.embed_dim={layout.embed_dim} into sine and cosine: use an even number, "
                f"such as model.embed_dim={layout.embed_dim + 1}"
            )
        self.embed_dim, self.temperature, self.resize = layout.embed_dim, temperature, resize
        self.register_buffer("table", sincos_1d(layout.grid_size, layout.embed_dim, temperature), persistent=False)

    def forward(self, x: Float[Tensor, "b h w d"]) -> Float[Tensor, "b h w d"]:
        grid_size, table = (x.shape[1], x.shape[2]), self.table
        if table.shape[:2] == grid_size:
            return x + table
        if self.resize == "interpolate":
            return x + resample(table, grid_size)
        return x + sincos_1d(grid_size, self.embed_dim, self.temperature, table.device).to(table)


class SinCos2d(nn.Module):
    """Add the sine-cosine code of row and column. ValueError unless 4 divides embed_dim.

    resize="extrapolate" continues the coordinates on a larger grid (Beyer et al., 2022); "interpolate" scales the
    coordinates to the grid that the scheme was built for.
    """

    table: Tensor

    def __init__(self, layout: Layout, *, temperature: float, resize: str) -> None:
        super().__init__()
        one_of("resize", resize, RESIZE)
        positive("temperature", temperature)
        if layout.embed_dim % 4:
            raise ValueError(
                f"pos=sincos splits model.embed_dim={layout.embed_dim} into sine and cosine of row and column: "
                f"use a multiple of 4, such as model.embed_dim={layout.embed_dim // 4 * 4 or 4}"
            )
        self.layout, self.temperature, self.resize = layout, temperature, resize
        self.register_buffer("table", self.compute(layout.grid_size), persistent=False)

    def compute(self, grid_size: Size, device: torch.device | None = None) -> Float[Tensor, "h w d"]:
        rows, cols = coordinates(grid_size, self.layout.grid_size, self.resize, device)
        return sincos_2d(rows, cols, self.layout.embed_dim, self.temperature)

    def forward(self, x: Float[Tensor, "b h w d"]) -> Float[Tensor, "b h w d"]:
        grid_size = (x.shape[1], x.shape[2])
        if grid_size == self.layout.grid_size:
            return x + self.table
        return x + self.compute(grid_size, self.table.device).to(self.table)
