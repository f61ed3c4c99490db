"""Kernels of an embedding, with their principal components and frequencies."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from patchbench.checks import Size
from patchbench.measure import response, spectrum
from patchbench.measure.start import Change, Starts, change

NUM_IMAGES = 8  # images over which the derivative is averaged
COMPONENTS = 28  # principal components that are kept


@dataclass(frozen=True)
class Kernels:
    """Derivative of a token with respect to the pixels of its window: the kernels of the embedding."""

    weights: Float[Tensor, "d c P Q"]
    components: Float[Tensor, "k c P Q"]
    shares: Float[Tensor, " m"]  # share of the variance of each principal component
    energy: Float[Tensor, "P Q"]  # see `spectrum.dct_energy`
    affine: bool  # true: the derivative is the same for every image; false: it is the mean over NUM_IMAGES images
    stride: Size  # pixels between neighbouring windows, down and across
    change: Change | None  # since the start of training; None if the start is not known

    @property
    def overlap(self) -> bool:
        """True if neighbouring windows share pixels."""
        return self.weights.shape[2] > self.stride[0] or self.weights.shape[3] > self.stride[1]


def measure_kernels(
    embed: nn.Module, images: Float[Tensor, "b c H W"], grid_size: Size, starts: Starts | None = None
) -> Kernels:
    """Measure the kernels at the central place of the grid. starts: see `Starts`; None if they are not known."""
    shape = (images.shape[1], images.shape[2], images.shape[3])
    window, stride = response.window_and_stride(embed, shape, grid_size)
    place = (grid_size[0] // 2, grid_size[1] // 2)
    affine = response.is_affine(embed, images[:1])
    with torch.no_grad():
        width = embed(images[:1]).shape[-1]
    used = images[: 1 if affine else NUM_IMAGES]
    weights = response.kernels(embed, used, place, window, width)
    moved = change(embed, starts, used, place, window, weights) if starts else None
    axes, shares = spectrum.components(weights.flatten(1), COMPONENTS)
    tiles, energy = axes.unflatten(1, weights.shape[1:]), spectrum.dct_energy(weights)
    return Kernels(weights, tiles, shares, energy, affine, stride, moved)
