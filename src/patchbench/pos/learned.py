"""Learned absolute positions: one free vector per patch (Dosovitskiy et al., 2021, sec. 3.1)."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from patchbench.layout import Layout


class Learned(nn.Module):
    """Add a table of learned vectors; stretch it bicubically when the grid changes."""

    def __init__(self, layout: Layout, *, std: float) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.empty(*layout.grid_size, layout.embed_dim))
        nn.init.trunc_normal_(self.table, std=std)

    def forward(self, x: Float[Tensor, "b h w d"]) -> Float[Tensor, "b h w d"]:
        table: Tensor = self.table
        if table.shape[:2] != x.shape[1:3]:
            table = F.interpolate(table.permute(2, 0, 1)[None], size=x.shape[1:3], mode="bicubic", antialias=True)
            table = table[0].permute(1, 2, 0)
        return x + table
