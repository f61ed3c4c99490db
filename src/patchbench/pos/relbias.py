"""Attention shifted by the displacement between two patches: from a table (Liu et al., 2021), or a network (2022)."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from patchbench.checks import Size, one_of, positive
from patchbench.layout import Layout
from patchbench.pos.grid import RESIZE, scale, stretch


def displacements(grid_size: Size) -> Size:
    """How many rows and columns one patch may be away from another, to either side."""
    return 2 * grid_size[0] - 1, 2 * grid_size[1] - 1


def relative_index(grid_size: Size, table_for: Size, device: torch.device | None = None) -> Int[Tensor, "n n"]:
    """Where the displacement from patch j to patch i stands in a flattened table made for the grid `table_for`.

    Displacements that the table does not reach count as the furthest that it does (Shaw et al., 2018).
    """
    (h, w), (rows, cols) = table_for, (torch.arange(n, device=device) for n in grid_size)
    by_row = (rows[:, None] - rows).clamp(1 - h, h - 1) + h - 1
    by_col = (cols[:, None] - cols).clamp(1 - w, w - 1) + w - 1
    index = by_row[:, None, :, None] * (2 * w - 1) + by_col[None, :, None, :]
    return index.flatten(2, 3).flatten(0, 1)


class RelBias(nn.Module):
    """Look the bias up by displacement in a learned table, one for each head.

    resize="interpolate" stretches the table over the displacements of a new grid (as TinyViT does, Wu et al., 2022);
    "extrapolate" keeps it, and displacements beyond it count as its furthest (Shaw et al., 2018).
    The bias takes heads * n * n numbers a layer for n patches, the index 8 n * n bytes, and flash attention is out.
    """

    index: Tensor

    def __init__(self, layout: Layout, *, std: float, resize: str) -> None:
        super().__init__()
        one_of("pos.relbias.bias.resize", resize, RESIZE)
        positive("pos.relbias.bias.std", std)
        self.grid_size, self.resize = layout.grid_size, resize
        self.table = nn.Parameter(torch.empty(*displacements(layout.grid_size), layout.num_heads))
        nn.init.trunc_normal_(self.table, std=std)
        self.register_buffer("index", relative_index(layout.grid_size, layout.grid_size), persistent=False)

    def forward(self, grid_size: Size) -> Float[Tensor, "heads n n"]:
        table: Tensor = self.table
        index = self.index
        if grid_size != self.grid_size:
            reach = grid_size if self.resize == "interpolate" else self.grid_size
            table = stretch(table, displacements(reach))
            index = relative_index(grid_size, reach, index.device)
        return table.flatten(0, 1).T[:, index]


class RelBiasMlp(nn.Module):
    """Compute the bias from the displacement, log-spaced, by a network of one hidden layer (Swin v2).

    resize="extrapolate" measures a new grid in units of the one that the scheme was built for (Liu et al., 2022,
    sec. 3.3); "interpolate" scales it onto that one. The bias takes heads * n * n numbers a layer for n patches, the
    index 8 n * n bytes, and flash attention is out.
    """

    index: Tensor
    places: Tensor

    def __init__(self, layout: Layout, *, hidden_dim: int, gain: float, std: float, resize: str) -> None:
        super().__init__()
        one_of("pos.relbias_mlp.bias.resize", resize, RESIZE)
        positive("pos.relbias_mlp.bias.hidden_dim", hidden_dim)
        positive("pos.relbias_mlp.bias.gain", gain)
        positive("pos.relbias_mlp.bias.std", std)
        self.grid_size, self.gain, self.resize = layout.grid_size, gain, resize
        self.fc1 = nn.Linear(2, hidden_dim)
        self.fc2 = nn.Linear(hidden_dim, layout.num_heads, bias=False)
        nn.init.trunc_normal_(self.fc1.weight, std=std)
        nn.init.zeros_(self.fc1.bias)
        nn.init.trunc_normal_(self.fc2.weight, std=std)
        self.register_buffer("index", relative_index(layout.grid_size, layout.grid_size), persistent=False)
        self.register_buffer("places", self.log_spaced(layout.grid_size), persistent=False)

    def log_spaced(self, grid_size: Size, device: torch.device | None = None) -> Float[Tensor, "dh dw 2"]:
        """Every displacement as sign * log2(1 + |d|) / 3, where d is 8 at the far end of the grid built for."""
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
            places, index = self.log_spaced(grid_size, index.device), relative_index(grid_size, grid_size, index.device)
        # Swin v2 has no half: the softmax over patches does not see it, but against prefix tokens, whose bias is zero,
        # every patch would start with the advantage of gain / 2.
        table = self.gain * (self.fc2(F.relu(self.fc1(places))).sigmoid() - 0.5)
        return table.flatten(0, 1).T[:, index]
