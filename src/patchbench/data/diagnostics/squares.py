"""Scenes of place: a bright square in a quadrant of the image; a red and a green square beside each other."""

import torch
from jaxtyping import Float, Int
from scipy.stats import norm
from torch import Tensor

from patchbench.checks import Size
from patchbench.data.diagnostics.canvas import blank, grid, merged, pick, visible
from patchbench.data.draws import Purpose, uniform


class Quadrant:
    """Which quadrant of the canvas holds the square? Absolute position: the label is relative to the canvas.

    ceiling: of an observer who knows one cell in each quadrant, the right one among them.

    tests/test_shortcuts.py: a bag of patches and the colour of the image tell nothing. The sum of each patch tells all,
    if the place of the patch is known: the set is about place, and not about the content of patches. The channels are
    equal: a patch has rank P^2.
    """

    num_classes = 4
    mirrors = False
    chance = 0.25
    noise_chans = 1

    def __init__(self, *, cell: int, contrast: float, noise: float) -> None:
        visible(contrast, noise)
        self.cell, self.contrast, self.noise = cell, float(contrast), noise

    def fits(self, img_size: Size) -> None:
        grid(img_size, self.cell, multiple=(2, 2))

    def ceiling(self, img_size: Size) -> float:
        distance = self.cell * self.contrast / self.noise
        return norm.expect(lambda x: norm.cdf(x + distance) ** 3)

    def draw(
        self, draws: Int[Tensor, " b"], labels: Int[Tensor, " b"], img_size: Size
    ) -> Float[Tensor, "b 1 {img_size[0]} {img_size[1]}"]:
        height, width = grid(img_size, self.cell)
        u = uniform(draws, 2, Purpose.SCENE)
        row = labels // 2 * (height // 2) + pick(u[:, 0], height // 2)
        col = labels % 2 * (width // 2) + pick(u[:, 1], width // 2)
        cells = blank(len(draws), 1, (height, width), self.cell)
        cells[torch.arange(len(draws)), 0, row, :, col] = self.contrast
        return merged(cells)


class LeftOf:
    """Is the red square (1) left of the green one, or right of it (0)? They lie in distinct columns, in any rows.

    Places decide, for both classes have the same patches. They may be absolute or relative: the column of the red
    square less that of the green one has the sign of the label, a sum over patches, so no patch need be related to
    another; in `arrangement` they must be. ceiling: of an observer who knows where the two squares are, but not which
    is which.

    tests/test_shortcuts.py: a bag of patches, their sums and the colour of the image tell nothing. The place of one
    square tells a part, 5/6 where there are four columns: in each class one colour lies further left on average,
    whatever the layout. One number that is linear in the pixels, red less green weighted by column, tells 94 % at
    contrast 40 with noise 20. The noise of the channels is independent: a patch has rank 3 P^2.
    """

    num_classes = 2
    mirrors = False
    chance = 0.5
    noise_chans = 3

    def __init__(self, *, cell: int, contrast: float, noise: float) -> None:
        visible(contrast, noise)
        self.cell, self.contrast, self.noise = cell, float(contrast), noise

    def fits(self, img_size: Size) -> None:
        grid(img_size, self.cell, at_least=(1, 2))

    def ceiling(self, img_size: Size) -> float:
        return float(norm.cdf(self.cell * self.contrast / self.noise))

    def draw(
        self, draws: Int[Tensor, " b"], labels: Int[Tensor, " b"], img_size: Size
    ) -> Float[Tensor, "b 3 {img_size[0]} {img_size[1]}"]:
        height, width = grid(img_size, self.cell)
        u = uniform(draws, 3, Purpose.SCENE)
        pairs = torch.combinations(torch.arange(width))[pick(u[:, 0], width * (width - 1) // 2)]
        red, green = torch.where(labels[:, None] == 1, pairs, pairs.flip(1)).unbind(1)
        cells, images = blank(len(draws), 3, (height, width), self.cell), torch.arange(len(draws))
        cells[images, 0, pick(u[:, 1], height), :, red] = self.contrast
        cells[images, 1, pick(u[:, 2], height), :, green] = self.contrast
        return merged(cells)
