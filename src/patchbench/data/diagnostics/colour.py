"""Scenes of colour: red and green that go together or against each other; two hues, equally bright."""

import torch
from jaxtyping import Float, Int
from scipy.stats import binom, f
from torch import Tensor

from patchbench.checks import Size
from patchbench.data.diagnostics.canvas import grid, visible
from patchbench.data.draws import Purpose, normal, uniform

HUE = (15.0, -9.0, 7.0)  # the shortest whole colour of no luminance: 0.299 R + 0.587 G + 0.114 B = 0 (ITU-R BT.601)


class CorrelatedChannels:
    """Cell by cell, does green follow red (1) or oppose it (0)? Blue follows nothing.

    Each channel alone is the same in both classes. ceiling: exact, Bayes' rule takes the sign of the sum, over cells,
    of red times green.

    tests/test_shortcuts.py: one channel tells nothing, nor does the mean image. The sum of each patch tells a part, as
    it mixes red and green, which is the question. The noise of the channels is independent: a patch has rank 3 P^2.
    """

    num_classes = 2
    mirrors = True
    chance = 0.5
    noise_chans = 3

    def __init__(self, *, cell: int, contrast: float, noise: float) -> None:
        visible(2 * contrast, noise)
        self.cell, self.contrast, self.noise = cell, float(contrast), noise

    def fits(self, img_size: Size) -> None:
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
    """Which of two hues have most pixels? Both are of one luminance, to the last bit, and only luminance has noise.

    majority: share of the pixels that have the hue of the label. ceiling: exact, Bayes' rule counts pixels.

    tests/test_shortcuts.py: luminance tells nothing. The mean colour of the image tells all: neither place nor order
    matters. The channels are sums of hue and noise: a patch has rank 2 P^2.
    """

    num_classes = 2
    mirrors = True
    chance = 0.5
    noise_chans = 1

    def __init__(self, *, majority: float, noise: float) -> None:
        visible(max(HUE), noise)
        if not 0.5 < majority <= 1:
            raise ValueError(f"data.scene.majority={majority} must be a share above 0.5, such as 0.55")
        self.majority, self.noise = majority, noise

    def fits(self, img_size: Size) -> None:
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
