"""Effective receptive fields: how much one place of an output depends on each pixel (Luo et al., 2016)."""

import math
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from patchbench.checks import Size

Features = Callable[[Tensor], Tensor]
"""Maps images, b c H W, to features on a grid, b h w d."""


def effective_field(features: Features, images: Float[Tensor, "b c H W"], seed: int = 0) -> Float[Tensor, "H W"]:
    """Return the share of each pixel in the squared gradient of the place in the middle, on average over images.

    The gradient of the whole vector at that place is estimated with random signs for its values (Hutchinson, 1990).
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
    """Return the side in pixels of a square as large as the smallest set of pixels that has this share of a field."""
    values = field.flatten().double().sort(descending=True).values.cumsum(0)
    values = values / values[-1]
    count = int((values < share - 1e-9).sum()) + 1
    return count**0.5


def resnet18_features(grid_size: Size, images: Tensor) -> Features:
    """A ResNet-18 with random weights (He et al., 2016), up to the stage whose grid is nearest to `grid_size`."""
    import timm

    with torch.random.fork_rng():
        torch.manual_seed(0)
        # By timm's default the residual branches start at zero: the field would be that of the shortcuts alone.
        options: Any = {"in_chans": images.shape[1], "features_only": True, "zero_init_last": False}
        resnet = timm.create_model("resnet18", **options).eval()
    with torch.no_grad():
        sizes = [stage.shape[2] for stage in resnet(images[:1])]
    nearest = min(range(1, len(sizes)), key=lambda i: abs(math.log(sizes[i] / grid_size[0])))
    return lambda x: resnet(x)[nearest].permute(0, 2, 3, 1)
