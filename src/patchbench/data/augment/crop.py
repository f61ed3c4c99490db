"""Crops: a part of the image of any size (Szegedy et al., 2015), or the whole image, shifted (He et al., 2016)."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from patchbench.checks import Size, interval
from patchbench.data.draws import Purpose, uniform

TRIALS = 10  # as torchvision and timm have it
FILLS = ("zeros", "reflect")


class RandomResizedCrop:
    """A part of the image, scaled to the size of the whole: torchvision's RandomResizedCrop.

    scale: smallest and largest area, as a share of the image. ratio: smallest and largest ratio of width to height,
    drawn evenly on a logarithmic axis.
    """

    def __init__(self, *, scale: Sequence[float], ratio: Sequence[float]) -> None:
        self.scale = interval("augment.crop.scale", scale, most=1.0)
        self.ratio = interval("augment.crop.ratio", ratio)

    def of_file(self, draws: Int[Tensor, " b"], sizes: Int[Tensor, "b 2"], img_size: Size) -> Int[Tensor, "b 4"]:
        """Boxes inside images of any size."""
        u = uniform(draws, 2 * TRIALS + 2, Purpose.CROP)
        trials = rectangles(u[:, :TRIALS], u[:, TRIALS:-2], sizes, self.scale, self.ratio)
        fits = (trials > 0).all(2) & (trials <= sizes[:, None]).all(2)
        # No trial fits in extreme shapes: then the middle, as large as the ratios allow.
        tall, wide = sizes.T
        middle = torch.stack([torch.minimum(tall, (wide / self.ratio[0]).round().long()), wide], 1)
        middle[:, 1] = torch.minimum(wide, (tall * self.ratio[1]).round().long())
        first = torch.where(fits.any(1)[:, None], first_of(trials, fits), middle)
        free = sizes - first
        corner = torch.where(fits.any(1)[:, None], (u[:, -2:] * (free + 1)).long(), free // 2)
        return torch.cat([corner, first], 1)

    def __call__(
        self, images: UInt8[Tensor, "b c H W"], draws: Int[Tensor, " b"], flips: Bool[Tensor, " b"]
    ) -> UInt8[Tensor, "b c H W"]:
        """Crop images that have the network's size already; mirror those in `flips`."""
        sizes = torch.tensor(images.shape[2:]).expand(len(images), 2)
        return cut(images, self.of_file(draws, sizes, (images.shape[2], images.shape[3])), flips)


class RandomShift:
    """The whole image, shifted by up to `pad` of each side; the room is filled with zeros, or by reflection.

    A larger image is cropped instead: a box of the network's shape, smaller than the largest one by the same share.
    """

    def __init__(self, *, pad: float, fill: str) -> None:
        if not 0 <= pad <= 0.5:
            raise ValueError(f"augment.crop.pad={pad} must be between 0 and 0.5: a share of the image's side")
        if fill not in FILLS:
            raise ValueError(f"augment.crop.fill={fill} is unknown: use {' or '.join(FILLS)}")
        self.pad, self.fill = pad, fill

    def of_file(self, draws: Int[Tensor, " b"], sizes: Int[Tensor, "b 2"], img_size: Size) -> Int[Tensor, "b 4"]:
        """Boxes inside images of any size."""
        shape = torch.tensor(img_size)
        scale = (sizes / shape).amin(1, keepdim=True) / (1 + 2 * self.pad)
        box = (shape * scale).round().long().clamp_(min=1)
        corner = (uniform(draws, 2, Purpose.CROP) * (sizes - box + 1)).long()
        return torch.cat([corner, box], 1)

    def __call__(
        self, images: UInt8[Tensor, "b c H W"], draws: Int[Tensor, " b"], flips: Bool[Tensor, " b"]
    ) -> UInt8[Tensor, "b c H W"]:
        """Crop images that have the network's size already; mirror those in `flips`."""
        size = torch.tensor(images.shape[2:])
        most = (size * self.pad).round().long()
        shift = (uniform(draws, 2, Purpose.CROP) * (2 * most + 1)).long() - most
        return moved(images, shift, flips, self.fill)


def rectangles(
    areas: Float[Tensor, "b t"],
    ratios: Float[Tensor, "b t"],
    sizes: Int[Tensor, "b 2"],
    scale: tuple[float, float],
    ratio: tuple[float, float],
) -> Int[Tensor, "b t 2"]:
    """Heights and widths from numbers in 0 ... 1: areas evenly, ratios evenly in their logarithm."""
    area = sizes.prod(1, keepdim=True) * (scale[0] + (scale[1] - scale[0]) * areas)
    low, high = math.log(ratio[0]), math.log(ratio[1])
    wide_to_tall = torch.exp(low + (high - low) * ratios)
    return torch.stack([torch.sqrt(area / wide_to_tall), torch.sqrt(area * wide_to_tall)], 2).round().long()


def first_of(trials: Int[Tensor, "b t 2"], fits: Bool[Tensor, "b t"]) -> Int[Tensor, "b 2"]:
    """First trial that fits; the first of all if none does."""
    return trials[torch.arange(len(trials)), fits.int().argmax(1)]


def moved(
    images: UInt8[Tensor, "b c H W"], shift: Int[Tensor, "b 2"], flips: Bool[Tensor, " b"], fill: str
) -> UInt8[Tensor, "b c H W"]:
    """Each image seen from `shift` (down, right) on; mirrored if in `flips`."""
    b, c, tall, wide = images.shape
    shift, flips = (t.to(images.device, non_blocking=True) for t in (shift, flips))  # small: CUDA does not wait
    rows = torch.arange(tall, device=images.device) + shift[:, :1]
    cols = torch.arange(wide, device=images.device) + shift[:, 1:]
    cols = torch.where(flips[:, None], cols.flip(1), cols)
    lines = torch.arange(b * c, device=images.device).view(b, c, 1) * tall + mirrored(rows, tall)[:, None]
    taken = images.reshape(-1, wide).index_select(0, lines.flatten()).view(b, c, tall, wide)
    taken = taken.gather(3, mirrored(cols, wide)[:, None, None].expand(b, c, tall, wide))
    if fill == "zeros":
        inside = ((rows >= 0) & (rows < tall))[:, None, :, None] & ((cols >= 0) & (cols < wide))[:, None, None]
        taken = taken * inside
    return taken


def mirrored(places: Int[Tensor, "b n"], count: int) -> Int[Tensor, "b n"]:
    """Places within 0 ... count - 1; those beyond the first or the last are reflected."""
    last = count - 1
    return (last - (last - places.abs()).abs()).clamp(min=0)


def cut(
    images: UInt8[Tensor, "b c H W"], boxes: Int[Tensor, "b 4"], flips: Bool[Tensor, " b"]
) -> UInt8[Tensor, "b c H W"]:
    """Each image's box (top, left, height, width), scaled to the size of the image; mirrored if in `flips`."""
    size = torch.tensor(images.shape[2:])
    corner, box = boxes[:, :2], boxes[:, 2:]
    scale, middle = box / size, (2 * corner + box) / size - 1
    matrices = torch.zeros(len(images), 2, 3)
    matrices[:, 0, 0] = scale[:, 1] * torch.where(flips, -1.0, 1.0)
    matrices[:, 1, 1] = scale[:, 0]
    matrices[:, :, 2] = middle.flip(1)
    return warped(images.float(), matrices, "border").round_().to(torch.uint8)


def warped(
    images: Float[Tensor, "b c H W"], matrices: Float[Tensor, "b 2 3"], padding: str
) -> Float[Tensor, "b c H W"]:
    """Each image through its own affine map: from (x, y, 1) in the result to (x, y) in the image, in -1 ... 1."""
    matrices = matrices.to(images.device, non_blocking=True)
    # torch's affine_grid computes the same as a product of matrices: on a CPU it takes longer than the sampling.
    y, x = ((torch.arange(n, device=images.device) * 2 + 1) / n - 1 for n in images.shape[2:])
    along_x, along_y, constant = matrices[:, :, None, None].unbind(-1)
    grid = along_x * x + along_y * y[:, None] + constant
    return F.grid_sample(images, grid.permute(0, 2, 3, 1), mode="bilinear", padding_mode=padding, align_corners=False)
