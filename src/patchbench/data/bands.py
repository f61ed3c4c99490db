"""Bands of a picture: how many there are, of how many bits, and how they become 8 bits without losing their content."""

import io
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Shaped, UInt8
from PIL import ExifTags, Image, ImageOps, TiffImagePlugin, UnidentifiedImageError
from torch import Tensor
from torchvision.transforms import v2

logging.getLogger(TiffImagePlugin.__name__).setLevel(logging.CRITICAL)  # what it says of a bad file, we say by name

Picture = Image.Image | np.ndarray
"""An open picture: one of Pillow's, not decoded yet, or an array, H W, H W C or C H W."""

Ranges = Sequence[tuple[float, float]]
"""The values that become black and white, for each band, or once for all."""

DEEP = ("I", "I;16", "I;16L", "I;16B", "I;16N", "F")  # modes of one band of more than 8 bits
GREY = ("1", "L", "LA", "La", *DEEP)
ARRAY = "save it as an array (.npy, H x W x C)"
MIB = 2**20
BYTES = {"I;16": 2, "I;16L": 2, "I;16B": 2, "I;16N": 2, "I": 4, "F": 4}  # of a value, in the modes that have several
ANIMATED = ("GIF", "WEBP", "PNG", "AVIF")
NO_FULL_PAGE = 1 | 4  # bits of the tag NewSubfileType: a smaller copy, a mask


class Contradiction(ValueError):
    """A picture that decodes, and whose content would be lost by reading it as the set is read."""


class Facts(NamedTuple):
    """Facts of a picture, by its header.

    channels: 1 of a grey picture, 3 of one in colour, else its bands. deep: values of more than 8 bits, to be scaled by
    a range. transparent: part of it shows what lies behind it. halved: of 16 bits, of which Pillow decodes the upper 8.
    animated: the first of its frames is the picture.
    """

    channels: int
    deep: bool
    transparent: bool
    halved: bool
    animated: bool


def open_picture(file: str | io.BytesIO, name: str) -> Picture:
    """Open a picture. Any exception of Pillow's readers, and ValueError: it is none that can be read."""
    if name.lower().endswith(".npy"):
        try:
            if isinstance(file, str):
                return np.lib.format.open_memmap(file, mode="r")
            return np.lib.format.read_array(file, allow_pickle=False)
        except OSError:
            raise
        except Exception as error:  # of numpy's and Python's parsers of a damaged header
            raise ValueError(f"no array that numpy reads: {error}") from error
    try:
        return Image.open(file)
    except UnidentifiedImageError as error:
        if (samples := samples_of_tiff(file)) > 1:
            raise ValueError(f"a TIFF of {samples} samples a pixel, which Pillow does not read: {ARRAY}") from error
        raise


def samples_of_tiff(file: str | io.BytesIO) -> int:
    """Samples per pixel by the tags of a TIFF; 0 of any other file."""
    try:
        stream = io.BytesIO(Path(file).read_bytes()) if isinstance(file, str) else file
        stream.seek(0)
        header = stream.read(8)
        if header[:4] not in (b"II*\0", b"MM\0*"):
            return 0
        tags = TiffImagePlugin.ImageFileDirectory_v2(header)
        stream.seek(tags.next)
        tags.load(stream)
        return int(tags.get(TiffImagePlugin.SAMPLESPERPIXEL, 1))
    except Exception:  # of a damaged file: that it does not decode is said by whoever opened it
        return 0


def facts(picture: Picture, wanted: int | None) -> Facts:
    """Facts of a picture. Contradiction if its content does not fit the channels asked for, or those of any picture.

    wanted: the number of channels asked for; None where the picture itself tells.
    """
    if isinstance(picture, np.ndarray):
        return Facts(fitting(len(planes(picture, wanted)), wanted), picture.dtype != np.uint8, False, False, False)
    if (pages := full_pages(picture)) and wanted is None:
        raise Contradiction(
            f"has {len(pages)} pages: set data.channels to their bands together to read them all, as in "
            f"data.channels={len(pages)}, or save the page that is meant"
        )
    if pages:
        bands, deep = 0, False
        for page in pages:
            picture.seek(page)
            bands += stored_bands(picture)
            deep |= picture.mode in DEEP
        picture.seek(0)
        return Facts(fitting(bands, wanted), deep, False, False, False)
    read = stored_bands(picture)
    if (samples := samples_stored(picture)) > read and wanted != 3:
        cure = f"set data.channels=3 to do without the others, or {ARRAY}" if wanted is None else ARRAY
        raise Contradiction(f"has {samples} samples a pixel, of which Pillow reads {read}: {cure}")
    channels = 1 if picture.mode in GREY else 3
    if wanted not in (None, 1, 3):
        channels = fitting(read, wanted)
    transparent = picture.has_transparency_data and wanted in (None, 1, 3)  # elsewhere alpha is a band as others are
    animated = picture.format in ANIMATED and getattr(picture, "n_frames", 1) > 1
    return Facts(channels, picture.mode in DEEP, transparent, halved(picture), animated)


def fitting(bands: int, wanted: int | None) -> int:
    """Bands of a picture of many, or the channels made of them: grey repeats as RGB, RGB has a brightness."""
    if wanted is None or bands == wanted:
        return bands
    if {bands, wanted} == {1, 3}:
        return wanted
    raise Contradiction(f"has {bands} channels, and data.channels={wanted}: give data.channels={bands}, or mend it")


def full_pages(image: Image.Image) -> list[int]:
    """Numbers of the pages of a TIFF, if it has several, without smaller copies and masks.

    Empty for a single page, and for animations, whose first frame is the picture.
    """
    if image.format != "TIFF" or getattr(image, "n_frames", 1) == 1:
        return []
    pages = []
    for page in range(image.n_frames):  # type: ignore[attr-defined]
        image.seek(page)
        kind = image.tag_v2.get(254, 0)  # type: ignore[attr-defined]
        if not (isinstance(kind, int) and kind & NO_FULL_PAGE):
            pages.append(page)
    image.seek(0)
    return pages if len(pages) > 1 else []


def samples_stored(image: Image.Image) -> int:
    """Samples per pixel that a TIFF says it has; 0 of others."""
    stored = image.tag_v2.get(TiffImagePlugin.SAMPLESPERPIXEL, 1) if image.format == "TIFF" else 0  # type: ignore[attr-defined]
    return stored if isinstance(stored, int) else 0


def stored_bands(image: Image.Image) -> int:
    """Bands of a picture as it is stored; a palette is a way to store three."""
    return 3 if image.mode in ("P", "PA") else len(image.getbands())


def stored_values(image: Image.Image) -> Shaped[np.ndarray, "c h w"]:
    """Values of a decoded picture, one band after another."""
    plain = {"1": "L", "P": "RGB", "PA": "RGB"}.get(image.mode)
    values = np.asarray(image.convert(plain) if plain else image)
    return values[None] if values.ndim == 2 else np.moveaxis(values, 2, 0)


def halved(image: Image.Image) -> bool:
    """True of several bands of 16 bits, of which Pillow decodes the upper 8 without a word."""
    arguments: list[Any] = [tile[3] for tile in getattr(image, "tile", [])]
    return image.mode not in DEEP and any(";16" in str(argument) for argument in arguments)


def planes(array: np.ndarray, wanted: int | None) -> Shaped[np.ndarray, "c h w"]:
    """Bands of an array first. Its bands lie along the first or the last axis: along the one that has as many as are
    wanted, else along the shorter one. ValueError if it is no picture.
    """
    if array.dtype.kind not in "uif" or array.ndim not in (2, 3) or 0 in array.shape:
        raise ValueError(
            f"an array of {array.dtype} {list(array.shape)} is no picture of H x W, H x W x C or C x H x W"
        )
    if array.ndim == 2:
        return array[None]
    first, last = array.shape[0], array.shape[2]
    bands_first = first < last if (first == wanted) == (last == wanted) else first == wanted
    return array if bands_first else np.moveaxis(array, 2, 0)


def bytes_decoded(image: Image.Image) -> int:
    """Bytes of the values of a picture, or of the page it shows, once it is decoded; known from its header."""
    return image.width * image.height * stored_bands(image) * BYTES.get(image.mode, 1)


def bytes_of_coefficients(image: Any) -> int:
    """Bytes that a progressive JPEG takes at its full size, at whatever size it is decoded; 0 of other pictures."""
    if not image.info.get("progressive"):
        return 0
    steps = [across * down for _, across, down, _ in image.layer]
    return 2 * image.width * image.height * sum(steps) // max(1, *steps)


def check_bytes(count: int, max_decoded: int | float) -> None:
    """ValueError if a picture takes more bytes than the MiB that are allowed."""
    if count > max_decoded * MIB:
        raise ValueError(
            f"it takes {count / MIB:,.0f} MiB when it is decoded, more than data.max_decoded={max_decoded:g}: scale it "
            "down, or allow more"
        )


def decoded(picture: Picture, wanted: int, max_decoded: int | float) -> Shaped[np.ndarray, "c h w"] | Image.Image:
    """A picture upright and decoded: values of many bands or of more than 8 bits, or grey or colours of 8 bits.

    max_decoded: MiB that its values may take, all pages together. ValueError, before they are read, if they take more.
    """
    if isinstance(picture, np.ndarray):
        bands = planes(picture, wanted)
        check_bytes(picture.nbytes, max_decoded)
        return bands
    facts(picture, wanted)
    pages, count = full_pages(picture), 0
    for page in pages:
        picture.seek(page)
        count += bytes_decoded(picture)
    check_bytes(count or bytes_decoded(picture), max_decoded)
    if pages:
        stack = []
        for page in pages:
            picture.seek(page)
            stack.append(stored_values(upright(picture)))
        if len({(bands.shape[1:], bands.dtype) for bands in stack}) > 1:
            raise Contradiction("has pages of several sizes or kinds, which are no bands of one picture: save one")
        return np.concatenate(stack)
    image = upright(picture)
    if image.mode in DEEP or wanted not in (1, 3):
        return stored_values(image)
    return image


def levels(
    picture: Picture, channels: int, ranges: Ranges | None, *, grey: bool, max_decoded: int | float
) -> UInt8[Tensor, "c h w"]:
    """A picture, upright, in 8 bits.

    ranges: for pictures of more than 8 bits. grey: the set was found to be grey, nobody asked for it, so that colours
    must not be given up. max_decoded: see `decoded`. Contradiction: content would be lost.
    """
    content = decoded(picture, channels, max_decoded)
    if isinstance(content, Image.Image):
        image = opaque(content)
        if grey and image.mode not in GREY and coloured(image):
            raise Contradiction("has colours, and the pictures looked at before are grey: set data.channels=3, or 1")
        mode = "L" if channels == 1 else "RGB"
        return v2.functional.pil_to_tensor(image if image.mode == mode else image.convert(mode))
    fitting(len(content), channels)
    if content.dtype != np.uint8:
        content = scaled(content, ranges)
    pixels = torch.from_numpy(np.ascontiguousarray(content))
    if len(pixels) == channels:
        return pixels
    return v2.functional.rgb_to_grayscale(pixels) if channels == 1 else pixels.expand(channels, -1, -1)


def scaled(values: Shaped[np.ndarray, "c h w"], ranges: Ranges | None) -> UInt8[np.ndarray, "c h w"]:
    """Values of more than 8 bits as levels: the ends of the range, and what lies beyond, are black and white."""
    if ranges is None:
        raise Contradiction(
            f"has values of {values.dtype.newbyteorder('=')}, and the pictures looked at before have 8 bits: save all "
            "alike, or set data.range=[low,high], the values that become black and white"
        )
    if len(ranges) not in (1, len(values)):
        raise Contradiction(f"has {len(values)} bands, and data.range={list(ranges)} is for {len(ranges)}")
    low, high = (np.array([each[end] for each in ranges], np.float32)[:, None, None] for end in (0, 1))
    finite(values)
    unit = (values.astype(np.float32) - low) / np.where(high > low, high - low, 1)
    return np.rint(unit.clip(0, 1) * 255).astype(np.uint8)


def finite(values: np.ndarray) -> np.ndarray:
    """The same values. ValueError if some are no numbers."""
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise ValueError("some values are no finite numbers: fill them in")
    return values


def upright(image: Image.Image) -> Image.Image:
    """First frame, decoded and turned as its EXIF data say."""
    image.load()
    if image.getexif().get(ExifTags.Base.Orientation, 1) == 1:
        return image
    return ImageOps.exif_transpose(image)


def opaque(image: Image.Image) -> Image.Image:
    """A picture without transparency: what is transparent becomes white.

    Alpha of one value all over tells nothing, and may be a mistake of whoever exported it: colours stay as they are.
    """
    if not image.has_transparency_data:
        return image
    image = image.convert("RGBA")
    lowest, highest = image.getchannel("A").getextrema()
    if lowest == highest:
        return image.convert("RGB")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)


def coloured(image: Image.Image) -> bool:
    """True if red, green and blue differ anywhere."""
    red, green, blue = np.moveaxis(np.asarray(image.convert("RGB")), 2, 0)
    return bool((red != green).any() or (green != blue).any())
