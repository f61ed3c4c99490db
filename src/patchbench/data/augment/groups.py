"""Operations on groups: all images of a batch with the same operation are processed together."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from torchvision.transforms.v2 import functional as v2

Operation = Callable[[UInt8[Tensor, "k c H W"], Float[Tensor, " k"]], UInt8[Tensor, "k c H W"]]
"""Function of images and of the strength of the operation for each image."""


def apply_grouped(
    images: UInt8[Tensor, "b c H W"],
    kinds: Int[Tensor, " b"],
    strengths: Float[Tensor, " b"],
    operations: Sequence[Operation],
) -> UInt8[Tensor, "b c H W"]:
    """Apply operations[kinds[i]] with strengths[i] to image i, nothing if kinds[i] is -1.

    kinds, strengths: tensors on the host.
    """
    order = kinds.argsort(stable=True)
    idle, *counts = torch.bincount(kinds + 1, minlength=len(operations) + 1).tolist()
    if idle == len(images):
        return images
    order = order[idle:]
    indices = order.to(images.device, non_blocking=True)
    groups = images[indices].split(counts)
    strengths_of = strengths[order].to(images.device, non_blocking=True).split(counts)
    done = [
        operation(*arguments)
        for operation, *arguments in zip(operations, groups, strengths_of, strict=True)
        if len(arguments[0])
    ]
    return images.index_copy(0, indices, torch.cat(done))


def brightness(images: UInt8[Tensor, "k c H W"], factors: Float[Tensor, " k"]) -> UInt8[Tensor, "k c H W"]:
    return blend(torch.zeros_like(images), images, factors)


def contrast(images: UInt8[Tensor, "k c H W"], factors: Float[Tensor, " k"]) -> UInt8[Tensor, "k c H W"]:
    return blend(v2.adjust_contrast(images, 0.0), images, factors)


def saturation(images: UInt8[Tensor, "k c H W"], factors: Float[Tensor, " k"]) -> UInt8[Tensor, "k c H W"]:
    return blend(v2.adjust_saturation(images, 0.0), images, factors)


def sharpness(images: UInt8[Tensor, "k c H W"], factors: Float[Tensor, " k"]) -> UInt8[Tensor, "k c H W"]:
    return blend(smooth_image(images), images, factors)


def smooth_image(images: UInt8[Tensor, "k c H W"]) -> UInt8[Tensor, "k c H W"]:
    """Apply Pillow's SMOOTH filter like torchvision, but without copying the kernel from the host, which would wait."""
    kernel = torch.full((images.shape[1], 1, 3, 3), 1 / 13, device=images.device)
    kernel[:, :, 1, 1] = 5 / 13
    smooth = images.clone()
    inner = F.conv2d(images.float(), kernel, groups=images.shape[1]).round_().clamp_(0, 255)
    smooth[..., 1:-1, 1:-1] = inner.to(torch.uint8)
    return smooth


def solarize(images: UInt8[Tensor, "k c H W"], thresholds: Float[Tensor, " k"]) -> UInt8[Tensor, "k c H W"]:
    return torch.where(images >= thresholds[:, None, None, None], 255 - images, images)


def blend(
    degenerate: UInt8[Tensor, "k c H W"], images: UInt8[Tensor, "k c H W"], factors: Float[Tensor, " k"]
) -> UInt8[Tensor, "k c H W"]:
    """Blend degenerate images (factor 0) with the images (factor 1); factors above 1 extrapolate (Haeberli, 1994).

    Values are rounded down as in Pillow.
    """
    return torch.lerp(degenerate.float(), images.float(), factors[:, None, None, None]).clamp_(0, 255).to(torch.uint8)
