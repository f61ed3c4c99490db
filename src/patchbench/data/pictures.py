"""A split as pictures in files, rows or archives: decoded, turned upright, cropped and scaled when they are read."""

import os
import struct
import warnings
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Int, UInt8
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from torchvision.transforms import v2

from patchbench.checks import Size
from patchbench.data.source import Crop

Box = tuple[int, int, int, int]  # top, left, height, width
ON_ERROR = ("raise", "skip")

# Exceptions of Pillow's readers at damaged or mislabelled files.
UNREADABLE = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    IndexError,
    KeyError,
    OverflowError,
    RuntimeError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)


class BadImage(ValueError):
    """An image that does not decode, by name.

    A loader's process wraps the message into a traceback; the message alone is taken out again.
    """

    def __init__(self, text: str) -> None:
        message = text.rpartition(f"{BadImage.__name__}: ")[2].strip()
        super().__init__(message.encode("utf-8", "backslashreplace").decode())  # a file's name need not be text


@runtime_checkable
class Album(Protocol):
    """Pictures by number."""

    def __len__(self) -> int: ...

    def open(self, index: int) -> Image.Image:
        """Open a picture; any exception of UNREADABLE says that it does not decode."""
        ...

    def name(self, index: int) -> str: ...


class Paths:
    """Pictures in files."""

    def __init__(self, paths: Sequence[str | Path]) -> None:
        self.paths = [os.fspath(path) for path in paths]

    def __len__(self) -> int:
        return len(self.paths)

    def open(self, index: int) -> Image.Image:
        return Image.open(self.paths[index])

    def name(self, index: int) -> str:
        return self.paths[index]


@dataclass(frozen=True)
class Reading:
    """Settings for reading pictures.

    crop_pct: share of the shorter side that the centre crop covers, for images that are read without a crop of
    training. on_error: `raise` stops at the first picture that does not decode and names it. `skip` counts it: in
    training the next picture of the split that decodes takes its place, with its label; elsewhere it is left out, so
    that a batch may be smaller.
    """

    img_size: Size
    in_chans: int
    crop_pct: float
    on_error: str


class Pictures:
    """Some pictures of an album. `bad`, shared by all processes that read, marks the pictures that do not decode."""

    slow = True
    crops = True

    def __init__(self, album: Album, labels: Sequence[int], chosen: Sequence[int], reading: Reading) -> None:
        self.album, self.reading, self.chosen = album, reading, torch.tensor(chosen)
        self.labels = torch.tensor(labels)[self.chosen]
        self.bad = torch.zeros(len(chosen), dtype=torch.bool).share_memory_()

    def __len__(self) -> int:
        return len(self.labels)

    def name(self, index: int) -> str:
        return self.album.name(int(self.chosen[index]))

    def read(
        self, indices: Sequence[int], draws: Int[Tensor, " b"] | None = None, crop: Crop | None = None
    ) -> tuple[UInt8[Tensor, "k c H W"], Int[Tensor, " k"]]:
        """BadImage: a picture does not decode and on_error is `raise`, or no picture of the split decodes."""
        images, read = [torch.empty(0, self.reading.in_chans, *self.reading.img_size, dtype=torch.uint8)], []
        for place, index in enumerate(indices):
            draw = None if draws is None else draws[place : place + 1]
            for i in [index] if draw is None else [*range(index, len(self)), *range(index)]:
                if not self.bad[i] and (image := self.decoded(i, draw, crop)) is not None:
                    images.append(image[None])
                    read.append(i)
                    break
        if len(read) < len(indices) and bool(self.bad.all()):
            raise BadImage(f"none of {len(self)} images decodes, {self.name(0)} is the first: mend or replace them")
        return torch.cat(images), self.labels[torch.tensor(read, dtype=torch.long)]

    def decoded(self, index: int, draw: Int[Tensor, " 1"] | None, crop: Crop | None) -> UInt8[Tensor, "c H W"] | None:
        try:
            with warnings.catch_warnings(action="ignore"), self.album.open(int(self.chosen[index])) as file:
                return seen(file, self.reading, draw, crop)
        except UNREADABLE as error:
            if self.reading.on_error == "skip":
                self.bad[index] = True
                return None
            empty = isinstance(error, UnidentifiedImageError)
            why = "no image, or an empty file" if empty else " ".join(str(error).split()) or type(error).__name__
        raise BadImage(
            f"{self.name(index)} does not decode ({why}): mend or remove it, or set data.on_error=skip to do without "
            "such images"
        )


def seen(
    file: Image.Image, reading: Reading, draw: Int[Tensor, " 1"] | None, crop: Crop | None
) -> UInt8[Tensor, "c H W"]:
    """Crop and scale a picture for the network: by the crop of training for this draw, or else the centre."""
    draft = file.format in ("JPEG", "MPO")  # only these decode at a half, a quarter, an eighth of their size
    if not draft:
        file = upright(file)
    turned = file.getexif().get(ExifTags.Base.Orientation) in (5, 6, 7, 8)
    width, height = file.size[::-1] if turned else file.size
    if draw is not None and crop is not None:
        top, left, box_height, box_width = crop(draw, torch.tensor([[height, width]]))[0].tolist()
    else:
        top, left, box_height, box_width = centre((height, width), reading.img_size, reading.crop_pct)
    if draft:
        least = ceil(width * reading.img_size[1] / box_width), ceil(height * reading.img_size[0] / box_height)
        file.draft(None, least[::-1] if turned else least)
        file = upright(file)
    image = v2.functional.pil_to_tensor(flat(file, reading.in_chans))
    down, right = image.shape[1] / height, image.shape[2] / width
    rows = slice(y := round(top * down), max(y + 1, round((top + box_height) * down)))
    columns = slice(x := round(left * right), max(x + 1, round((left + box_width) * right)))
    scaled = v2.functional.resize(
        image[:, rows, columns], list(reading.img_size), v2.InterpolationMode.BICUBIC, antialias=True
    )
    return scaled.contiguous()


def centre(image_size: Size, img_size: Size, crop_pct: float) -> Box:
    """Box in the middle, shaped as `img_size`, that covers `crop_pct` of one side and at most that of the other."""
    scale = max(crop / crop_pct / side for crop, side in zip(img_size, image_size, strict=True))
    height, width = (min(side, max(1, round(crop / scale))) for crop, side in zip(img_size, image_size, strict=True))
    return (image_size[0] - height) // 2, (image_size[1] - width) // 2, height, width


def upright(image: Image.Image) -> Image.Image:
    """First frame, decoded and turned as its EXIF data say."""
    image.load()
    if image.getexif().get(ExifTags.Base.Orientation, 1) == 1:
        return image
    return ImageOps.exif_transpose(image)


def flat(image: Image.Image, in_chans: int) -> Image.Image:
    """Grey or RGB of 8 bits; transparent pixels become white. ValueError if pixels have no fixed range."""
    if image.mode.startswith("I;16"):  # Pillow's own conversion turns all above 255 white
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    elif image.mode in ("I", "F"):
        raise ValueError(f"Pillow's mode {image.mode} tells no range of values: save it with 8 or 16 bits")
    elif image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("L" if in_chans == 1 else "RGB")


def channels(album: Album) -> int:
    """Number of channels: 1 if pictures are grey, else 3; by the headers of some, evenly spaced."""
    count = min(32, len(album))
    modes = set()
    for i in range(count):
        try:
            with warnings.catch_warnings(action="ignore"), album.open(i * len(album) // count) as file:
                modes.add(file.mode)
        except UNREADABLE:
            continue  # it is named when it is read
    return 1 if modes and all(mode in ("1", "L", "LA") or mode.startswith("I;16") for mode in modes) else 3
