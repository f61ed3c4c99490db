"""Learned absolute positions: vectors for places, or for rows and columns (Dosovitskiy et al., 2021)."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from patchbench.checks import one_of, positive
from patchbench.layout import Layout
from patchbench.pos.grid import resample


class Learned(nn.Module):
    """Add a learned vector to the token at each place; resample the table for another grid (sec. 3.1, 3.2)."""

    def __init__(self, layout: Layout, *, std: float) -> None:
        super().__init__()
        positive("std", std)
        self.table = nn.Parameter(torch.empty(*layout.grid_size, layout.embed_dim))
        nn.init.trunc_normal_(self.table, std=std)

    def forward(self, x: Float[Tensor, "b h w d"]) -> Float[Tensor, "b h w d"]:
        return x + resample(self.table, (x.shape[1], x.shape[2]))


class Factorized(nn.Module):
    """Add a learned vector for the row and one for the column: h + w vectors instead of h * w.

    combine="add" sums the two (Dehghani et al., 2023, NaViT); "concat" gives half of the channels to each (Dosovitskiy
    et al., 2021, app. D.4). Both tables are resampled for another grid. ValueError for "concat" with an odd embed_dim.
    """

    def __init__(self, layout: Layout, *, combine: str, std: float) -> None:
        super().__init__()
        one_of("combine", combine, ("add", "concat"))
        positive("std", std)
        if combine == "concat" and layout.embed_dim % 2:
            raise ValueError(
                f"combine=concat halves model.embed_dim={layout.embed_dim} between rows and "
                "columns: use an even number, or combine=add"
            )
        self.combine = combine
        channels = layout.embed_dim // 2 if combine == "concat" else layout.embed_dim
        self.rows = nn.Parameter(torch.empty(layout.grid_size[0], channels))
        self.cols = nn.Parameter(torch.empty(layout.grid_size[1], channels))
        nn.init.trunc_normal_(self.rows, std=std)
        nn.init.trunc_normal_(self.cols, std=std)

    def forward(self, x: Float[Tensor, "b h w d"]) -> Float[Tensor, "b h w d"]:
        h, w = x.shape[1:3]
        rows = resample(self.rows[:, None], (h, 1))
        cols = resample(self.cols[None], (1, w))
        if self.combine == "add":
            return x + rows + cols
        return x + torch.cat([rows.expand(h, w, -1), cols.expand(h, w, -1)], dim=-1)
