"""Scenes of position: a bright square in a quadrant of the image; a red square left or right of a green one."""

import torch
from jaxtyping import Float, Int
from scipy.stats import norm
from torch import Tensor

from patchbench.checks import Size
from patchbench.data.diagnostics.canvas import check_contrast, empty_cells, grid, merge_cells, pick
from patchbench.data.draws import Purpose, uniform


class Quadrant:
    """Which quadrant of the canvas holds the square? The set isolates absolute position.

    ceiling: accuracy of an observer who knows one cell in each quadrant, one of which holds the square.

    tests/test_shortcuts.py: a bag of patches or the mean colour of the image gives chance accuracy. The sum of each
    patch is enough if the place of the patch is known: places matter, not details of patches. The channels are equal,
    so a patch has rank P^2.
    """

    num_classes = 4
    mirrors = False
    chance = 0.25
    noise_chans = 1

    def __init__(self, *, cell: int, contrast: float, noise: float) -> None:
        check_contrast(contrast, noise)
        self.cell, self.contrast, self.noise = cell, float(contrast), noise

    def check_size(self, img_size: Size) -> None:
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
        cells = empty_cells(len(draws), 1, (height, width), self.cell)
        cells[torch.arange(len(draws)), 0, row, :, col] = self.contrast
        return merge_cells(cells)


class LeftOf:
    """Is the red square left of the green square (1) or right of it (0)? They lie in different columns, in any rows.

    Only places tell the classes apart, because both classes have the same patches. Absolute or relative places are
    enough: the label follows from the column of the red square minus the column of the green one, a sum over patches,
    so no patch needs to be related to another; `arrangement` needs such relations. ceiling: accuracy of an observer who
    knows the places of the two squares, but not their colours.

    tests/test_shortcuts.py: a bag of patches, the sums of patches or the mean colour of the image gives chance
    accuracy. The place of one square gives 5/6 with four columns: in each class one colour lies further left on
    average, in any layout. One number that is linear in the pixels, red minus green weighted by column, gives 94 % at
    contrast 40 and noise 20. The noise of the channels is independent, so a patch has rank 3 P^2.
    """

    num_classes = 2
    mirrors = False
    chance = 0.5
    noise_chans = 3

    def __init__(self, *, cell: int, contrast: float, noise: float) -> None:
        check_contrast(contrast, noise)
        self.cell, self.contrast, self.noise = cell, float(contrast), noise

    def check_size(self, img_size: Size) -> None:
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
        cells, images = empty_cells(len(draws), 3, (height, width), self.cell), torch.arange(len(draws))
        cells[images, 0, pick(u[:, 1], height), :, red] = self.contrast
        cells[images, 1, pick(u[:, 2], height), :, green] = self.contrast
        return merge_cells(cells)
