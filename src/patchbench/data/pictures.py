"""Splits of pictures in files, rows or archives, which are decoded, cropped and scaled when they are read."""

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
    Mismatch,
    Picture,
    Ranges,
    check_bytes,
    coefficient_bytes,
    open_picture,
    to_uint8,
)
from patchbench.data.source import Crop
from patchbench.machine import printable

Box = tuple[int, int, int, int]  # top, left, height, width
ON_ERROR = ("raise", "skip")
MAX_DECODED = 256  # MiB of the values of a picture: 89 million pixels in colour, Pillow's own limit for a warning

# Exceptions that Pillow's readers raise for damaged or mislabelled files.
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
    """Error for an image that does not decode or differs from the others; the message names the image.

    A worker process of a DataLoader wraps the message in a traceback; the constructor extracts the message again.
    """

    def __init__(self, text: str) -> None:
        super().__init__(printable(text.rpartition(f"{BadImage.__name__}: ")[2].strip()))


@runtime_checkable
class Album(Protocol):
    """Numbered pictures."""

    def __len__(self) -> int: ...

    def open(self, index: int) -> Picture:
        """Open a picture. Any exception of UNREADABLE means that the picture does not decode."""
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
def opened_picture(album: Album, index: int, max_decoded: int | float) -> Iterator[Picture]:
    """Open a picture of an album for this block, without Pillow's warnings, and close it at the end.

    max_decoded: see `ReadSettings`. It replaces Pillow's own limit, which counts pixels and not bytes.
    """
    # Pillow refuses images of more than twice this number of pixels.
    before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, ceil(max_decoded * MIB / 2)
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
class ReadSettings:
    """Settings for reading pictures.

    crop_pct: share of the shorter side that the centre crop covers; the centre crop is used without a training crop.
    on_error: `raise` stops at the first picture that does not decode and names it. `skip` counts such pictures: in
    training the next readable picture of the split takes the place, with its own label; in evaluation the picture is
    left out, so a batch may be smaller. max_skipped: share of a split that may be skipped; one picture always may.
    max_decoded: MiB that the values of a decoded picture may take; a larger picture counts as unreadable. Reading
    briefly needs three times this memory, six times for a WebP. grey: the survey found one channel and the user did not
    ask for grey. ranges: see `bands.scale_to_uint8`.
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
    """A split of some pictures of an album.

    album_indices: numbers of the pictures in the album. labels: of all pictures of the album. split, classes: names for
    error messages. `bad`, in memory shared by the worker processes of a rank, marks pictures that do not decode.
    """

    slow = True
    crops = True

    def __init__(
        self,
        album: Album,
        labels: Sequence[int],
        chosen: Sequence[int],
        settings: ReadSettings,
        *,
        split: str,
        classes: Sequence[Any],
    ) -> None:
        self.album, self.settings, self.album_indices = album, settings, torch.tensor(chosen)
        self.split, self.classes = split, classes
        self.labels = torch.tensor(labels)[self.album_indices]
        self.class_sizes = self.labels.bincount(minlength=len(classes))
        self.bad = torch.zeros(len(chosen), dtype=torch.bool).share_memory_()

    def __len__(self) -> int:
        return len(self.labels)

    def name(self, index: int) -> str:
        return self.album.name(int(self.album_indices[index]))

    def read(
        self, indices: Sequence[int], draws: Int[Tensor, " b"] | None = None, crop: Crop | None = None
    ) -> tuple[UInt8[Tensor, "k c H W"], Int[Tensor, " k"]]:
        """Read pictures and their labels; see `Split.read`.

        BadImage if a picture does not decode and on_error is `raise`, or if more pictures are skipped than allowed.
        """
        images = [torch.empty(0, self.settings.in_chans, *self.settings.img_size, dtype=torch.uint8)]
        read_indices: list[int] = []
        for position, index in enumerate(indices):
            draw = None if draws is None else draws[position : position + 1]
            for i in [index] if draw is None else [*range(index, len(self)), *range(index)]:
                if not self.bad[i] and (image := self.read_one(i, draw, crop)) is not None:
                    images.append(image[None])
                    read_indices.append(i)
                    break
        if len(read_indices) < len(indices) and bool(self.bad.all()):  # another process found the last bad one
            self.check_skipped(self.bad)
        return torch.cat(images), self.labels[torch.tensor(read_indices, dtype=torch.long)]

    def read_one(self, index: int, draw: Int[Tensor, " 1"] | None, crop: Crop | None) -> UInt8[Tensor, "c H W"] | None:
        try:
            with opened_picture(self.album, int(self.album_indices[index]), self.settings.max_decoded) as picture:
                return crop_and_scale(picture, self.settings, draw, crop)
        except Mismatch as error:
            raise BadImage(f"{self.name(index)} {error}") from None
        except UNREADABLE as error:
            if self.settings.on_error == "skip":
                self.bad[index] = True
                self.check_skipped(self.bad)
                return None
            empty = isinstance(error, UnidentifiedImageError)
            why = "no image, or an empty file" if empty else " ".join(str(error).split()) or type(error).__name__
        raise BadImage(
            f"{self.name(index)} does not decode ({why}): mend or remove it, or set data.on_error=skip to leave out "
            "such images"
        )

    def check_skipped(self, bad: Bool[Tensor, " n"]) -> None:
        """Raise BadImage if more pictures are skipped than allowed, or all pictures of a class.

        bad: mask of the pictures that do not decode.
        """
        skipped = int(bad.sum())
        if skipped > 1 and skipped / len(self) > self.settings.max_skipped:
            raise BadImage(
                f"at least {skipped} of {len(self)} images of {self.split} do not decode ({self.names(bad)}), a larger "
                f"share than data.max_skipped={self.settings.max_skipped:g}: mend or remove them, or raise the limit"
            )
        lost = (self.labels[bad].bincount(minlength=len(self.classes)) == self.class_sizes) & (self.class_sizes > 0)
        for number in lost.nonzero().flatten().tolist():
            raise BadImage(
                f"none of the {self.class_sizes[number]} images of the class {self.classes[number]} in {self.split} "
                f"decodes ({self.names(bad & (self.labels == number))}), and data.on_error=skip leaves out no whole "
                "class: mend them, or remove the class"
            )

    def names(self, mask: Bool[Tensor, " n"]) -> str:
        """Join the names of the first three pictures of a mask."""
        first = [self.name(i) for i in mask.nonzero().flatten()[:4].tolist()]
        return ", ".join(first[:3]) + ", ..." * (len(first) > 3)


def crop_and_scale(
    picture: Picture, settings: ReadSettings, draw: Int[Tensor, " 1"] | None, crop: Crop | None
) -> UInt8[Tensor, "c H W"]:
    """Decode, crop and scale a picture: with the training crop of this draw, or the centre crop without a draw."""

    def box(size: Size) -> Box:
        if draw is not None and crop is not None:
            return tuple(crop(draw, torch.tensor([size]))[0].tolist())
        return centre_box(size, settings.img_size, settings.crop_pct)

    def decoded() -> UInt8[Tensor, "c h w"]:
        return to_uint8(
            picture, settings.in_chans, settings.ranges, grey=settings.grey, max_decoded=settings.max_decoded
        )

    if isinstance(picture, Image.Image) and picture.format in ("JPEG", "MPO"):
        # Only JPEG decodes at 1/2, 1/4 or 1/8 of its size.
        rotated = picture.getexif().get(ExifTags.Base.Orientation) in (5, 6, 7, 8)
        width, height = picture.size[::-1] if rotated else picture.size
        top, left, box_height, box_width = box((height, width))
        least = ceil(width * settings.img_size[1] / box_width), ceil(height * settings.img_size[0] / box_height)
        check_bytes(coefficient_bytes(picture), settings.max_decoded)
        # A picture must not fail to decode for some crops only: small crops of a huge picture use a reduced copy.
        most_pixels = settings.max_decoded * MIB / len(picture.getbands())
        divisor = next((n for n in (1, 2) if ceil(width / n) * ceil(height / n) <= most_pixels), 4)
        least = max(1, min(least[0], width // divisor)), max(1, min(least[1], height // divisor))
        picture.draft(None, least[::-1] if rotated else least)
        image = decoded()
    else:
        image = decoded()
        height, width = image.shape[1:]
        top, left, box_height, box_width = box((height, width))
    down, right = image.shape[1] / height, image.shape[2] / width
    rows = slice(y := round(top * down), max(y + 1, round((top + box_height) * down)))
    columns = slice(x := round(left * right), max(x + 1, round((left + box_width) * right)))
    scaled = v2.functional.resize(
        image[:, rows, columns], list(settings.img_size), v2.InterpolationMode.BICUBIC, antialias=True
    )
    return scaled.contiguous()


def centre_box(image_size: Size, img_size: Size, crop_pct: float) -> Box:
    """Return the centred box with the aspect ratio of `img_size`.

    It covers the share `crop_pct` of one side of the image, and at most this share of the other side.
    """
    scale = max(crop / crop_pct / side for crop, side in zip(img_size, image_size, strict=True))
    height, width = (min(side, max(1, round(crop / scale))) for crop, side in zip(img_size, image_size, strict=True))
    return (image_size[0] - height) // 2, (image_size[1] - width) // 2, height, width
