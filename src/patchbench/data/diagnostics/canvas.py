"""Tools to draw scenes: a grid of cells, tiles that fill a cell, random choices."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from patchbench.checks import Size, spell

GREY = 128  # mean grey level of every scene


def check_contrast(contrast: float, noise: float, knob: str = "contrast") -> None:
    """Raise ValueError if contrast plus four standard deviations of the noise exceed the 256 grey levels."""
    if not (contrast > 0 and noise > 0):
        raise ValueError(f"data.scene.{knob}={contrast} and data.scene.noise={noise} must be numbers above 0")
    if contrast + 4 * noise > 127:
        raise ValueError(
            f"data.scene.{knob}={contrast} and data.scene.noise={noise} would be clipped to 0 ... 255: "
            f"{knob} + 4 * noise must not exceed 127"
        )


def noise_of_mean(noise: float, noise_chans: int) -> float:
    """Return the standard deviation of the mean over the three channels. ValueError unless noise_chans is 1 or 3."""
    if noise_chans not in (1, 3):
        raise ValueError(
            f"data.scene.noise_chans={noise_chans} must be 1, the same noise in all three channels, or 3, independent"
        )
    return noise / noise_chans**0.5


def grid(img_size: Size, cell: int, multiple: Size = (1, 1), at_least: Size = (1, 1)) -> Size:
    """Return the numbers of rows and columns of cells.

    ValueError unless the image consists of whole cells, and both numbers are multiples of `multiple` and at least
    `at_least`.
    """
    if cell < 2 or cell % 2:
        raise ValueError(f"data.scene.cell={cell} must be an even number of pixels, such as 4")
    steps = cell * multiple[0], cell * multiple[1]
    least = [max(step, cell * n) for step, n in zip(steps, at_least, strict=True)]
    if any(n % step or n < low for n, step, low in zip(img_size, steps, least, strict=True)):
        near = [max(low, n // step * step) for n, step, low in zip(img_size, steps, least, strict=True)]
        raise ValueError(
            f"img_size={spell(img_size)} does not fit a scene with data.scene.cell={cell}: use "
            f"multiples of {spell((steps[0], steps[1]))} from {spell((least[0], least[1]))} on, "
            f"such as img_size={spell((near[0], near[1]))}"
        )
    return img_size[0] // cell, img_size[1] // cell


def pick(uniform: Float[Tensor, "*n"], count: int) -> Int[Tensor, "*n"]:
    """Map numbers in [0, 1) to whole numbers in 0 ... count-1."""
    return (uniform * count).long()


def empty_cells(count: int, chans: int, grid_size: Size, cell: int) -> Float[Tensor, "b c h y w x"]:
    """Return zeros, to be filled cell by cell with the index [image, channel, row, :, column, :]."""
    return torch.zeros(count, chans, grid_size[0], cell, grid_size[1], cell)


def merge_cells(cells: Float[Tensor, "b c h y w x"]) -> Float[Tensor, "b c H W"]:
    return cells.flatten(4, 5).flatten(2, 3)


def tiles(cell: int) -> Float[Tensor, "4 {cell} {cell}"]:
    """Return four orthogonal patterns of plus and minus 1: plain, split by rows, by columns, and by both."""
    plain, half = torch.ones(cell), torch.ones(cell)
    half[cell // 2 :] = -1
    return torch.stack([plain.outer(plain), half.outer(plain), plain.outer(half), half.outer(half)])
