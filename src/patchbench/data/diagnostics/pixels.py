"""Scenes of detail below the patch: a diagonal of three pixels; the sign of any value of a patch."""

import math

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from scipy.optimize import brentq
from scipy.special import xlog1py, xlogy
from scipy.stats import norm
from torch import Tensor

from patchbench.checks import Size, spell
from patchbench.data.diagnostics.canvas import grid, noise_of_mean, pick, visible
from patchbench.data.draws import Purpose, uniform


class Motif:
    """Does a diagonal of 3x3 pixels, at any pixel of the image, fall (0, as a backslash) or rise (1, as a slash)?

    Detail below the patch, wherever the borders of patches lie. ceiling: of an observer who knows the place.

    tests/test_shortcuts.py: the sum, the least, the largest pixel or the energy of each patch tells at most 60 %, from
    motifs that a corner of patches cuts. A bag of patches tells most, since inside a patch the motif is whole. Of h x w
    pixels, a network that misses the last row and column misses a part of 1 - (h - 3)(w - 3) / ((h - 2)(w - 2)) of the
    motifs: 14 % at 16 pixels. noise_chans: 1, the channels are equal, and a patch has rank P^2; 3, each has noise of
    its own, and a patch has rank 3 P^2.
    """

    num_classes = 2
    mirrors = False
    chance = 0.5

    def __init__(self, *, contrast: float, noise: float, noise_chans: int) -> None:
        visible(contrast, noise)
        self.contrast, self.noise, self.noise_chans = float(contrast), noise, noise_chans
        self.noise_of_mean = noise_of_mean(noise, noise_chans)

    def fits(self, img_size: Size) -> None:
        if min(img_size) < 3:
            raise ValueError(f"img_size={spell(img_size)} does not hold a motif of 3x3: use img_size=3 or more")

    def ceiling(self, img_size: Size) -> float:
        return float(norm.cdf(self.contrast / self.noise_of_mean))

    def draw(
        self, draws: Int[Tensor, " b"], labels: Int[Tensor, " b"], img_size: Size
    ) -> Float[Tensor, "b 1 {img_size[0]} {img_size[1]}"]:
        top, left = self.place(draws, img_size)
        drawn, images = torch.zeros(len(draws), 1, *img_size), torch.arange(len(draws))
        for i in range(3):
            drawn[images, 0, top + i, left + torch.where(labels == 1, 2 - i, i)] = self.contrast
        return drawn

    def place(self, draws: Int[Tensor, " b"], img_size: Size) -> tuple[Int[Tensor, " b"], Int[Tensor, " b"]]:
        """Row and column of the motif's upper left pixel."""
        u = uniform(draws, 2, Purpose.SCENE)
        return pick(u[:, 0], img_size[0] - 2), pick(u[:, 1], img_size[1] - 2)

    def groups(
        self, draws: Int[Tensor, " b"], img_size: Size, scale: int, patch_size: Size
    ) -> dict[str, Bool[Tensor, " b"]]:
        """inside: the motif lies inside a patch of the grid that starts in the corner; cut: it does not."""
        within = [
            first * scale // patch == (first * scale + 3 * scale - 1) // patch
            for first, patch in zip(self.place(draws, img_size), patch_size, strict=True)
        ]
        inside = within[0] & within[1]
        return {"inside": inside, "cut": ~inside}


class Pointer:
    """Which sign has the value that the pointer names? One cell has a random sign in each of its values, of pixels and
    channels; another cell, the pointer, is bright in one pixel and channel: the label is the sign in that place.

    Each value is the label as often as any other, and none tells of another, so an embedding loses in accuracy what it
    does not keep of a patch: see `ceiling_of`. Two tokens must meet, wherever they are: no position is needed. The rank
    of a patch that is a cell is 3 P^2, as the channels are independent. ceiling: of an observer who knows the place.

    tests/test_shortcuts.py: one number of each patch (its sum, a random projection) tells at most 63 %, its largest or
    least pixel at most 56 %, and its energy nothing. tests/test_diagnostics.py: Bayes' rule stays below `ceiling_of` on
    any projection, and reaches `ceiling` where all values are kept.
    """

    num_classes = 2
    mirrors = True
    chance = 0.5
    noise_chans = 3

    def __init__(self, *, cell: int, contrast: float, pointer: float, noise: float) -> None:
        visible(contrast, noise)
        visible(pointer, noise, "pointer")
        self.cell, self.contrast, self.pointer, self.noise = cell, float(contrast), float(pointer), noise
        self.values = 3 * cell**2

    def fits(self, img_size: Size) -> None:
        height, width = grid(img_size, self.cell)
        if height * width == 1:
            grid(img_size, self.cell, at_least=(1, 2))

    def ceiling(self, img_size: Size) -> float:
        return float(norm.cdf(self.contrast / self.noise))

    def ceiling_of(self, rank: int) -> float:
        """Accuracy that no linear embedding of a cell exceeds, if it keeps `rank` numbers of the k values.

        Its numbers are r channels of Gaussian noise, as orthonormal rows give the same information, and carry no more
        than r * C bits, C = log2(1 + (contrast / noise)^2) / 2 (Shannon, 1948). The k signs are independent, so on
        average one of them is known to r * C / k bits, and its error e has a binary entropy of at least 1 - r * C / k
        (Fano, 1961; entropy is concave). Pixels count as continuous, although they are whole numbers.
        """
        known = rank * math.log2(1 + (self.contrast / self.noise) ** 2) / 2 / self.values
        if known >= 1:
            return self.ceiling((0, 0))
        error = brentq(lambda e: known - 1 - (xlogy(e, e) + xlog1py(1 - e, -e)) / math.log(2), 0, 0.5)
        return min(1 - error, self.ceiling((0, 0)))

    def draw(
        self, draws: Int[Tensor, " b"], labels: Int[Tensor, " b"], img_size: Size
    ) -> Float[Tensor, "b 3 {img_size[0]} {img_size[1]}"]:
        height, width = grid(img_size, self.cell)
        cells, images = height * width, torch.arange(len(draws))
        u = uniform(draws, 3 + self.values, Purpose.SCENE)
        place, named = pick(u[:, 0], cells), pick(u[:, 1], self.values)
        pointer = (place + 1 + pick(u[:, 2], cells - 1)) % cells
        signs = pick(u[:, 3:], 2) * 2 - 1
        signs[images, named] = labels * 2 - 1
        drawn = torch.zeros(len(draws), cells, self.values)
        drawn[images, place] = signs * self.contrast
        drawn[images, pointer, named] = self.pointer
        return rearrange(drawn, "b (h w) (c y x) -> b c (h y) (w x)", h=height, c=3, y=self.cell)
