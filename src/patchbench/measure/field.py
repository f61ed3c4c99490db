"""Effective receptive fields: the dependence of one place of a feature map on each pixel (Luo et al., 2016)."""

import math
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from patchbench.checks import Size

Features = Callable[[Tensor], Tensor]
"""Function from images, b c H W, to features on a grid, b h w d."""


def effective_field(features: Features, images: Float[Tensor, "b c H W"], seed: int = 0) -> Float[Tensor, "H W"]:
    """Return the share of each pixel in the squared gradient of the central feature vector, averaged over images.

    The squared gradient of the whole vector is estimated with random signs for its values (Hutchinson, 1990).
    """
    images = images.clone().requires_grad_()
    with torch.enable_grad():
        out = features(images)
        central = out[:, out.shape[1] // 2, out.shape[2] // 2]
        signs = torch.randint(2, central.shape, generator=torch.Generator().manual_seed(seed)) * 2.0 - 1
        [gradient] = torch.autograd.grad((central * signs.to(central)).sum(), images)
    energy = gradient.square().sum(1)
    return (energy / energy.sum((1, 2), keepdim=True).clamp_min(1e-30)).mean(0)


def extent(field: Float[Tensor, "H W"], share: float) -> float:
    """Return the side in pixels of a square as large as the smallest set of pixels that holds this share of a field."""
    values = field.flatten().double().sort(descending=True).values.cumsum(0)
    values = values / values[-1]
    count = int((values < share - 1e-9).sum()) + 1
    return count**0.5


def resnet18_features(grid_size: Size, images: Tensor) -> Features:
    """Return the features of a ResNet-18 with random weights (He et al., 2016).

    The stage is the one with the grid nearest to `grid_size`.
    """
    import timm

    with torch.random.fork_rng():
        torch.manual_seed(0)
        # By default timm starts residual branches at zero: the field would be that of the shortcuts only.
        options: Any = {"in_chans": images.shape[1], "features_only": True, "zero_init_last": False}
        resnet = timm.create_model("resnet18", **options).eval()
    with torch.no_grad():
        sizes = [stage.shape[2] for stage in resnet(images[:1])]
    nearest = min(range(1, len(sizes)), key=lambda i: abs(math.log(sizes[i] / grid_size[0])))
    return lambda x: resnet(x)[nearest].permute(0, 2, 3, 1)
