"""Patch embedding in a given basis: coefficients of each patch, then a learned projection."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from patchbench.checks import Size, cover, size, spell
from patchbench.layout import padded

FITTED = ("pca", "whitened")
BASES = ("dct", "hadamard", "random", "orthonormal", *FITTED)


class FixedEmbed(nn.Module):
    """Flatten each patch in the order (channel, row, column), compute its coefficients in a basis, and project these.

    basis: `dct` (Ahmed et al., 1974) and `hadamard` of each channel, low frequencies first; `random`, normal with
    variance 1 / fan-in; `orthonormal`, drawn at random; `pca` of training patches, largest variance first;
    `whitened`, as `pca` but with unit variance. The last two need `fit`. basis_dim: number of coefficients; None: all.
    Bases of equal basis_dim have equal rank if the values of a patch are independent. If three channels are equal,
    `dct` and `hadamard` compute each coefficient three times and keep basis_dim / 3 numbers, the other bases up to
    P * Q: compare them on images with one channel, or with independent noise in each channel.
    trainable: if false, the basis is a buffer, saved in checkpoints; if true, a parameter with this basis as its start.
    fit_images: number of training images for `fit`. eps: see `fit`.
    ValueError if basis_dim exceeds the number of values of a patch, if a side of a hadamard patch is not a power of
    two, and if the patches do not cover the image, unless `pad`.
    """

    basis: Tensor
    mean: Tensor

    def __init__(
        self,
        img_size: Size,
        in_chans: int,
        embed_dim: int,
        *,
        patch_size: int | Sequence[int],
        basis: str,
        basis_dim: int | None,
        trainable: bool,
        fit_images: int,
        eps: float,
        pad: bool,
    ) -> None:
        super().__init__()
        self.patch_size, self.pad = size("patch", patch_size), pad
        self.grid_size, _ = cover(img_size, self.patch_size, pad)
        p, q = self.patch_size
        values = in_chans * p * q
        if basis not in BASES:
            raise ValueError(f"basis={basis} is unknown: use one of {', '.join(BASES)}")
        if basis_dim is not None and not 1 <= basis_dim <= values:
            raise ValueError(
                f"basis_dim={basis_dim} must be from 1 to the {values} values of a patch "
                f"({in_chans} channels of {p}x{q} pixels), or null for all of them"
            )
        if basis == "hadamard" and (p & (p - 1) or q & (q - 1)):
            raise ValueError(
                f"basis=hadamard needs sides that are powers of two, but patch={spell(self.patch_size)}: "
                "use such a patch, or basis=dct"
            )
        if fit_images < 1 or eps < 0:
            raise ValueError(f"fit_images={fit_images} must be at least 1, and eps={eps} not negative")
        dim = basis_dim or values
        self.whiten, self.eps = basis == "whitened", eps
        self.fit_images = fit_images if basis in FITTED else 0  # number of images for `fit`
        if basis in ("dct", "hadamard"):
            matrix = plane_basis(dct(p), dct(q)) if basis == "dct" else plane_basis(hadamard(p), hadamard(q))
            # Each frequency of all channels, then the next frequency: basis_dim treats the channels equally.
            matrix = torch.einsum("f p, c k -> f c k p", matrix, torch.eye(in_chans, dtype=matrix.dtype))
            start = matrix.reshape(values, values)[:dim].float()
        elif basis == "random":
            start = torch.randn(dim, values) * values**-0.5
        elif basis == "orthonormal":
            start = nn.init.orthogonal_(torch.empty(dim, values))
        else:
            start = torch.full((dim, values), torch.nan)  # `fit` or a checkpoint replaces the NaNs
        if trainable:
            self.basis = nn.Parameter(start)
        else:
            self.register_buffer("basis", start)
        self.register_buffer("mean", torch.zeros(values))
        self.proj = nn.Linear(dim, embed_dim)

    def forward(self, images: Float[Tensor, "b c H W"]) -> Float[Tensor, "b h w d"]:
        return self.proj(self.coefficients(images))

    def coefficients(self, images: Float[Tensor, "b c H W"]) -> Float[Tensor, "b h w k"]:
        """Compute the input of the projection in full float32: whitening would amplify the rounding of other types."""
        device = images.device.type
        autocast = torch.autocast("cpu" if device == "meta" else device, enabled=False)  # the meta device has none
        # A compiled graph keeps the precision that was set when it was compiled.
        with autocast, nullcontext() if torch.compiler.is_compiling() else full_float32():
            return F.linear(self.patches(images.float()) - self.mean, self.basis)

    def patches(self, images: Float[Tensor, "b c H W"]) -> Float[Tensor, "b h w v"]:
        p, q = self.patch_size
        images = padded(images, self.patch_size, self.pad)
        return rearrange(images, "b c (h p) (w q) -> b h w (c p q)", p=p, q=q)

    @torch.no_grad()
    def fit(self, images: Float[Tensor, "n c H W"]) -> None:
        """Set the basis and the mean from normalised training images; do nothing unless the basis is pca or whitened.

        Equal images give an equal basis: it is computed in float64, and the largest weight of each component is
        positive. eps, a share of the largest variance, is added to all variances before whitening.
        """
        if not self.fit_images:
            return
        values = self.basis.shape[1]
        count, total, square = 0, np.zeros(values), np.zeros((values, values))
        for batch in images.cpu().split(64):
            patches = self.patches(batch.double()).flatten(0, 2).numpy()
            count += len(patches)
            total += patches.sum(0)
            square += patches.T @ patches
        mean = total / count
        variance, columns = np.linalg.eigh(square / count - np.outer(mean, mean))
        order = np.argsort(-variance, kind="stable")[: len(self.basis)]
        variance, rows = variance[order].clip(0), columns[:, order].T
        rows *= np.sign(rows[np.arange(len(rows)), np.abs(rows).argmax(1)])[:, None]
        if self.whiten:
            # Directions in which patches hardly differ would become noise: eps limits their amplification. (Coates et
            # al., 2011, add 0.1, not a share of the largest variance.) If a variance is no larger than rounding
            # errors, as for constant images, the coefficient is 0.
            variance = variance + self.eps * variance[0]
            rounding = values * np.finfo(float).eps * np.trace(square) / count
            rows /= np.sqrt(np.where(variance > rounding, variance, np.inf))[:, None]
        self.basis.copy_(torch.from_numpy(rows))
        self.mean.copy_(torch.from_numpy(mean))


@contextmanager
def full_float32() -> Iterator[None]:
    """Compute float32 matrix products without TF32 in this block. Elsewhere the trainer allows TF32, for speed."""
    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(precision)


def plane_basis(rows: Float[Tensor, "p p"], cols: Float[Tensor, "q q"]) -> Float[Tensor, "n n"]:
    """Combine the bases of two axes, each in order of frequency, into a basis of the plane, low frequencies first.

    The rows of the result are sorted by their distance from frequency 0, ties by the frequency along `rows`. This is
    not the zigzag order of JPEG.
    """
    p, q = len(rows), len(cols)
    by_frequency = sorted(((u / p) ** 2 + (v / q) ** 2, u, v) for u in range(p) for v in range(q))
    order = torch.tensor([u * q + v for _, u, v in by_frequency], device=rows.device)
    return torch.kron(rows, cols)[order]


def dct(n: int) -> Float[Tensor, "n n"]:
    """Build the matrix of the orthonormal cosine transform (DCT-II) of n values, one row for each frequency."""
    index = torch.arange(n, dtype=torch.float64)
    waves = torch.cos(torch.pi / n * torch.outer(index, index + 0.5)) * (2 / n) ** 0.5
    waves[0] /= 2**0.5
    return waves


def hadamard(n: int) -> Float[Tensor, "n n"]:
    """Build the matrix of the orthonormal Walsh-Hadamard transform, rows sorted by their number of sign changes.

    n: number of values, a power of two.
    """
    signs: np.ndarray = np.ones((1, 1))
    while len(signs) < n:
        signs = np.kron([[1, 1], [1, -1]], signs)
    changes = (np.diff(signs) != 0).sum(1)
    return torch.tensor(signs[changes.argsort()] / n**0.5)
