"""Survey of some pictures of a set before it is read: their channels, bit depth, and range of values."""

import random
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from patchbench.data.bands import Mismatch, PictureInfo, Ranges, check_finite, decode, picture_info
from patchbench.data.pictures import UNREADABLE, Album, opened_picture

HEADERS = 256  # headers that are read: a kind of picture with a share of 2 % is missed in 1 of 180 sets
IMAGES, PIXELS = 1024, 2048  # pictures that the range is measured on, and pixels of each
TAIL = 1e-4  # share of the values that may lie beyond either end of the range, so that no hot pixel sets it
FEW_LEVELS = 16  # of 256: if nine tenths of the values take fewer levels, some outliers have set the range


class Survey(NamedTuple):
    """Properties of a set, as in `PictureInfo`: true if any header has them. high_depth: None if no header was read."""

    channels: int
    high_depth: bool | None
    transparent: bool
    truncated: bool
    animated: bool


def survey(
    album: Album, wanted: int | None, *, has_range: bool, max_decoded: int | float, headers: int = HEADERS
) -> Survey:
    """Read the headers of some pictures, chosen at random, the same ones each time.

    wanted: number of channels; None takes that of the pictures, colour if some are grey and some in colour. has_range:
    a range is given, so pictures of more than 8 bits may be mixed with others. max_decoded: see `ReadSettings`.
    ValueError if a picture would lose content, or if pictures differ in channels or depth.
    """
    chosen = sorted(random.Random(0).sample(range(len(album)), min(headers, len(album))))
    infos: dict[int, PictureInfo] = {}
    for i in chosen:
        try:
            with opened_picture(album, i, max_decoded) as picture:
                infos[i] = picture_info(picture, wanted)
        except Mismatch as error:
            raise ValueError(f"{album.name(i)} {error}") from None
        except UNREADABLE:
            continue  # reading it will report its name

    def first(field: str, value: Any) -> str:
        return album.name(next(i for i, info in infos.items() if getattr(info, field) == value))

    counts = sorted({info.channels for info in infos.values()})
    if wanted is None and len(counts) > 1 and counts != [1, 3]:
        examples = ", ".join(f"{count} in {first('channels', count)}" for count in counts[:3])
        raise ValueError(f"channels=auto: pictures have different numbers of channels, {examples}: mend the set")
    depths = {info.high_depth for info in infos.values()}
    if len(depths) > 1 and not has_range:
        raise ValueError(
            f"{first('high_depth', True)} has more than 8 bits, and {first('high_depth', False)} has 8: save all "
            "alike, or set data.range=[low,high], the values of the former that become black and white"
        )
    channels = wanted or (counts[-1] if counts else 3)
    return Survey(
        channels,
        True in depths if infos else None,
        *(any(getattr(info, field) for info in infos.values()) for field in PictureInfo._fields[2:]),
    )


def measure_ranges(album: Album, chosen: Sequence[int], channels: int, max_decoded: int | float) -> tuple[Ranges, str]:
    """Return the values that become black and white, per band, and a remark, which is empty if there is no doubt.

    They are measured on evenly spaced pictures of more than 8 bits: a share TAIL of the values lies beyond each end.
    Pictures that do not decode within `max_decoded` MiB are left out. The remark warns if most values become a few
    levels, as when outliers mark missing or broken pixels.
    """
    count = min(IMAGES, len(chosen))
    samples: list[np.ndarray] = []
    pixels = np.random.default_rng(0)
    for i in range(count):
        index = chosen[i * len(chosen) // count]
        try:
            with opened_picture(album, index, max_decoded) as picture:
                values = decode(picture, channels, max_decoded)
                if not isinstance(values, np.ndarray) or values.dtype == np.uint8:
                    continue
                flat = check_finite(values.reshape(len(values), -1))
        except Mismatch as error:
            raise ValueError(f"{album.name(index)} {error}") from None
        except UNREADABLE:
            continue
        columns = pixels.integers(flat.shape[1], size=PIXELS) if flat.shape[1] > PIXELS else slice(None)
        samples.append(flat[:, columns].astype(np.float32))
    if not samples:
        return [(0.0, 1.0)], ""
    bands = len(samples[0])
    if any(len(sample) != bands for sample in samples):
        raise ValueError("range=null: pictures of more than 8 bits have different numbers of bands: mend the set")
    by_band = [np.concatenate([sample[band] for sample in samples]) for band in range(bands)]
    ranges = [value_range(band) for band in by_band]
    doubts = [doubt for pair in zip(by_band, ranges, strict=True) if (doubt := crowding_remark(*pair))]
    return ranges, doubts[0] + (", with such a pair for each band" if bands > 1 else "") if doubts else ""


def value_range(values: np.ndarray) -> tuple[float, float]:
    """Return both ends of the range; if nearly all values are equal, the lowest and the highest value."""
    low, high = np.quantile(values, [TAIL, 1 - TAIL], method="nearest")
    if low == high:
        low, high = values.min(), values.max()
    return float(low), float(high)


def crowding_remark(values: np.ndarray, ends: tuple[float, float]) -> str:
    """Warn if nine tenths of the values between the ends of the range become a few levels; "" otherwise."""
    low, high = ends
    if not (inner := values[(values > low) & (values < high)]).size:
        return ""
    first, last = (float(value) for value in np.quantile(inner, [0.05, 0.95], method="nearest"))
    levels = round((last - first) / (high - low) * 255) + 1
    if first == last or levels > FEW_LEVELS:
        return ""
    return (
        f"values from {first:g} to {last:g}, nine tenths of those within {low:g} to {high:g}, become {levels} of 256 "
        f"levels: if others mark missing or broken pixels, set data.range=[{first:g},{last:g}]"
    )
