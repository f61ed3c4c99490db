"""A look at some pictures of a set, before it is read: its channels, its depth, the range of its values."""

import random
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from patchbench.data.bands import Contradiction, Facts, Ranges, decoded, facts, finite
from patchbench.data.pictures import UNREADABLE, Album, opened

HEADERS = 256  # pictures whose headers are read: of a share of 2 % one is missed once in 180 sets
IMAGES, PIXELS = 1024, 2048  # pictures whose range is measured, and pixels of each
TAIL = 1e-4  # share of the values that may lie beyond either end of the range, so that no hot pixel sets it
FEW_LEVELS = 16  # of 256: where nine tenths of the values have no more, others have set the range


class Survey(NamedTuple):
    """Facts of a set by the headers of some of its pictures, as those of a picture. deep: None if no header is read."""

    channels: int
    deep: bool | None
    transparent: bool
    halved: bool
    animated: bool


def survey(
    album: Album, wanted: int | None, *, ranged: bool, max_decoded: int | float, headers: int = HEADERS
) -> Survey:
    """Look at the headers of some pictures, chosen at random, the same each time.

    wanted: the number of channels asked for; None takes that of the pictures, where grey among colours counts as
    colour. ranged: a range is given, so that pictures of more than 8 bits may lie among others. max_decoded: see
    `Reading`.
    ValueError: a picture's content would be lost, or pictures are not alike.
    """
    chosen = sorted(random.Random(0).sample(range(len(album)), min(headers, len(album))))
    found: dict[int, Facts] = {}
    for i in chosen:
        try:
            with opened(album, i, max_decoded) as picture:
                found[i] = facts(picture, wanted)
        except Contradiction as error:
            raise ValueError(f"{album.name(i)} {error}") from None
        except UNREADABLE:
            continue  # it is named when it is read

    def first(what: str, value: Any) -> str:
        return album.name(next(i for i, each in found.items() if getattr(each, what) == value))

    counts = sorted({each.channels for each in found.values()})
    if wanted is None and len(counts) > 1 and counts != [1, 3]:
        examples = ", ".join(f"{count} in {first('channels', count)}" for count in counts[:3])
        raise ValueError(f"channels=auto: pictures have different numbers of channels, {examples}: mend the set")
    deep = {each.deep for each in found.values()}
    if len(deep) > 1 and not ranged:
        raise ValueError(
            f"{first('deep', True)} has more than 8 bits, and {first('deep', False)} has 8: save all alike, or set "
            "data.range=[low,high], the values of the former that become black and white"
        )
    channels = wanted or (counts[-1] if counts else 3)
    return Survey(
        channels,
        True in deep if found else None,
        *(any(getattr(f, n) for f in found.values()) for n in Facts._fields[2:]),
    )


def measured_ranges(album: Album, chosen: Sequence[int], channels: int, max_decoded: int | float) -> tuple[Ranges, str]:
    """Values that become black and white, per band, of evenly spaced pictures of more than 8 bits; and a doubt, or "".

    All but a ten thousandth of the values at either end lie between them. Pictures that do not decode, within
    `max_decoded` MiB, are left out.
    The doubt is that most values become a few levels, because of some that mark what is missing or broken.
    """
    count = min(IMAGES, len(chosen))
    samples: list[np.ndarray] = []
    pixels = np.random.default_rng(0)
    for i in range(count):
        index = chosen[i * len(chosen) // count]
        try:
            with opened(album, index, max_decoded) as picture:
                values = decoded(picture, channels, max_decoded)
                if not isinstance(values, np.ndarray) or values.dtype == np.uint8:
                    continue
                flat = finite(values.reshape(len(values), -1))
        except Contradiction as error:
            raise ValueError(f"{album.name(index)} {error}") from None
        except UNREADABLE:
            continue
        some = pixels.integers(flat.shape[1], size=PIXELS) if flat.shape[1] > PIXELS else slice(None)
        samples.append(flat[:, some].astype(np.float32))
    if not samples:
        return [(0.0, 1.0)], ""
    bands = len(samples[0])
    if any(len(sample) != bands for sample in samples):
        raise ValueError("range=null: pictures of more than 8 bits have different numbers of bands: mend the set")
    by_band = [np.concatenate([sample[band] for sample in samples]) for band in range(bands)]
    ranges = [spread(band) for band in by_band]
    doubts = [doubt for pair in zip(by_band, ranges, strict=True) if (doubt := crowded(*pair))]
    return ranges, doubts[0] + (", with such a pair for each band" if bands > 1 else "") if doubts else ""


def spread(values: np.ndarray) -> tuple[float, float]:
    """Ends of the range; of values that are nearly all alike, the lowest and the highest."""
    low, high = np.quantile(values, [TAIL, 1 - TAIL], method="nearest")
    if low == high:
        low, high = values.min(), values.max()
    return float(low), float(high)


def crowded(values: np.ndarray, ends: tuple[float, float]) -> str:
    """A doubt about the range of a band: nine tenths of the values between its ends become a few levels."""
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
