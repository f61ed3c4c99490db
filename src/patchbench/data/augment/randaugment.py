"""RandAugment: a few random operations of about equal strength (Cubuk et al., 2020), in the version of timm.

The operations, their strengths, and the colour of pixels from outside the image are those of timm's
"rand-m9-mstd0.5-inc1"; interpolation is bilinear, while timm chooses bilinear or bicubic at random.
"""

import math
from collections.abc import Sequence
from functools import partial

import torch
from jaxtyping import Float, Int, UInt8
from scipy.special import ndtri
from torch import Tensor
from torchvision.transforms.v2 import functional as v2

from patchbench.checks import share
from patchbench.data.augment import groups
from patchbench.data.augment.crop import warp
from patchbench.data.draws import Purpose, uniform

GEOMETRY = ("Rotate", "ShearX", "ShearY", "TranslateXRel", "TranslateYRel")
COLOURS = ("ColorIncreasing", "ContrastIncreasing", "BrightnessIncreasing", "SharpnessIncreasing")
VALUES = ("AutoContrast", "Equalize", "Invert", "PosterizeIncreasing", "SolarizeIncreasing", "SolarizeAdd")
OPERATIONS = (*GEOMETRY, *VALUES, *COLOURS)


class RandAugment:
    """Apply `num_ops` operations to each image, drawn with replacement, each with probability `prob`.

    The strength of an operation is drawn from a normal distribution with mean `magnitude`, 0 to 10, and standard
    deviation `std`, and clipped to 0 ... 10.
    """

    def __init__(self, *, prob: float, num_ops: int, magnitude: float, std: float) -> None:
        self.prob, self.num_ops = share("augment.randaugment.prob", prob), num_ops
        if num_ops < 1:
            raise ValueError(f"augment.randaugment.num_ops={num_ops} must be at least 1; prob=0.0 does nothing")
        if not 0 <= magnitude <= 10 or std < 0:
            raise ValueError(
                f"augment.randaugment.magnitude={magnitude} must be between 0 and 10, and std={std} not negative"
            )
        self.magnitude, self.std = magnitude, std

    def __call__(
        self, images: UInt8[Tensor, "b c H W"], draws: Int[Tensor, " b"], mean: Sequence[float]
    ) -> UInt8[Tensor, "b c H W"]:
        """Apply the operations. mean: colour of pixels from outside the image, per channel in 0 ... 1."""
        if self.prob == 0:
            return images
        numbers = uniform(draws, 4 * self.num_ops, Purpose.RANDAUGMENT).unflatten(1, (self.num_ops, 4))
        for u_name, u_apply, u_level, u_sign in numbers.permute(1, 2, 0):
            names = (u_name * len(OPERATIONS)).long()
            normal = torch.from_numpy(ndtri(u_level.double().clamp_(min=2.0**-25).numpy())).float()
            levels = (self.magnitude + self.std * normal).clamp_(0, 10) / 10
            signs = torch.where(u_sign < 0.5, -1.0, 1.0)
            images = apply_operations(images, torch.where(u_apply < self.prob, names, -1), levels * signs, mean)
        return images


def apply_operations(
    images: UInt8[Tensor, "b c H W"], names: Int[Tensor, " b"], levels: Float[Tensor, " b"], mean: Sequence[float]
) -> UInt8[Tensor, "b c H W"]:
    """Apply OPERATIONS[names[i]] to image i, nothing for -1. levels: strengths in -1 ... 1; some use the sign."""
    kinds = torch.where(names < 0, -1, (names - len(GEOMETRY) + 1).clamp(min=0))  # all of GEOMETRY is one affine map
    maps = affine_matrices(names, levels, images.shape[2] / images.shape[3])
    strengths = torch.zeros_like(levels)
    size = levels.abs()
    strength = {
        "PosterizeIncreasing": (4 - (4 * size).floor()).clamp(min=1),  # bits kept; timm allows 0, Pillow refuses it
        "SolarizeIncreasing": 256 - (256 * size).floor(),  # threshold
        "SolarizeAdd": (110 * size).floor(),
        **dict.fromkeys(COLOURS, (1 + 0.9 * levels).clamp(min=0.1)),
    }
    for name, value in strength.items():
        strengths = torch.where(names == OPERATIONS.index(name), value, strengths)
    group_maps = maps[kinds == 0]  # in the order of the images of the group
    operations: list[groups.Operation] = [
        partial(geometry, maps=group_maps, mean=mean),
        lambda images, _: v2.autocontrast(images),
        lambda images, _: v2.equalize(images),
        lambda images, _: v2.invert(images),
        posterize,
        groups.solarize,
        solarize_add,
        groups.saturation,
        groups.contrast,
        groups.brightness,
        groups.sharpness,
    ]
    return groups.apply_grouped(images, kinds, strengths, operations)


def affine_matrices(
    names: Int[Tensor, " b"], levels: Float[Tensor, " b"], tall_to_wide: float
) -> Float[Tensor, "b 2 3"]:
    """Return affine maps from the result to the image, in coordinates of -1 ... 1, with Pillow's angles and shears.

    tall_to_wide: height / width of the images.
    """
    angle, shear, shift = (levels * most for most in (math.radians(30), 0.3, 0.45))
    one, zero = torch.ones_like(levels), torch.zeros_like(levels)
    each = {
        "Rotate": (angle.cos(), -angle.sin() * tall_to_wide, zero, angle.sin() / tall_to_wide, angle.cos(), zero),
        "ShearX": (one, shear * tall_to_wide, shear * tall_to_wide, zero, one, zero),  # the first row does not move
        "ShearY": (one, zero, zero, shear / tall_to_wide, one, shear / tall_to_wide),  # the first column does not move
        "TranslateXRel": (one, zero, 2 * shift, zero, one, zero),
        "TranslateYRel": (one, zero, zero, zero, one, 2 * shift),
    }
    table = torch.stack([torch.stack(each[name], 1) for name in GEOMETRY], 1).unflatten(2, (2, 3))
    return table[torch.arange(len(names)), names.clamp(0, len(GEOMETRY) - 1)]


def geometry(
    images: UInt8[Tensor, "k c H W"], _: Float[Tensor, " k"], *, maps: Float[Tensor, "k 2 3"], mean: Sequence[float]
) -> UInt8[Tensor, "k c H W"]:
    outside = torch.tensor(mean).mul_(255).round_().to(images.device, non_blocking=True)[:, None, None]
    return (warp(images - outside, maps, "zeros") + outside).round_().clamp_(0, 255).to(torch.uint8)


def posterize(images: UInt8[Tensor, "k c H W"], bits: Float[Tensor, " k"]) -> UInt8[Tensor, "k c H W"]:
    mask = 256 - 2 ** (8 - bits.long())
    return images & mask.to(torch.uint8)[:, None, None, None]


def solarize_add(images: UInt8[Tensor, "k c H W"], added: Float[Tensor, " k"]) -> UInt8[Tensor, "k c H W"]:
    """Add a constant to values below 128."""
    brighter = (images + added.to(torch.int16)[:, None, None, None]).clamp_(max=255).to(torch.uint8)
    return torch.where(images < 128, brighter, images)
