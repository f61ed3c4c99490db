"""Change of the kernels of an embedding since the start of training."""

from dataclasses import dataclass

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from patchbench.checks import Size
from patchbench.measure import response, spectrum
from patchbench.measure.response import Window


@dataclass(frozen=True)
class Starts:
    """Embeddings at the start of training: with the seed of the run, and with another seed."""

    this: nn.Module
    other: nn.Module


@dataclass(frozen=True)
class Change:
    """Comparison of kernels with the kernels at the start of training.

    cosine: cosine between a kernel and its start, mean over kernels. difference: norm of the difference between all
    kernels and their start, divided by the norm of the start. random: absolute cosine between the starts of two seeds,
    mean over kernels; 1 if the start is not random. frequency: mean frequency of the start, see `dct_frequency`.
    trained: some weights are trained.
    """

    cosine: float
    difference: float
    random: float
    frequency: float
    trained: bool


def change(
    embed: nn.Module,
    starts: Starts,
    images: Float[Tensor, "b c H W"],
    place: Size,
    window: Window,
    now: Float[Tensor, "k c P Q"],
) -> Change:
    """Compare kernels with their start. now: the kernels of `embed` at `place`, averaged over `images`."""
    start, other_seed = (
        response.kernels(each, images, place, window, len(now)) for each in (starts.this, starts.other)
    )
    return Change(
        cosine=mean_cosine(now, start),
        difference=float((now - start).norm() / start.norm().clamp_min(1e-30)),
        random=mean_cosine(start, other_seed, absolute=True),
        frequency=spectrum.dct_frequency(spectrum.dct_energy(start)),
        trained=any(parameter.requires_grad for parameter in embed.parameters()),
    )


def mean_cosine(a: Float[Tensor, "k c P Q"], b: Float[Tensor, "k c P Q"], *, absolute: bool = False) -> float:
    """Return the cosine between kernel i of `a` and kernel i of `b`, averaged over i."""
    cosines = F.cosine_similarity(a.flatten(1).double(), b.flatten(1).double(), dim=1)
    return float((cosines.abs() if absolute else cosines).mean())
