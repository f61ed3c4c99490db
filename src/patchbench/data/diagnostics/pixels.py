"""Scenes of detail below the patch: a diagonal of three pixels, and the signs of two."""

import torch
from jaxtyping import Bool, Float, Int
from scipy.stats import norm
from torch import Tensor

from patchbench.checks import Size, spell
from patchbench.data.diagnostics.canvas import blank, grid, merged, pick, visible
from patchbench.data.draws import Purpose, uniform


class Motif:
    """Does a diagonal of 3x3 pixels, at any pixel of the image, fall (0, as a backslash) or rise (1, as a slash)?

    Detail below the patch, wherever the borders of patches lie. ceiling: of an observer who knows the place.
    """

    num_classes = 2
    mirrors = False
    chance = 0.5
    noise_chans = 1

    def __init__(self, *, contrast: float, noise: float) -> None:
        visible(contrast, noise)
        self.contrast, self.noise = float(contrast), noise

    def fits(self, img_size: Size) -> None:
        if min(img_size) < 3:
            raise ValueError(f"img_size={spell(img_size)} does not hold a motif of 3x3: use img_size=3 or more")

    def ceiling(self, img_size: Size) -> float:
        return float(norm.cdf(self.contrast / self.noise))

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


class PixelXor:
    """Of two pixels of one cell, are the signs equal (0) or opposite (1)?

    The cell is any of the grid, the pixels any two of that cell: an embedding can tell only if it keeps every pixel
    of a patch. ceiling: of an observer who knows the two pixels.
    """

    num_classes = 2
    mirrors = True
    chance = 0.5
    noise_chans = 1

    def __init__(self, *, cell: int, contrast: float, noise: float) -> None:
        visible(contrast, noise)
        self.cell, self.contrast, self.noise = cell, float(contrast), noise

    def fits(self, img_size: Size) -> None:
        grid(img_size, self.cell)

    def ceiling(self, img_size: Size) -> float:
        right = norm.cdf(self.contrast / self.noise)
        return float(right**2 + (1 - right) ** 2)

    def draw(
        self, draws: Int[Tensor, " b"], labels: Int[Tensor, " b"], img_size: Size
    ) -> Float[Tensor, "b 1 {img_size[0]} {img_size[1]}"]:
        height, width = grid(img_size, self.cell)
        u = uniform(draws, 5, Purpose.SCENE)
        row, col, sign = pick(u[:, 0], height), pick(u[:, 1], width), pick(u[:, 2], 2) * 2 - 1
        one = pick(u[:, 3], self.cell**2)
        other = (one + 1 + pick(u[:, 4], self.cell**2 - 1)) % self.cell**2
        cells, images = blank(len(draws), 1, (height, width), self.cell), torch.arange(len(draws))
        for pixel, value in ((one, sign), (other, sign * (1 - 2 * labels))):
            cells[images, 0, row, pixel // self.cell, col, pixel % self.cell] = value * self.contrast
        return merged(cells)
