"""A split as pictures in files, rows or archives: decoded, cropped and scaled when they are read."""

import os
import struct
import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Int, UInt8
from PIL import ExifTags, Image, UnidentifiedImageError
from torch import Tensor
from torchvision.transforms import v2

from patchbench.checks import Size
from patchbench.data.bands import (
    MIB,
    Contradiction,
    Picture,
    Ranges,
    bytes_of_coefficients,
    check_bytes,
    levels,
    open_picture,
)
from patchbench.data.source import Crop
from patchbench.machine import printable

Box = tuple[int, int, int, int]  # top, left, height, width
ON_ERROR = ("raise", "skip")
MAX_DECODED = 256  # MiB of the values of a picture: 89 million pixels in colour, of which Pillow warns too

# Exceptions of Pillow's readers at damaged or mislabelled files.
UNREADABLE = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    IndexError,
    KeyError,
    OverflowError,
    TypeError,
    RuntimeError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)


class BadImage(ValueError):
    """An image that does not decode, or is unlike the others, by name.

    A loader's process wraps the message into a traceback; the message alone is taken out again.
    """

    def __init__(self, text: str) -> None:
        super().__init__(printable(text.rpartition(f"{BadImage.__name__}: ")[2].strip()))


@runtime_checkable
class Album(Protocol):
    """Pictures by number."""

    def __len__(self) -> int: ...

    def open(self, index: int) -> Picture:
        """Open a picture; any exception of UNREADABLE says that it does not decode."""
        ...

    def name(self, index: int) -> str: ...


class Paths:
    """Pictures in files."""

    def __init__(self, paths: Sequence[str | Path]) -> None:
        self.paths = [os.fspath(path) for path in paths]

    def __len__(self) -> int:
        return len(self.paths)

    def open(self, index: int) -> Picture:
        return open_picture(self.paths[index], self.paths[index])

    def name(self, index: int) -> str:
        return self.paths[index]


@contextmanager
def opened(album: Album, index: int, max_decoded: int | float) -> Iterator[Picture]:
    """A picture of an album, closed in the end; Pillow's warnings are not shown.

    max_decoded: see `Reading`. It stands in place of Pillow's own limit, which counts pixels and not their bytes.
    """
    before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, ceil(max_decoded * MIB / 2)  # it refuses twice as many
    with warnings.catch_warnings(action="ignore"):
        try:
            picture = album.open(index)
            try:
                yield picture
            finally:
                if isinstance(picture, Image.Image):
                    picture.close()
        except Image.DecompressionBombError as error:
            raise ValueError(
                f"{str(error).partition(' exceeds')[0]} is more than data.max_decoded={max_decoded:g} MiB: scale it "
                "down, or allow more"
            ) from error
        finally:
            Image.MAX_IMAGE_PIXELS = before


@dataclass(frozen=True)
class Reading:
    """Settings for reading pictures.

    grey: the set was found to have one channel, nobody asked for it. ranges: see `bands.scaled`.
    crop_pct: share of the shorter side that the centre crop covers, for images that are read without a crop of
    training. on_error: `raise` stops at the first picture that does not decode and names it. `skip` counts it: in
    training the next picture of the split that decodes takes its place, with its label; elsewhere it is left out, so
    that a batch may be smaller. max_skipped: share of a split that may be skipped; one picture always may.
    max_decoded: MiB that the values of a picture may take once it is decoded; a larger one counts as one that does not
    decode. Reading it takes three times as much for a moment, six times of a WebP.
    """

    img_size: Size
    in_chans: int
    crop_pct: float
    on_error: str
    max_skipped: int | float
    max_decoded: int | float
    grey: bool = False
    ranges: Ranges | None = None


class Pictures:
    """Some pictures of an album. `bad`, shared by the processes that read for a rank, marks those that do not decode.

    split, classes: its name, and those of the classes, for refusals.
    """

    slow = True
    crops = True

    def __init__(
        self,
        album: Album,
        labels: Sequence[int],
        chosen: Sequence[int],
        reading: Reading,
        *,
        split: str,
        classes: Sequence[Any],
    ) -> None:
        self.album, self.reading, self.chosen = album, reading, torch.tensor(chosen)
        self.split, self.classes = split, classes
        self.labels = torch.tensor(labels)[self.chosen]
        self.of_each_class = self.labels.bincount(minlength=len(classes))
        self.bad = torch.zeros(len(chosen), dtype=torch.bool).share_memory_()

    def __len__(self) -> int:
        return len(self.labels)

    def name(self, index: int) -> str:
        return self.album.name(int(self.chosen[index]))

    def read(
        self, indices: Sequence[int], draws: Int[Tensor, " b"] | None = None, crop: Crop | None = None
    ) -> tuple[UInt8[Tensor, "k c H W"], Int[Tensor, " k"]]:
        """BadImage: a picture does not decode and on_error is `raise`, or more do not than may be skipped."""
        images, read = [torch.empty(0, self.reading.in_chans, *self.reading.img_size, dtype=torch.uint8)], []
        for place, index in enumerate(indices):
            draw = None if draws is None else draws[place : place + 1]
            for i in [index] if draw is None else [*range(index, len(self)), *range(index)]:
                if not self.bad[i] and (image := self.decoded(i, draw, crop)) is not None:
                    images.append(image[None])
                    read.append(i)
                    break
        if len(read) < len(indices) and bool(self.bad.all()):  # found by another process, whose refusal comes later
            self.check_skipped(self.bad)
        return torch.cat(images), self.labels[torch.tensor(read, dtype=torch.long)]

    def decoded(self, index: int, draw: Int[Tensor, " 1"] | None, crop: Crop | None) -> UInt8[Tensor, "c H W"] | None:
        try:
            with opened(self.album, int(self.chosen[index]), self.reading.max_decoded) as picture:
                return seen(picture, self.reading, draw, crop)
        except Contradiction as error:
            raise BadImage(f"{self.name(index)} {error}") from None
        except UNREADABLE as error:
            if self.reading.on_error == "skip":
                self.bad[index] = True
                self.check_skipped(self.bad)
                return None
            empty = isinstance(error, UnidentifiedImageError)
            why = "no image, or an empty file" if empty else " ".join(str(error).split()) or type(error).__name__
        raise BadImage(
            f"{self.name(index)} does not decode ({why}): mend or remove it, or set data.on_error=skip to do without "
            "such images"
        )

    def check_skipped(self, bad: Bool[Tensor, " n"]) -> None:
        """BadImage if more pictures are skipped than may be, or all of a class. bad: those that do not decode."""
        skipped = int(bad.sum())
        if skipped > 1 and skipped / len(self) > self.reading.max_skipped:
            raise BadImage(
                f"at least {skipped} of {len(self)} images of {self.split} do not decode ({self.names(bad)}), a larger "
                f"share than data.max_skipped={self.reading.max_skipped:g}: mend or remove them, or allow a larger one"
            )
        lost = (self.labels[bad].bincount(minlength=len(self.classes)) == self.of_each_class) & (self.of_each_class > 0)
        for number in lost.nonzero().flatten().tolist():
            raise BadImage(
                f"none of the {self.of_each_class[number]} images of the class {self.classes[number]} in {self.split} "
                f"decodes ({self.names(bad & (self.labels == number))}), and data.on_error=skip does not do without a "
                "class: mend them, or remove the class"
            )

    def names(self, chosen: Bool[Tensor, " n"]) -> str:
        """Names of the first pictures of a mask."""
        first = [self.name(i) for i in chosen.nonzero().flatten()[:4].tolist()]
        return ", ".join(first[:3]) + ", ..." * (len(first) > 3)


def seen(
    picture: Picture, reading: Reading, draw: Int[Tensor, " 1"] | None, crop: Crop | None
) -> UInt8[Tensor, "c H W"]:
    """Crop and scale a picture for the network: by the crop of training for this draw, or else the centre."""

    def box(size: Size) -> Box:
        if draw is not None and crop is not None:
            return tuple(crop(draw, torch.tensor([size]))[0].tolist())
        return centre(size, reading.img_size, reading.crop_pct)

    def in_levels() -> UInt8[Tensor, "c h w"]:
        return levels(picture, reading.in_chans, reading.ranges, grey=reading.grey, max_decoded=reading.max_decoded)

    if isinstance(picture, Image.Image) and picture.format in ("JPEG", "MPO"):
        # Only these decode at a half, a quarter, an eighth of their size.
        turned = picture.getexif().get(ExifTags.Base.Orientation) in (5, 6, 7, 8)
        width, height = picture.size[::-1] if turned else picture.size
        top, left, box_height, box_width = box((height, width))
        least = ceil(width * reading.img_size[1] / box_width), ceil(height * reading.img_size[0] / box_height)
        check_bytes(bytes_of_coefficients(picture), reading.max_decoded)
        # Whether a picture decodes must not depend on the crop: a small crop of a vast one is taken of a smaller copy.
        values = reading.max_decoded * MIB / len(picture.getbands())
        fits = next((n for n in (1, 2) if ceil(width / n) * ceil(height / n) <= values), 4)
        least = max(1, min(least[0], width // fits)), max(1, min(least[1], height // fits))
        picture.draft(None, least[::-1] if turned else least)
        image = in_levels()
    else:
        image = in_levels()
        height, width = image.shape[1:]
        top, left, box_height, box_width = box((height, width))
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
