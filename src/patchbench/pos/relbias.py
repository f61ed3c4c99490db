"""Attention biases by the displacement between two patches: a table (Liu et al., 2021) or a network (2022)."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from patchbench.checks import Size, one_of, positive
from patchbench.layout import Layout
from patchbench.pos.grid import RESIZE, resample, scale


def displacements(grid_size: Size) -> Size:
    """Count the possible displacements between two patches, in rows and in columns."""
    return 2 * grid_size[0] - 1, 2 * grid_size[1] - 1


def relative_index(grid_size: Size, table_for: Size, device: torch.device | None = None) -> Int[Tensor, "n n"]:
    """Return, for all pairs (i, j), the index of the displacement from patch j to patch i in a flattened table.

    table_for: the grid of the table. Displacements beyond the table count as its largest displacement (Shaw et al.,
    2018).
    """
    (h, w), (rows, cols) = table_for, (torch.arange(n, device=device) for n in grid_size)
    by_row = (rows[:, None] - rows).clamp(1 - h, h - 1) + h - 1
    by_col = (cols[:, None] - cols).clamp(1 - w, w - 1) + w - 1
    index = by_row[:, None, :, None] * (2 * w - 1) + by_col[None, :, None, :]
    return index.flatten(2, 3).flatten(0, 1)


class RelBias(nn.Module):
    """Look up the bias of each displacement in a learned table, one table per head.

    resize="interpolate" resamples the table to the displacements of a new grid, as TinyViT does (Wu et al., 2022), but
    with antialiasing; "extrapolate" keeps the table, and displacements beyond the table count as its largest
    displacement (Shaw et al., 2018). For n patches the bias has heads * n * n numbers per layer, and the index takes
    8 n * n bytes. The bias excludes flash attention.
    """

    index: Tensor

    def __init__(self, layout: Layout, *, std: float, resize: str) -> None:
        super().__init__()
        one_of("resize", resize, RESIZE)
        positive("std", std)
        self.grid_size, self.resize = layout.grid_size, resize
        self.table = nn.Parameter(torch.empty(*displacements(layout.grid_size), layout.num_heads))
        nn.init.trunc_normal_(self.table, std=std)
        self.register_buffer("index", relative_index(layout.grid_size, layout.grid_size), persistent=False)

    def forward(self, grid_size: Size) -> Float[Tensor, "heads n n"]:
        table: Tensor = self.table
        index = self.index
        if grid_size != self.grid_size:
            table_for = grid_size if self.resize == "interpolate" else self.grid_size
            table = resample(table, displacements(table_for))
            index = relative_index(grid_size, table_for, index.device)
        return table.flatten(0, 1).T[:, index]


class RelBiasMlp(nn.Module):
    """Compute the bias from the log-spaced displacement by a network with one hidden layer (Swin v2).

    resize="extrapolate" measures a new grid in units of the grid that the scheme was built for (Liu et al., 2022,
    sec. 3.3); "interpolate" scales the new grid to the size of that grid. For n patches the bias has heads * n * n
    numbers per layer, and the index takes 8 n * n bytes. The bias excludes flash attention.
    """

    index: Tensor
    places: Tensor

    def __init__(self, layout: Layout, *, hidden_dim: int, gain: float, std: float, resize: str) -> None:
        super().__init__()
        one_of("resize", resize, RESIZE)
        positive("hidden_dim", hidden_dim)
        positive("gain", gain)
        positive("std", std)
        self.grid_size, self.gain, self.resize = layout.grid_size, gain, resize
        self.fc1 = nn.Linear(2, hidden_dim)
        self.fc2 = nn.Linear(hidden_dim, layout.num_heads, bias=False)
        nn.init.trunc_normal_(self.fc1.weight, std=std)
        nn.init.zeros_(self.fc1.bias)
        nn.init.trunc_normal_(self.fc2.weight, std=std)
        self.register_buffer("index", relative_index(layout.grid_size, layout.grid_size), persistent=False)
        self.register_buffer("places", self.log_spaced(layout.grid_size), persistent=False)

    def log_spaced(self, grid_size: Size, device: torch.device | None = None) -> Float[Tensor, "dh dw 2"]:
        """Return sign(d) * log2(1 + |d|) / 3 for each displacement d, measured so that the original grid spans 8."""
        axes = []
        for n, built_for, step in zip(
            grid_size, self.grid_size, scale(grid_size, self.grid_size, self.resize), strict=True
        ):
            d = torch.arange(1 - n, n, dtype=torch.float32, device=device) * step * 8 / max(built_for - 1, 1)
            axes.append(d.sign() * torch.log2(1 + d.abs()) / math.log2(8))
        return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)

    def forward(self, grid_size: Size) -> Float[Tensor, "heads n n"]:
        places, index = self.places, self.index
        if grid_size != self.grid_size:
            places = self.log_spaced(grid_size, index.device).to(places)
            index = relative_index(grid_size, grid_size, index.device)
        # Swin v2 does not subtract 0.5: a softmax over patches only ignores a constant. But here the bias of prefix
        # tokens is zero, and every patch would start with an advantage of gain / 2 over these tokens.
        table = self.gain * (self.fc2(F.relu(self.fc1(places))).sigmoid() - 0.5)
        return table.flatten(0, 1).T[:, index]
