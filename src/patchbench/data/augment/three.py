"""3-Augment: an image becomes grey, solarised or blurred (Touvron et al., 2022, "DeiT III")."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from patchbench.checks import interval, share
from patchbench.data.augment import groups
from patchbench.data.draws import Purpose, uniform


class ThreeAugment:
    """Make an image grey, solarise or blur it. prob: probability of a change. blur: range of sigma, in pixels."""

    def __init__(self, *, prob: float, blur: Sequence[float]) -> None:
        self.prob, self.blur = share("augment.three.prob", prob), interval("augment.three.blur", blur)

    def __call__(self, images: UInt8[Tensor, "b c H W"], draws: Int[Tensor, " b"]) -> UInt8[Tensor, "b c H W"]:
        if self.prob == 0:
            return images
        u_apply, u_kind, u_blur = uniform(draws, 3, Purpose.THREE_AUGMENT).T
        kinds = torch.where(u_apply < self.prob, (3 * u_kind).long(), -1)
        low, high = self.blur
        strengths = torch.where(kinds == 0, 0.0, torch.where(kinds == 1, 128.0, low + (high - low) * u_blur))
        return groups.apply_grouped(images, kinds, strengths, (groups.saturation, groups.solarize, gaussian_blur))


def gaussian_blur(images: UInt8[Tensor, "k c H W"], sigmas: Float[Tensor, " k"]) -> UInt8[Tensor, "k c H W"]:
    """Blur each image by a Gaussian with its own standard deviation, in pixels; borders are replicated."""
    radius = 6  # three times the largest usual standard deviation
    offsets = torch.arange(-radius, radius + 1, device=images.device)
    weights = torch.softmax(-((offsets / sigmas[:, None]) ** 2) / 2, 1)[:, :, None, None, None]
    values = images.float()
    for axis in (2, 3):
        size = values.shape[axis]
        edges = (0, 0, radius, radius) if axis == 2 else (radius, radius, 0, 0)
        padded = F.pad(values, edges, mode="replicate")
        values = torch.zeros_like(values)
        for i in range(len(offsets)):
            values.addcmul_(padded.narrow(axis, i, size), weights[:, i])
    return values.round_().to(torch.uint8)
