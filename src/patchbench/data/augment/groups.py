"""Operations that differ from image to image: the images of a batch with the same operation are treated together."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from torchvision.transforms.v2 import functional as v2

Operation = Callable[[UInt8[Tensor, "k c H W"], Float[Tensor, " k"]], UInt8[Tensor, "k c H W"]]
"""Images, and the strength of the operation for each of them."""


def grouped(
    images: UInt8[Tensor, "b c H W"],
    kinds: Int[Tensor, " b"],
    strengths: Float[Tensor, " b"],
    operations: Sequence[Operation],
) -> UInt8[Tensor, "b c H W"]:
    """Operation number kinds[i] on image i; none if that is -1. kinds, strengths: on the host."""
    order = kinds.argsort(stable=True)
    idle, *counts = torch.bincount(kinds + 1, minlength=len(operations) + 1).tolist()
    if idle == len(images):
        return images
    order = order[idle:]
    there = order.to(images.device, non_blocking=True)
    pieces = images[there].split(counts)
    strong = strengths[order].to(images.device, non_blocking=True).split(counts)
    done = [operation(*given) for operation, *given in zip(operations, pieces, strong, strict=True) if len(given[0])]
    return images.index_copy(0, there, torch.cat(done))


def brightness(images: UInt8[Tensor, "k c H W"], factors: Float[Tensor, " k"]) -> UInt8[Tensor, "k c H W"]:
    return blended(torch.zeros_like(images), images, factors)


def contrast(images: UInt8[Tensor, "k c H W"], factors: Float[Tensor, " k"]) -> UInt8[Tensor, "k c H W"]:
    return blended(v2.adjust_contrast(images, 0.0), images, factors)


def saturation(images: UInt8[Tensor, "k c H W"], factors: Float[Tensor, " k"]) -> UInt8[Tensor, "k c H W"]:
    return blended(v2.adjust_saturation(images, 0.0), images, factors)


def sharpness(images: UInt8[Tensor, "k c H W"], factors: Float[Tensor, " k"]) -> UInt8[Tensor, "k c H W"]:
    return blended(smoothed(images), images, factors)


def smoothed(images: UInt8[Tensor, "k c H W"]) -> UInt8[Tensor, "k c H W"]:
    """Pillow's SMOOTH, as torchvision computes it, which copies its kernel to the device and waits for it each time."""
    kernel = torch.full((images.shape[1], 1, 3, 3), 1 / 13, device=images.device)
    kernel[:, :, 1, 1] = 5 / 13
    smooth = images.clone()
    inner = F.conv2d(images.float(), kernel, groups=images.shape[1]).round_().clamp_(0, 255)
    smooth[..., 1:-1, 1:-1] = inner.to(torch.uint8)
    return smooth


def solarize(images: UInt8[Tensor, "k c H W"], thresholds: Float[Tensor, " k"]) -> UInt8[Tensor, "k c H W"]:
    return torch.where(images >= thresholds[:, None, None, None], 255 - images, images)


def blended(
    nothing: UInt8[Tensor, "k c H W"], images: UInt8[Tensor, "k c H W"], factors: Float[Tensor, " k"]
) -> UInt8[Tensor, "k c H W"]:
    """Blend `nothing` (factor 0) with the image (factor 1), and beyond (Haeberli, 1994); rounded down as in Pillow."""
    return torch.lerp(nothing.float(), images.float(), factors[:, None, None, None]).clamp_(0, 255).to(torch.uint8)
