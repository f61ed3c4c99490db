"""Scenes of colour: red and green with positive or negative correlation; two hues of equal luminance."""

import torch
from jaxtyping import Float, Int
from scipy.stats import binom, f
from torch import Tensor

from patchbench.checks import Size
from patchbench.data.diagnostics.canvas import check_contrast, grid
from patchbench.data.draws import Purpose, normal, uniform

HUE = (15.0, -9.0, 7.0)  # smallest whole numbers with 0.299 R + 0.587 G + 0.114 B = 0, no luminance (ITU-R BT.601)


class CorrelatedChannels:
    """Is green equal to red in each cell (1), or its opposite (0)? Blue is independent of both.

    Each single channel has the same distribution in both classes. ceiling: exact; Bayes' rule takes the sign of the sum
    over cells of red times green.

    tests/test_shortcuts.py: a single channel or the mean image gives chance accuracy. The sum of each patch gives more,
    because it mixes red and green. The noise of the channels is independent, so a patch has rank 3 P^2.
    """

    num_classes = 2
    mirrors = True
    chance = 0.5
    noise_chans = 3

    def __init__(self, *, cell: int, contrast: float, noise: float) -> None:
        check_contrast(2 * contrast, noise)
        self.cell, self.contrast, self.noise = cell, float(contrast), noise

    def check_size(self, img_size: Size) -> None:
        grid(img_size, self.cell)

    def ceiling(self, img_size: Size) -> float:
        cells = img_size[0] * img_size[1] / self.cell**2
        correlation = self.contrast**2 / (self.contrast**2 + self.noise**2 / self.cell**2)
        return float(f.sf((1 - correlation) / (1 + correlation), cells, cells))

    def draw(
        self, draws: Int[Tensor, " b"], labels: Int[Tensor, " b"], img_size: Size
    ) -> Float[Tensor, "b 3 {img_size[0]} {img_size[1]}"]:
        height, width = grid(img_size, self.cell)
        red, blue = normal(draws, 2 * height * width, Purpose.SCENE).view(-1, 2, height, width).unbind(1)
        values = torch.stack([red, red * (2 * labels - 1)[:, None, None], blue], 1) * self.contrast
        return values.repeat_interleave(self.cell, 2).repeat_interleave(self.cell, 3)


class Isoluminant:
    """Which of two hues do most pixels have? Both hues have exactly the same luminance, and only luminance has noise.

    majority: share of the pixels that have the hue of the label. ceiling: exact; Bayes' rule counts pixels.

    tests/test_shortcuts.py: luminance gives chance accuracy. The mean colour of the image is enough: places and order
    of pixels do not matter. Each channel is a sum of hue and noise, so a patch has rank 2 P^2.
    """

    num_classes = 2
    mirrors = True
    chance = 0.5
    noise_chans = 1

    def __init__(self, *, majority: float, noise: float) -> None:
        check_contrast(max(HUE), noise)
        if not 0.5 < majority <= 1:
            raise ValueError(f"data.scene.majority={majority} must be a share above 0.5, such as 0.55")
        self.majority, self.noise = majority, noise

    def check_size(self, img_size: Size) -> None:
        pass

    def ceiling(self, img_size: Size) -> float:
        pixels = img_size[0] * img_size[1]
        tie = binom.pmf(pixels / 2, pixels, self.majority)
        return float(binom.sf(pixels // 2, pixels, self.majority) + tie / 2)

    def draw(
        self, draws: Int[Tensor, " b"], labels: Int[Tensor, " b"], img_size: Size
    ) -> Float[Tensor, "b 3 {img_size[0]} {img_size[1]}"]:
        most = uniform(draws, img_size[0] * img_size[1], Purpose.SCENE) < self.majority
        sign = torch.where(most.view(-1, 1, *img_size), 1.0, -1.0) * (2 * labels - 1)[:, None, None, None]
        return sign * torch.tensor(HUE)[:, None, None]
