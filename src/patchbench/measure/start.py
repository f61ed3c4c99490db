"""The way of the kernels of an embedding from the start of training."""

from dataclasses import dataclass

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from patchbench.checks import Size
from patchbench.measure import response, spectrum
from patchbench.measure.response import Window


@dataclass(frozen=True)
class Starts:
    """Embeddings as training starts from them: at the seed of the run, and at another seed."""

    this: nn.Module
    other: nn.Module


@dataclass(frozen=True)
class Change:
    """Kernels beside those from which training started.

    cosine: between a kernel and its start, mean over kernels. difference: its length, as a share of that of the start.
    random: absolute cosine between the starts of two seeds, mean over kernels; 1 where the start is not random.
    frequency: mean frequency of the kernels at the start, see `dct_frequency`. trained: some weights are trained.
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
    """Compare kernels with their start. now: the kernels of `embed` at `place`, the mean over `images`."""
    before, elsewhere = (
        response.kernels(start, images, place, window, len(now)) for start in (starts.this, starts.other)
    )
    return Change(
        cosine=mean_cosine(now, before),
        difference=float((now - before).norm() / before.norm().clamp_min(1e-30)),
        random=mean_cosine(before, elsewhere, absolute=True),
        frequency=spectrum.dct_frequency(spectrum.dct_energy(before)),
        trained=any(parameter.requires_grad for parameter in embed.parameters()),
    )


def mean_cosine(a: Float[Tensor, "k c P Q"], b: Float[Tensor, "k c P Q"], *, absolute: bool = False) -> float:
    """Return the mean over kernels of the cosine between two kernels of the same number."""
    cosines = F.cosine_similarity(a.flatten(1).double(), b.flatten(1).double(), dim=1)
    return float((cosines.abs() if absolute else cosines).mean())
