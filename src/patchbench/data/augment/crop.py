"""Random crops: a part of the image of random size (Szegedy et al., 2015), or a shifted image (He et al., 2016)."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from patchbench.checks import Size, interval
from patchbench.data.draws import Purpose, uniform

TRIALS = 10  # as in torchvision and timm
FILLS = ("zeros", "reflect")


class RandomResizedCrop:
    """Crop a random part of the image and scale it to the size of the image, as torchvision's RandomResizedCrop does.

    scale: smallest and largest area, as a share of the image. ratio: smallest and largest ratio of width to height;
    its logarithm is drawn uniformly.
    """

    def __init__(self, *, scale: Sequence[float], ratio: Sequence[float]) -> None:
        self.scale = interval("augment.crop.scale", scale, most=1.0)
        self.ratio = interval("augment.crop.ratio", ratio)

    def boxes(self, draws: Int[Tensor, " b"], sizes: Int[Tensor, "b 2"], img_size: Size) -> Int[Tensor, "b 4"]:
        """Return crop boxes (top, left, height, width) inside images of these sizes (h, w)."""
        u = uniform(draws, 2 * TRIALS + 2, Purpose.CROP)
        trials = rectangles(u[:, :TRIALS], u[:, TRIALS:-2], sizes, self.scale, self.ratio)
        fits = (trials > 0).all(2) & (trials <= sizes[:, None]).all(2)
        # For extreme shapes no trial fits: then the central part, as large as the ratios allow.
        height, width = sizes.T
        central = torch.stack([torch.minimum(height, (width / self.ratio[0]).round().long()), width], 1)
        central[:, 1] = torch.minimum(width, (height * self.ratio[1]).round().long())
        box = torch.where(fits.any(1)[:, None], first_fitting(trials, fits), central)
        free = sizes - box
        corner = torch.where(fits.any(1)[:, None], (u[:, -2:] * (free + 1)).long(), free // 2)
        return torch.cat([corner, box], 1)

    def __call__(
        self, images: UInt8[Tensor, "b c H W"], draws: Int[Tensor, " b"], flips: Bool[Tensor, " b"]
    ) -> UInt8[Tensor, "b c H W"]:
        """Crop images that already have the size of the network's input; mirror the images in the mask `flips`."""
        sizes = torch.tensor(images.shape[2:]).expand(len(images), 2)
        return crop_boxes(images, self.boxes(draws, sizes, (images.shape[2], images.shape[3])), flips)


class RandomShift:
    """Shift the image by at most `pad`, a share of each side; fill the empty border with zeros or by reflection.

    A larger image is cropped instead: a random box of the aspect ratio of the network's input, 1 + 2 * pad times
    smaller than the largest such box.
    """

    def __init__(self, *, pad: float, fill: str) -> None:
        if not 0 <= pad <= 0.5:
            raise ValueError(f"augment.crop.pad={pad} must be between 0 and 0.5, a share of the side of the image")
        if fill not in FILLS:
            raise ValueError(f"augment.crop.fill={fill} is unknown: use {' or '.join(FILLS)}")
        self.pad, self.fill = pad, fill

    def boxes(self, draws: Int[Tensor, " b"], sizes: Int[Tensor, "b 2"], img_size: Size) -> Int[Tensor, "b 4"]:
        """Return crop boxes (top, left, height, width) inside images of these sizes (h, w)."""
        shape = torch.tensor(img_size)
        scale = (sizes / shape).amin(1, keepdim=True) / (1 + 2 * self.pad)
        box = (shape * scale).round().long().clamp_(min=1)
        corner = (uniform(draws, 2, Purpose.CROP) * (sizes - box + 1)).long()
        return torch.cat([corner, box], 1)

    def __call__(
        self, images: UInt8[Tensor, "b c H W"], draws: Int[Tensor, " b"], flips: Bool[Tensor, " b"]
    ) -> UInt8[Tensor, "b c H W"]:
        """Shift images that already have the size of the network's input; mirror the images in the mask `flips`."""
        size = torch.tensor(images.shape[2:])
        most = (size * self.pad).round().long()
        shift = (uniform(draws, 2, Purpose.CROP) * (2 * most + 1)).long() - most
        return shift_images(images, shift, flips, self.fill)


def rectangles(
    areas: Float[Tensor, "b t"],
    ratios: Float[Tensor, "b t"],
    sizes: Int[Tensor, "b 2"],
    scale: tuple[float, float],
    ratio: tuple[float, float],
) -> Int[Tensor, "b t 2"]:
    """Return heights and widths of `t` rectangles per image, from uniform numbers in 0 ... 1.

    areas: mapped linearly to the area, `scale` times that of the image. ratios: mapped to width / height, linearly in
    the logarithm.
    """
    area = sizes.prod(1, keepdim=True) * (scale[0] + (scale[1] - scale[0]) * areas)
    low, high = math.log(ratio[0]), math.log(ratio[1])
    aspect = torch.exp(low + (high - low) * ratios)
    return torch.stack([torch.sqrt(area / aspect), torch.sqrt(area * aspect)], 2).round().long()


def first_fitting(trials: Int[Tensor, "b t 2"], fits: Bool[Tensor, "b t"]) -> Int[Tensor, "b 2"]:
    """Return the first trial of each image that fits; the first trial if none fits."""
    return trials[torch.arange(len(trials)), fits.int().argmax(1)]


def shift_images(
    images: UInt8[Tensor, "b c H W"], shift: Int[Tensor, "b 2"], flips: Bool[Tensor, " b"], fill: str
) -> UInt8[Tensor, "b c H W"]:
    """Move the origin of each image to `shift` (down, right); mirror the images in the mask `flips`.

    fill: `zeros` or `reflect`, for pixels from outside the image.
    """
    b, c, height, width = images.shape
    shift, flips = (t.to(images.device, non_blocking=True) for t in (shift, flips))  # small, so CUDA does not wait
    rows = torch.arange(height, device=images.device) + shift[:, :1]
    cols = torch.arange(width, device=images.device) + shift[:, 1:]
    cols = torch.where(flips[:, None], cols.flip(1), cols)
    lines = torch.arange(b * c, device=images.device).view(b, c, 1) * height + reflect_indices(rows, height)[:, None]
    shifted = images.reshape(-1, width).index_select(0, lines.flatten()).view(b, c, height, width)
    shifted = shifted.gather(3, reflect_indices(cols, width)[:, None, None].expand(b, c, height, width))
    if fill == "zeros":
        inside = ((rows >= 0) & (rows < height))[:, None, :, None] & ((cols >= 0) & (cols < width))[:, None, None]
        shifted = shifted * inside
    return shifted


def reflect_indices(places: Int[Tensor, "b n"], count: int) -> Int[Tensor, "b n"]:
    """Reflect indices outside 0 ... count - 1 at the first or the last index."""
    last = count - 1
    return (last - (last - places.abs()).abs()).clamp(min=0)


def crop_boxes(
    images: UInt8[Tensor, "b c H W"], boxes: Int[Tensor, "b 4"], flips: Bool[Tensor, " b"]
) -> UInt8[Tensor, "b c H W"]:
    """Scale the box (top, left, height, width) of each image to the size of the image; mirror the images in `flips`."""
    size = torch.tensor(images.shape[2:])
    corner, box = boxes[:, :2], boxes[:, 2:]
    scale, centre = box / size, (2 * corner + box) / size - 1
    matrices = torch.zeros(len(images), 2, 3)
    matrices[:, 0, 0] = scale[:, 1] * torch.where(flips, -1.0, 1.0)
    matrices[:, 1, 1] = scale[:, 0]
    matrices[:, :, 2] = centre.flip(1)
    return warp(images.float(), matrices, "border").round_().to(torch.uint8)


def warp(images: Float[Tensor, "b c H W"], matrices: Float[Tensor, "b 2 3"], padding: str) -> Float[Tensor, "b c H W"]:
    """Warp each image by an affine map from (x, y, 1) in the result to (x, y) in the image, coordinates in -1 ... 1."""
    matrices = matrices.to(images.device, non_blocking=True)
    # The matrix product in torch's affine_grid gives the same grid, but takes longer on a CPU than the sampling.
    y, x = ((torch.arange(n, device=images.device) * 2 + 1) / n - 1 for n in images.shape[2:])
    along_x, along_y, constant = matrices[:, :, None, None].unbind(-1)
    grid = along_x * x + along_y * y[:, None] + constant
    return F.grid_sample(images, grid.permute(0, 2, 3, 1), mode="bilinear", padding_mode=padding, align_corners=False)
