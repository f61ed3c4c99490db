"""Photographs to look at: two that come with scikit-learn, or any picture in a file."""

from pathlib import Path

import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from patchbench.checks import Size
from patchbench.data.pictures import UNREADABLE, Reading, seen

PHOTOGRAPHS = ("china", "flower")  # of scikit-learn, which names authors and licence (CC BY) beside the files


def photograph(name: str, img_size: Size, in_chans: int) -> UInt8[Tensor, "c H W"]:
    """Read the middle of a picture, scaled to `img_size`. name: one of PHOTOGRAPHS, or a file.

    ValueError, worded for the option `image`, if there is no such picture, or none of so many channels.
    """
    if in_chans not in (1, 3):
        raise ValueError(f"image={name} has 1 or 3 channels, but this network reads {in_chans}: use image=0")
    try:
        with opened(name) as file:
            return seen(file, Reading(img_size, in_chans, crop_pct=1.0, on_error="raise"), None, None)
    except FileNotFoundError:
        raise ValueError(
            f"image={name} is no file: use the number of a test image, {' or '.join(PHOTOGRAPHS)}, or a picture's path"
        ) from None
    except UNREADABLE as error:
        raise ValueError(f"image={name} does not decode ({error}): take another picture") from None


def opened(name: str) -> Image.Image:
    if name in PHOTOGRAPHS:
        from sklearn.datasets import load_sample_image

        return Image.fromarray(load_sample_image(f"{name}.jpg"))
    return Image.open(Path(name))


def is_grey(image: UInt8[Tensor, "c H W"]) -> bool:
    """True if an image has several channels, all equal."""
    return len(image) > 1 and bool(torch.equal(image, image[:1].expand_as(image)))
