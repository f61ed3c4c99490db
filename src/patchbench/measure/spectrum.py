"""Spectra of matrices and maps: effective rank, principal components, spatial frequencies."""

import numpy as np
import torch
from jaxtyping import Float
from scipy.fft import dctn
from torch import Tensor


def effective_rank(matrix: Float[Tensor, "n d"]) -> float:
    """Return the exponential of the entropy of the normalised singular values (Roy & Vetterli, 2007).

    It is n for n equal singular values, and 1 for a single one.
    """
    values = torch.linalg.svdvals(matrix.double())
    shares = values / values.sum()
    return float(torch.exp(torch.special.entr(shares).sum()))


def components(matrix: Float[Tensor, "n d"], count: int) -> tuple[Float[Tensor, "k d"], Float[Tensor, " m"]]:
    """Return the first principal components of the rows (Dosovitskiy et al., 2021, fig. 7), and shares of variance.

    The sign of a component is arbitrary; here its largest value is positive.
    """
    centred = matrix.double() - matrix.double().mean(0)
    _, values, axes = torch.linalg.svd(centred, full_matrices=False)
    axes = axes[:count]
    largest = axes.gather(1, axes.abs().argmax(1, keepdim=True))
    return (axes * largest.sign()).float(), (values.square() / values.square().sum()).float()


def dct_energy(kernels: Float[Tensor, "k c P Q"]) -> Float[Tensor, "P Q"]:
    """Return the share of energy of kernels at each pair of frequencies of the orthonormal 2-D DCT-II.

    Entry (i, j) has i half-periods down and j half-periods across the window (Ahmed et al., 1974). Energy is summed
    over kernels and channels.
    """
    spectra = dctn(kernels.double().numpy(), axes=(2, 3), norm="ortho")
    energy = torch.from_numpy(np.square(spectra).sum((0, 1)))
    return (energy / energy.sum()).float()


def grid_energy(vectors: Float[Tensor, "h w d"]) -> Float[Tensor, "h w"]:
    """Return the share of energy of the vectors of a grid at each pair of spatial frequencies.

    Energy is the squared 2-D discrete Fourier transform, summed over the values of the vectors. Frequency zero is in
    the centre and has no energy, because the mean is subtracted.
    """
    centred = vectors - vectors.mean((0, 1))
    energy = torch.fft.fft2(centred.double(), dim=(0, 1)).abs().square().sum(-1)
    return torch.fft.fftshift(energy / energy.sum().clamp_min(1e-300)).float()


def dct_frequency(energy: Float[Tensor, "P Q"]) -> float:
    """Return the mean frequency of a `dct_energy`: 0 for constant kernels, 1 for the highest frequency on both axes."""
    return mean_radius(energy, [torch.arange(n) / max(1, n - 1) for n in energy.shape])


def grid_frequency(energy: Float[Tensor, "h w"]) -> float:
    """Return the mean frequency of a `grid_energy`: 1 if signs change from place to place along both axes."""
    return mean_radius(energy, [torch.fft.fftshift(torch.fft.fftfreq(n)).abs() * 2 for n in energy.shape])


def mean_radius(energy: Float[Tensor, "P Q"], axes: list[Tensor]) -> float:
    radius = torch.hypot(axes[0][:, None], axes[1][None]) / 2**0.5
    return float((radius * energy).sum() / energy.sum())


def common_share(kernels: Float[Tensor, "k c P Q"]) -> float:
    """Return the share of the kernels' energy that all channels have in common.

    It is 1 for grey kernels, 1/c for unrelated slices, and 0 for opponent colours only (Buchsbaum & Gottschalk, 1983).
    """
    return float(kernels.mean(1).square().sum() * kernels.shape[1] / kernels.square().sum())
