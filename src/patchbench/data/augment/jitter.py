"""Colour jitter: small changes of brightness, contrast and saturation, in random order (Howard, 2013)."""

from jaxtyping import Int, UInt8
from torch import Tensor

from patchbench.data.augment import groups
from patchbench.data.draws import Purpose, uniform


class Jitter:
    """Multiply brightness, contrast and saturation by factors drawn uniformly from 1 - strength ... 1 + strength."""

    def __init__(self, *, strength: float) -> None:
        if not 0 <= strength <= 1:
            raise ValueError(f"augment.jitter.strength={strength} must be between 0 and 1")
        self.strength = strength

    def __call__(self, images: UInt8[Tensor, "b c H W"], draws: Int[Tensor, " b"]) -> UInt8[Tensor, "b c H W"]:
        if self.strength == 0:
            return images
        numbers = uniform(draws, 6, Purpose.JITTER)
        orders = numbers[:, :3].argsort(1)
        factors = 1 + self.strength * (2 * numbers[:, 3:] - 1)
        for kinds, strengths in zip(orders.T, factors.T, strict=True):
            operations = (groups.brightness, groups.contrast, groups.saturation)
            images = groups.apply_grouped(images, kinds, strengths, operations)
        return images
