"""Scenes of details smaller than a patch: a diagonal of three pixels; the sign of one value of a patch."""

import math

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from scipy.optimize import brentq
from scipy.special import xlog1py, xlogy
from scipy.stats import norm
from torch import Tensor

from patchbench.checks import Size, spell
from patchbench.data.diagnostics.canvas import check_contrast, grid, noise_of_mean, pick
from patchbench.data.draws import Purpose, uniform


class Motif:
    """Does a diagonal of 3x3 pixels, anywhere in the image, fall (0, like a backslash) or rise (1, like a slash)?

    The detail is smaller than a patch and may cross the borders of patches. ceiling: accuracy of an observer who knows
    the place.

    tests/test_shortcuts.py: the sum, minimum, maximum or energy of each patch gives at most 60 %, from motifs that are
    cut at a corner of patches. A bag of patches gives at most 86 %, from motifs inside a patch. In an image of h x w
    pixels a network that does not read the last row and column misses a part of some motifs, a share of
    1 - (h - 3)(w - 3) / ((h - 2)(w - 2)): 14 % at 16 pixels. noise_chans: with 1 the channels are equal and a patch has
    rank P^2; with 3 each channel has independent noise and a patch has rank 3 P^2.
    """

    num_classes = 2
    mirrors = False
    chance = 0.5

    def __init__(self, *, contrast: float, noise: float, noise_chans: int) -> None:
        check_contrast(contrast, noise)
        self.contrast, self.noise, self.noise_chans = float(contrast), noise, noise_chans
        self.noise_of_mean = noise_of_mean(noise, noise_chans)

    def check_size(self, img_size: Size) -> None:
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
        """Return row and column of the upper left pixel of the motif."""
        u = uniform(draws, 2, Purpose.SCENE)
        return pick(u[:, 0], img_size[0] - 2), pick(u[:, 1], img_size[1] - 2)

    def groups(
        self, draws: Int[Tensor, " b"], img_size: Size, scale: int, patch_size: Size
    ) -> dict[str, Bool[Tensor, " b"]]:
        """Return the mask of images with the motif inside one patch (`inside`), and of the other images (`cut`)."""
        within = [
            first * scale // patch == (first * scale + 3 * scale - 1) // patch
            for first, patch in zip(self.place(draws, img_size), patch_size, strict=True)
        ]
        inside = within[0] & within[1]
        return {"inside": inside, "cut": ~inside}


class Pointer:
    """Which sign has the value that the pointer selects?

    One cell has a random sign in each of its values (pixels and channels). Another cell, the pointer, is bright in one
    pixel and channel; the label is the sign of the same pixel and channel in the first cell. All values are selected
    equally often and are independent, so an embedding loses accuracy with each value that it does not keep, see
    `ceiling_of`. A network must relate two tokens anywhere in the image; no position is needed. Channels are
    independent, so a patch of the size of a cell has rank 3 P^2. ceiling: accuracy of an observer who knows the place.

    tests/test_shortcuts.py: one number of each patch (its sum, a random projection) gives at most 63 %, its maximum or
    minimum at most 56 %, and its energy chance accuracy. tests/test_diagnostics.py: Bayes' rule stays below
    `ceiling_of` for any projection, and reaches `ceiling` if all values are kept.
    """

    num_classes = 2
    mirrors = True
    chance = 0.5
    noise_chans = 3

    def __init__(self, *, cell: int, contrast: float, pointer: float, noise: float) -> None:
        check_contrast(contrast, noise)
        check_contrast(pointer, noise, "pointer")
        self.cell, self.contrast, self.pointer, self.noise = cell, float(contrast), float(pointer), noise
        self.values = 3 * cell**2

    def check_size(self, img_size: Size) -> None:
        height, width = grid(img_size, self.cell)
        if height * width == 1:
            grid(img_size, self.cell, at_least=(1, 2))

    def ceiling(self, img_size: Size) -> float:
        return float(norm.cdf(self.contrast / self.noise))

    def ceiling_of(self, rank: int) -> float:
        """Return an upper bound on the accuracy of a linear embedding that keeps r = `rank` numbers of a cell.

        Orthonormal rows keep the same information, so the numbers are r channels with Gaussian noise. They carry at
        most r * C bits, C = log2(1 + (contrast / noise)^2) / 2 (Shannon, 1948). The k signs of a cell are independent,
        so on average r * C / k bits are known about a sign, and the error e of a sign has a binary entropy of at least
        1 - r * C / k (Fano, 1961; entropy is concave). Pixels count as continuous although they are whole numbers.
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
        place, selected = pick(u[:, 0], cells), pick(u[:, 1], self.values)
        pointer = (place + 1 + pick(u[:, 2], cells - 1)) % cells
        signs = pick(u[:, 3:], 2) * 2 - 1
        signs[images, selected] = labels * 2 - 1
        drawn = torch.zeros(len(draws), cells, self.values)
        drawn[images, place] = signs * self.contrast
        drawn[images, pointer, selected] = self.pointer
        return rearrange(drawn, "b (h w) (c y x) -> b c (h y) (w x)", h=height, c=3, y=self.cell)
