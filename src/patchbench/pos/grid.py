"""Coordinates and tables on a grid, interpolated or extrapolated to other grids than a scheme was built for."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from patchbench.checks import Size

RESIZE = ("interpolate", "extrapolate")


def scale(grid_size: Size, built_for: Size, resize: str) -> tuple[float, float]:
    """Return height and width of a patch on `grid_size`, in patches of the grid that the scheme was built for."""
    if resize == "extrapolate":
        return 1.0, 1.0
    return built_for[0] / grid_size[0], built_for[1] / grid_size[1]


def coordinates(
    grid_size: Size, built_for: Size, resize: str, device: torch.device | None = None
) -> tuple[Float[Tensor, " h"], Float[Tensor, " w"]]:
    """Return rows and columns of the patch centres, in patches of the grid that the scheme was built for.

    The first centre is 0 on the grid that the scheme was built for, and on every grid for resize="extrapolate".
    """
    rows, cols = (
        (torch.arange(n, dtype=torch.float32, device=device) + 0.5) * step - 0.5
        for n, step in zip(grid_size, scale(grid_size, built_for, resize), strict=True)
    )
    return rows, cols


def axial_angles(
    rows: Float[Tensor, " h"], cols: Float[Tensor, " w"], frequencies: Float[Tensor, " k"]
) -> Float[Tensor, "h w k2"]:
    """Multiply rows by all frequencies for the first half of the channels, and columns for the second half."""
    by_row = torch.outer(rows, frequencies)[:, None].expand(-1, len(cols), -1)
    by_col = torch.outer(cols, frequencies)[None].expand(len(rows), -1, -1)
    return torch.cat([by_row, by_col], dim=-1)


def resample(table: Float[Tensor, "h w d"], size: Size) -> Float[Tensor, "h2 w2 d"]:
    """Resample a table bicubically with antialiasing (timm's `resample_abs_pos_embed`)."""
    if table.shape[:2] == size:
        return table
    image = table.float().permute(2, 0, 1)[None]
    for n in (size[1], size[0]):  # always along the width: torch 2.15 on a CPU is wrong for the height of one column
        image = F.interpolate(image, size=(image.shape[2], n), mode="bicubic", antialias=True).mT
    return image[0].permute(1, 2, 0).to(table.dtype)
