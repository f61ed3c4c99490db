"""Learned Fourier features of the position, mixed by a small network (Li et al., 2021)."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from patchbench.checks import one_of, positive
from patchbench.layout import Layout
from patchbench.pos.grid import RESIZE, coordinates


class Fourier(nn.Module):
    """Add MLP(cos(f . place), sin(f . place)) with learned frequencies f.

    num_features: sines and cosines together. gamma: frequencies start from a normal distribution of 1 / gamma radians
    per patch, so that places further apart than gamma patches start with different codes.
    resize="interpolate" scales the coordinates of a new grid to the grid that the scheme was built for, "extrapolate"
    continues them. ValueError if num_features is odd.
    """

    rows: Tensor
    cols: Tensor

    def __init__(self, layout: Layout, *, num_features: int, hidden_dim: int, gamma: float, resize: str) -> None:
        super().__init__()
        one_of("resize", resize, RESIZE)
        positive("num_features", num_features)
        positive("hidden_dim", hidden_dim)
        positive("gamma", gamma)
        if num_features % 2:
            raise ValueError(
                f"num_features={num_features} splits into sines and cosines: use an even number, "
                f"such as num_features={num_features + 1}"
            )
        self.grid_size, self.resize = layout.grid_size, resize
        rows, cols = coordinates(layout.grid_size, layout.grid_size, resize)
        self.register_buffer("rows", rows, persistent=False)
        self.register_buffer("cols", cols, persistent=False)
        self.freqs = nn.Parameter(torch.randn(2, num_features // 2) / gamma)
        self.fc1 = nn.Linear(num_features, hidden_dim)
        self.fc2 = nn.Linear(hidden_dim, layout.embed_dim)
        for layer in (self.fc1, self.fc2):
            # Variance 1 / fan-in: the vectors start at the scale of a learned table, about 0.02.
            nn.init.trunc_normal_(layer.weight, std=layer.in_features**-0.5)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Float[Tensor, "b h w d"]) -> Float[Tensor, "b h w d"]:
        grid_size, rows, cols = (x.shape[1], x.shape[2]), self.rows, self.cols
        if grid_size != self.grid_size:
            rows, cols = (x.to(rows) for x in coordinates(grid_size, self.grid_size, self.resize, rows.device))
        # Not a matrix product: autocast would round the angles.
        angles = rows[:, None, None] * self.freqs[0] + cols[:, None] * self.freqs[1]
        features = torch.cat([angles.cos(), angles.sin()], dim=-1) * self.fc1.in_features**-0.5
        return x + self.fc2(F.gelu(self.fc1(features)))
