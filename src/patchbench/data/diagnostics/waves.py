"""Scenes of frequency: a grating with one of four orientations, and stripes of one pixel."""

import math

import torch
from jaxtyping import Float, Int
from scipy.stats import norm
from torch import Tensor

from patchbench.checks import Size, positive, spell
from patchbench.data.diagnostics.canvas import check_contrast, noise_of_mean, pick
from patchbench.data.draws import Purpose, uniform


class Texture:
    """Which of four orientations has the sine grating, of any phase? Position is useless: the negative control.

    ceiling: accuracy of an observer who knows the phase that each grating would have; gratings count as orthogonal.

    tests/test_shortcuts.py: the sum, minimum, maximum or energy of each patch gives chance accuracy; one random
    projection gives at most 55 %, and a bag of patches at most 86 %, as intended. noise_chans: see `Motif`.
    """

    num_classes = 4
    mirrors = False
    chance = 0.25

    def __init__(self, *, wavelength: float, contrast: float, noise: float, noise_chans: int) -> None:
        check_contrast(contrast, noise)
        positive("data.scene.wavelength", wavelength)
        self.wavelength, self.contrast, self.noise, self.noise_chans = wavelength, float(contrast), noise, noise_chans
        self.noise_of_mean = noise_of_mean(noise, noise_chans)

    def check_size(self, img_size: Size) -> None:
        if min(img_size) < 2 * self.wavelength:
            least = math.ceil(2 * self.wavelength)
            raise ValueError(
                f"img_size={spell(img_size)} must hold two waves of data.scene.wavelength={self.wavelength}: "
                f"use img_size={least} or more"
            )

    def ceiling(self, img_size: Size) -> float:
        distance = self.contrast / self.noise_of_mean * (img_size[0] * img_size[1] / 2) ** 0.5
        return norm.expect(lambda x: norm.cdf(x + distance) ** 3)

    def draw(
        self, draws: Int[Tensor, " b"], labels: Int[Tensor, " b"], img_size: Size
    ) -> Float[Tensor, "b 1 {img_size[0]} {img_size[1]}"]:
        phase = uniform(draws, 1, Purpose.SCENE)[..., None] * 2 * math.pi
        angle = torch.arange(4) * math.pi / 4
        frequency = torch.stack([angle.sin(), angle.cos()], 1) * 2 * math.pi / self.wavelength
        y, x = (torch.arange(n, dtype=torch.float32) for n in img_size)
        along = frequency[labels, :1, None] * y[:, None] + frequency[labels, 1:, None] * x
        return (along + phase).sin()[:, None] * self.contrast


class Stripes:
    """Are stripes of one pixel, of either sign, vertical (0) or horizontal (1)?

    The set isolates the highest frequency of an image: does the embedding keep it? ceiling: exact; Bayes' rule compares
    the magnitudes of the two alternating sums.

    tests/test_shortcuts.py: the sum, minimum, maximum or energy of each patch gives chance accuracy; one random
    projection gives at most 64 %, because it contains a part of the two waves. noise_chans: see `Motif`; with 3, bases
    with an equal number of coefficients have equal rank, while with 1 a cosine basis has the same coefficients in each
    channel.
    """

    num_classes = 2
    mirrors = True
    chance = 0.5

    def __init__(self, *, contrast: float, noise: float, noise_chans: int) -> None:
        check_contrast(contrast, noise)
        self.contrast, self.noise, self.noise_chans = float(contrast), noise, noise_chans
        self.noise_of_mean = noise_of_mean(noise, noise_chans)

    def check_size(self, img_size: Size) -> None:
        if img_size[0] % 2 or img_size[1] % 2:
            raise ValueError(
                f"img_size={spell(img_size)} must be even, or one colour of stripes covers more than the other: "
                f"use img_size={spell((img_size[0] + img_size[0] % 2, img_size[1] + img_size[1] % 2))}"
            )

    def ceiling(self, img_size: Size) -> float:
        distance = self.contrast / self.noise_of_mean * (img_size[0] * img_size[1] / 2) ** 0.5
        return float(norm.cdf(distance) ** 2 + norm.cdf(-distance) ** 2)

    def draw(
        self, draws: Int[Tensor, " b"], labels: Int[Tensor, " b"], img_size: Size
    ) -> Float[Tensor, "b 1 {img_size[0]} {img_size[1]}"]:
        sign = pick(uniform(draws, 1, Purpose.SCENE), 2) * 2 - 1
        down, across = (1 - 2 * (torch.arange(n) % 2).float() for n in (img_size[1], img_size[0]))
        both = torch.stack([down.expand(img_size), across[:, None].expand(img_size)])
        return (both[labels] * sign[..., None])[:, None] * self.contrast
