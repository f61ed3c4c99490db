"""Bands of a picture: their number, their bit depth, and their conversion to 8 bits without loss of content."""

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

logging.getLogger(TiffImagePlugin.__name__).setLevel(logging.CRITICAL)  # our errors name the bad file, Pillow's do not

Picture = Image.Image | np.ndarray
"""An open picture: an image of Pillow, not decoded yet, or an array, H W, H W C or C H W."""

Ranges = Sequence[tuple[float, float]]
"""Values that become black and white: one pair for each band, or one pair for all bands."""

HIGH_DEPTH = ("I", "I;16", "I;16L", "I;16B", "I;16N", "F")  # modes with one band of more than 8 bits
GREY = ("1", "L", "LA", "La", *HIGH_DEPTH)
SAVE_AS_ARRAY = "save it as an array (.npy, H x W x C)"
MIB = 2**20
BYTES_PER_VALUE = {
    "I;16": 2,
    "I;16L": 2,
    "I;16B": 2,
    "I;16N": 2,
    "I": 4,
    "F": 4,
}  # in modes with more than one byte
ANIMATED = ("GIF", "WEBP", "PNG", "AVIF")
COPY_OR_MASK = 1 | 4  # bits of the tag NewSubfileType: a smaller copy, a mask


class Mismatch(ValueError):
    """Error for a picture that decodes, but would lose content with the settings of its data set."""


class PictureInfo(NamedTuple):
    """Properties of a picture, read from its header.

    channels: 1 for grey, 3 for colour, else the number of bands. high_depth: values have more than 8 bits and must be
    scaled by a range. transparent: it has transparent parts. truncated: several bands of 16 bits, of which Pillow
    decodes the upper 8. animated: it has several frames, of which the first is read.
    """

    channels: int
    high_depth: bool
    transparent: bool
    is_truncated: bool
    animated: bool


def open_picture(file: str | io.BytesIO, name: str) -> Picture:
    """Open a picture. ValueError, or any exception of Pillow's readers, if it cannot be read."""
    if name.lower().endswith(".npy"):
        try:
            if isinstance(file, str):
                return np.lib.format.open_memmap(file, mode="r")
            return np.lib.format.read_array(file, allow_pickle=False)
        except OSError:
            raise
        except Exception as error:  # numpy's and Python's parsers raise many kinds for a damaged header
            raise ValueError(f"not an array that numpy can read: {error}") from error
    try:
        return Image.open(file)
    except UnidentifiedImageError as error:
        if (samples := tiff_samples(file)) > 1:
            raise ValueError(
                f"a TIFF of {samples} samples a pixel, which Pillow does not read: {SAVE_AS_ARRAY}"
            ) from error
        raise


def tiff_samples(file: str | io.BytesIO) -> int:
    """Read the number of samples per pixel from the tags of a TIFF file; 0 for any other file."""
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
    except Exception:  # a damaged file; the caller reports that it does not decode
        return 0


def picture_info(picture: Picture, wanted: int | None) -> PictureInfo:
    """Read the properties of a picture. Mismatch if its content does not fit the wanted channels, or cannot be read.

    wanted: number of channels; None takes that of the picture.
    """
    if isinstance(picture, np.ndarray):
        return PictureInfo(
            output_channels(len(move_bands_first(picture, wanted)), wanted),
            picture.dtype != np.uint8,
            False,
            False,
            False,
        )
    if (pages := full_pages(picture)) and wanted is None:
        raise Mismatch(
            f"has {len(pages)} pages: set data.channels to their bands together to read them all, as in "
            f"data.channels={len(pages)}, or save the page that is meant"
        )
    if pages:
        bands, deep = 0, False
        for page in pages:
            picture.seek(page)
            bands += stored_bands(picture)
            deep |= picture.mode in HIGH_DEPTH
        picture.seek(0)
        return PictureInfo(output_channels(bands, wanted), deep, False, False, False)
    read = stored_bands(picture)
    if (samples := samples_per_pixel(picture)) > read and wanted != 3:
        cure = f"set data.channels=3 to do without the others, or {SAVE_AS_ARRAY}" if wanted is None else SAVE_AS_ARRAY
        raise Mismatch(f"has {samples} samples a pixel, of which Pillow reads {read}: {cure}")
    channels = 1 if picture.mode in GREY else 3
    if wanted not in (None, 1, 3):
        channels = output_channels(read, wanted)
    transparent = picture.has_transparency_data and wanted in (None, 1, 3)  # otherwise alpha is a band like any other
    animated = picture.format in ANIMATED and getattr(picture, "n_frames", 1) > 1
    return PictureInfo(channels, picture.mode in HIGH_DEPTH, transparent, is_truncated(picture), animated)


def output_channels(bands: int, wanted: int | None) -> int:
    """Return the number of channels that a picture of several bands gives: 1 and 3 bands convert into each other.

    Mismatch if the wanted number cannot be made from the bands.
    """
    if wanted is None or bands == wanted:
        return bands
    if {bands, wanted} == {1, 3}:
        return wanted
    raise Mismatch(f"has {bands} channels, and data.channels={wanted}: give data.channels={bands}, or mend it")


def full_pages(image: Image.Image) -> list[int]:
    """List the numbers of the pages of a TIFF with several pages, without smaller copies and masks.

    Empty for a single page, and for other formats: of an animation only the first frame is read.
    """
    if image.format != "TIFF" or getattr(image, "n_frames", 1) == 1:
        return []
    pages = []
    for page in range(image.n_frames):  # type: ignore[attr-defined]
        image.seek(page)
        kind = image.tag_v2.get(254, 0)  # type: ignore[attr-defined]
        if not (isinstance(kind, int) and kind & COPY_OR_MASK):
            pages.append(page)
    image.seek(0)
    return pages if len(pages) > 1 else []


def samples_per_pixel(image: Image.Image) -> int:
    """Return the number of samples per pixel in the tags of a TIFF image; 0 for other formats."""
    stored = image.tag_v2.get(TiffImagePlugin.SAMPLESPERPIXEL, 1) if image.format == "TIFF" else 0  # type: ignore[attr-defined]
    return stored if isinstance(stored, int) else 0


def stored_bands(image: Image.Image) -> int:
    """Count the bands of a picture as it is stored; a palette counts as three."""
    return 3 if image.mode in ("P", "PA") else len(image.getbands())


def stored_values(image: Image.Image) -> Shaped[np.ndarray, "c h w"]:
    """Return the values of a decoded picture, bands first."""
    plain = {"1": "L", "P": "RGB", "PA": "RGB"}.get(image.mode)
    values = np.asarray(image.convert(plain) if plain else image)
    return values[None] if values.ndim == 2 else np.moveaxis(values, 2, 0)


def is_truncated(image: Image.Image) -> bool:
    """True for several bands of 16 bits: Pillow decodes their upper 8 bits without a warning."""
    arguments: list[Any] = [tile[3] for tile in getattr(image, "tile", [])]
    return image.mode not in HIGH_DEPTH and any(";16" in str(argument) for argument in arguments)


def move_bands_first(array: np.ndarray, wanted: int | None) -> Shaped[np.ndarray, "c h w"]:
    """Return an array with its bands first, c h w.

    The bands lie along the first or the last axis: the one of length `wanted`, else the shorter one. ValueError if the
    array is not a picture.
    """
    if array.dtype.kind not in "uif" or array.ndim not in (2, 3) or 0 in array.shape:
        raise ValueError(
            f"an array of {array.dtype} {list(array.shape)} is not a picture, H x W, H x W x C or C x H x W"
        )
    if array.ndim == 2:
        return array[None]
    first, last = array.shape[0], array.shape[2]
    first_axis = first < last if (first == wanted) == (last == wanted) else first == wanted
    return array if first_axis else np.moveaxis(array, 2, 0)


def decoded_bytes(image: Image.Image) -> int:
    """Compute from the header how many bytes the current page of a picture takes once it is decoded."""
    return image.width * image.height * stored_bands(image) * BYTES_PER_VALUE.get(image.mode, 1)


def coefficient_bytes(image: Any) -> int:
    """Compute the bytes that a progressive JPEG needs to decode, whatever the size of the result; 0 for other files."""
    if not image.info.get("progressive"):
        return 0
    steps = [across * down for _, across, down, _ in image.layer]
    return 2 * image.width * image.height * sum(steps) // max(1, *steps)


def check_bytes(count: int, max_decoded: int | float) -> None:
    """Raise ValueError if `count` bytes are more than `max_decoded` MiB."""
    if count > max_decoded * MIB:
        raise ValueError(
            f"it takes {count / MIB:,.0f} MiB when it is decoded, more than data.max_decoded={max_decoded:g}: scale it "
            "down, or allow more"
        )


def decode(picture: Picture, wanted: int, max_decoded: int | float) -> Shaped[np.ndarray, "c h w"] | Image.Image:
    """Decode a picture and turn it upright: an array of values, or an image of Pillow for 8-bit grey or colour.

    max_decoded: MiB that the values of all pages may take. ValueError before decoding if they take more.
    """
    if isinstance(picture, np.ndarray):
        bands = move_bands_first(picture, wanted)
        check_bytes(picture.nbytes, max_decoded)
        return bands
    picture_info(picture, wanted)
    pages, count = full_pages(picture), 0
    for page in pages:
        picture.seek(page)
        count += decoded_bytes(picture)
    check_bytes(count or decoded_bytes(picture), max_decoded)
    if pages:
        stack = []
        for page in pages:
            picture.seek(page)
            stack.append(stored_values(turn_upright(picture)))
        if len({(bands.shape[1:], bands.dtype) for bands in stack}) > 1:
            raise Mismatch("has pages of several sizes or kinds, which are no bands of one picture: save one")
        return np.concatenate(stack)
    image = turn_upright(picture)
    if image.mode in HIGH_DEPTH or wanted not in (1, 3):
        return stored_values(image)
    return image


def to_uint8(
    picture: Picture, channels: int, ranges: Ranges | None, *, grey: bool, max_decoded: int | float
) -> UInt8[Tensor, "c h w"]:
    """Decode a picture, turn it upright and convert it to 8 bits.

    ranges: for pictures of more than 8 bits. grey: the survey found a grey set and the user did not ask for grey, so
    colours must not be dropped. max_decoded: see `decode`. Mismatch if content would be lost.
    """
    content = decode(picture, channels, max_decoded)
    if isinstance(content, Image.Image):
        image = remove_alpha(content)
        if grey and image.mode not in GREY and is_coloured(image):
            raise Mismatch("has colours, and the pictures looked at before are grey: set data.channels=3, or 1")
        mode = "L" if channels == 1 else "RGB"
        return v2.functional.pil_to_tensor(image if image.mode == mode else image.convert(mode))
    output_channels(len(content), channels)
    if content.dtype != np.uint8:
        content = scale_to_uint8(content, ranges)
    pixels = torch.from_numpy(np.ascontiguousarray(content))
    if len(pixels) == channels:
        return pixels
    return v2.functional.rgb_to_grayscale(pixels) if channels == 1 else pixels.expand(channels, -1, -1)


def scale_to_uint8(values: Shaped[np.ndarray, "c h w"], ranges: Ranges | None) -> UInt8[np.ndarray, "c h w"]:
    """Scale values to 0 ... 255: the low end of the range and all below become 0, the high end and all above 255."""
    if ranges is None:
        raise Mismatch(
            f"has values of {values.dtype.newbyteorder('=')}, and the pictures looked at before have 8 bits: save all "
            "alike, or set data.range=[low,high], the values that become black and white"
        )
    if len(ranges) not in (1, len(values)):
        raise Mismatch(f"has {len(values)} bands, and data.range={list(ranges)} is for {len(ranges)}")
    low, high = (np.array([each[end] for each in ranges], np.float32)[:, None, None] for end in (0, 1))
    check_finite(values)
    unit = (values.astype(np.float32) - low) / np.where(high > low, high - low, 1)
    return np.rint(unit.clip(0, 1) * 255).astype(np.uint8)


def check_finite(values: np.ndarray) -> np.ndarray:
    """Return the same values. ValueError if some are not finite numbers."""
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise ValueError("some values are not finite numbers: fill them in")
    return values


def turn_upright(image: Image.Image) -> Image.Image:
    """Return the first frame, decoded, and turned as the EXIF data tell."""
    image.load()
    if image.getexif().get(ExifTags.Base.Orientation, 1) == 1:
        return image
    return ImageOps.exif_transpose(image)


def remove_alpha(image: Image.Image) -> Image.Image:
    """Return a picture without transparency: transparent parts become white.

    If alpha is the same everywhere, it carries no information and may be an export mistake: colours do not change.
    """
    if not image.has_transparency_data:
        return image
    image = image.convert("RGBA")
    lowest, highest = image.getchannel("A").getextrema()
    if lowest == highest:
        return image.convert("RGB")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)


def is_coloured(image: Image.Image) -> bool:
    """True if red, green and blue differ in some pixel."""
    red, green, blue = np.moveaxis(np.asarray(image.convert("RGB")), 2, 0)
    return bool((red != green).any() or (green != blue).any())
