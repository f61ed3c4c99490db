"""Scenes of relations: the order of four tiles; two distant glyphs, same or different."""

from itertools import permutations

import torch
from jaxtyping import Float, Int
from scipy.stats import norm
from torch import Tensor

from patchbench.checks import Size, one_of
from patchbench.data.diagnostics.canvas import check_contrast, empty_cells, grid, merge_cells, pick, tiles
from patchbench.data.draws import Purpose, uniform


class Arrangement:
    """How are four distinct tiles arranged in a 2x2 block anywhere on the grid?

    The set isolates relative position: each tile is equally often at each corner in both classes. orders: "ring", the
    tiles follow each other clockwise (0) or counter-clockwise (1), and two neighbours reveal the label; "all", an even
    (0) or odd (1) permutation: no two tiles reveal the label, and a network must relate all four at once.
    ceiling: accuracy of an observer who only has to find out whether two given tiles are exchanged.

    tests/test_shortcuts.py: a bag of patches gives chance accuracy; so does one number of each patch in its place: the
    sum, minimum, maximum, energy or a random projection. The channels are equal, so a patch has rank P^2.
    """

    num_classes = 2
    mirrors = False
    chance = 0.5
    noise_chans = 1

    def __init__(self, *, orders: str, cell: int, contrast: float, noise: float) -> None:
        check_contrast(contrast, noise)
        one_of("data.scene.orders", orders, ("ring", "all"))
        self.cell, self.contrast, self.noise = cell, float(contrast), noise
        if orders == "ring":
            ring = torch.tensor([[(start + i) % 4 for i in range(4)] for start in range(4)])
            clockwise = ring[:, [0, 1, 3, 2]]  # in row order: the ring passes the second row from right to left
            self.orders = torch.stack([clockwise, clockwise[:, [0, 2, 1, 3]]])
        else:
            every = torch.tensor(list(permutations(range(4))))
            inversions = sum((every[:, i] > every[:, j]).long() for i in range(4) for j in range(i + 1, 4))
            self.orders = torch.stack([every[inversions % 2 == parity] for parity in range(2)])

    def check_size(self, img_size: Size) -> None:
        grid(img_size, self.cell, at_least=(2, 2))

    def ceiling(self, img_size: Size) -> float:
        return float(norm.cdf(self.cell * self.contrast / self.noise))

    def draw(
        self, draws: Int[Tensor, " b"], labels: Int[Tensor, " b"], img_size: Size
    ) -> Float[Tensor, "b 1 {img_size[0]} {img_size[1]}"]:
        height, width = grid(img_size, self.cell)
        u = uniform(draws, 3, Purpose.SCENE)
        top, left, order = (
            pick(u[:, 0], height - 1),
            pick(u[:, 1], width - 1),
            self.orders[labels, pick(u[:, 2], self.orders.shape[1])],
        )
        cells, images = empty_cells(len(draws), 1, (height, width), self.cell), torch.arange(len(draws))
        for i in range(4):
            cells[images, 0, top + i // 2, :, left + i % 2] = tiles(self.cell)[order[:, i]] * self.contrast
        return merge_cells(cells)


class SameDifferent:
    """Are two glyphs, out of four kinds, with a horizontal distance between them the same (0) or different (1)?

    A network must compare two tokens anywhere in the image; no position is needed. Each kind of glyph is equally
    frequent in both classes. distance: pixels from glyph to glyph; None puts them at the left and the right edge, so
    they are further apart on a larger canvas. ceiling: accuracy of an observer who knows the places, the left glyph,
    and the right glyph if it is different.

    tests/test_shortcuts.py: a linear layer on the average of the patches gives chance accuracy. The sums of the patches
    give at most 75 %: one kind of glyph is plain, and the sums tell how many of the two are plain. The channels are
    equal, so a patch has rank P^2.
    """

    num_classes = 2
    mirrors = True
    chance = 0.5
    noise_chans = 1

    def __init__(self, *, cell: int, distance: int | None, contrast: float, noise: float) -> None:
        check_contrast(contrast, noise)
        if distance is not None and (distance < 1 or distance % cell):
            raise ValueError(
                f"data.scene.distance={distance} must be a multiple of data.scene.cell={cell}, or null for edge to edge"
            )
        self.cell, self.distance, self.contrast, self.noise = cell, distance, float(contrast), noise

    def check_size(self, img_size: Size) -> None:
        grid(img_size, self.cell, at_least=(1, 2 if self.distance is None else self.distance // self.cell + 1))

    def ceiling(self, img_size: Size) -> float:
        return float(norm.cdf(self.cell * self.contrast / self.noise / 2**0.5))

    def draw(
        self, draws: Int[Tensor, " b"], labels: Int[Tensor, " b"], img_size: Size
    ) -> Float[Tensor, "b 1 {img_size[0]} {img_size[1]}"]:
        height, width = grid(img_size, self.cell)
        apart = width - 1 if self.distance is None else self.distance // self.cell
        left = (width - 1 - apart) // 2
        u = uniform(draws, 4, Purpose.SCENE)
        one = pick(u[:, 0], 4)
        other = (one + labels * (1 + pick(u[:, 1], 3))) % 4
        cells, images = empty_cells(len(draws), 1, (height, width), self.cell), torch.arange(len(draws))
        glyphs = tiles(self.cell) * self.contrast
        cells[images, 0, pick(u[:, 2], height), :, left] = glyphs[one]
        cells[images, 0, pick(u[:, 3], height), :, left + apart] = glyphs[other]
        return merge_cells(cells)
