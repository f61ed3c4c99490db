"""Effective receptive fields: how much one place of an output answers to each pixel (Luo et al., 2016)."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

Features = Callable[[Tensor], Tensor]
"""From images, b c H W, to features on a grid, b h w d."""


def effective_field(features: Features, images: Float[Tensor, "b c H W"], seed: int = 0) -> Float[Tensor, "H W"]:
    """Share of each pixel in the squared gradient of the place in the middle, on average over images.

    The square is that of the whole vector at the place, estimated by weighing its values by random signs for each image
    (Hutchinson, 1990).
    """
    images = images.clone().requires_grad_()
    with torch.enable_grad():
        out = features(images)
        middle = out[:, out.shape[1] // 2, out.shape[2] // 2]
        signs = torch.randint(2, middle.shape, generator=torch.Generator().manual_seed(seed)) * 2.0 - 1
        [slopes] = torch.autograd.grad((middle * signs.to(middle)).sum(), images)
    energy = slopes.square().sum(1)
    return (energy / energy.sum((1, 2), keepdim=True).clamp_min(1e-30)).mean(0)


def extent(field: Float[Tensor, "H W"], share: float) -> float:
    """Side in pixels of a square as large as the smallest set of pixels that holds this share of a field."""
    values = field.flatten().double().sort(descending=True).values.cumsum(0)
    values = values / values[-1]
    count = int((values < share - 1e-9).sum()) + 1
    return count**0.5
