"""Photographs to look at: from installed packages, with a clear licence, or from any file."""

from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from patchbench.checks import Size
from patchbench.data.pictures import MAX_DECODED, UNREADABLE, ReadSettings, crop_and_scale


class Photograph(NamedTuple):
    """A file in an installed package, and its licence as the package states it."""

    package: str
    path: str
    licence: str


PHOTOGRAPHS = {
    "china": Photograph("sklearn", "datasets/images/china.jpg", "CC BY 2.0, danielbuechele"),
    "flower": Photograph("sklearn", "datasets/images/flower.jpg", "CC BY 2.0, vultilion"),
    "astronaut": Photograph("skimage", "data/astronaut.png", "public domain, NASA"),
    "chelsea": Photograph("skimage", "data/chelsea.png", "CC0, Stefan van der Walt"),
    "coffee": Photograph("skimage", "data/coffee.png", "CC0, Rachel Michetti"),
    "retina": Photograph("skimage", "data/retina.jpg", "CC0, Mikael Häggström"),
    "rocket": Photograph("skimage", "data/rocket.jpg", "public domain, SpaceX"),
}  # not taken from scikit-image: motorcycle, which has no licence, and immunohistochemistry, "no known restrictions"
DISTRIBUTIONS = {"sklearn": "scikit-learn", "skimage": "scikit-image"}  # names for pip


def photograph(name: str, img_size: Size, in_chans: int) -> UInt8[Tensor, "c H W"]:
    """Read the centre of a picture, scaled to `img_size`. name: one of PHOTOGRAPHS, or a path.

    ValueError, worded for the option `image`, if the picture does not exist or decode, or in_chans is not 1 or 3.
    """
    if in_chans not in (1, 3):
        raise ValueError(f"image={name} has 1 or 3 channels, but this network reads {in_chans}: use image=0")
    path = photograph_file(name) if name in PHOTOGRAPHS else Path(name)
    settings = ReadSettings(img_size, in_chans, 1.0, on_error="raise", max_skipped=0.0, max_decoded=MAX_DECODED)
    try:
        with Image.open(path) as picture:
            return crop_and_scale(picture, settings, None, None)
    except FileNotFoundError:
        raise ValueError(
            f"image={name} is no file: use the number of a test image, {', '.join(PHOTOGRAPHS)}, or a path of a picture"
        ) from None
    except UNREADABLE as error:
        raise ValueError(f"image={name} does not decode ({error}): use another picture") from None


def photograph_file(name: str) -> Path:
    """Find the path of one of PHOTOGRAPHS without importing the package. OSError if the package does not contain it."""
    package, path, _ = PHOTOGRAPHS[name]
    spec = find_spec(package)
    for folder in (spec.submodule_search_locations if spec else None) or ():
        if (candidate := Path(folder) / path).is_file():
            return candidate
    raise OSError(
        f"the photograph {name} comes with {DISTRIBUTIONS[package]}, which is not installed or does not contain it: "
        f"pip install -c constraints.txt {DISTRIBUTIONS[package]}"
    )


def is_grey(image: UInt8[Tensor, "c H W"]) -> bool:
    """True if an image has several channels and all are equal."""
    return len(image) > 1 and bool(torch.equal(image, image[:1].expand_as(image)))
