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


class Survey(NamedTuple):
    """Facts of a set by the headers of some of its pictures. deep, transparent, halved: as of a picture."""

    channels: int
    deep: bool
    transparent: bool
    halved: bool


def survey(album: Album, wanted: int | None, *, ranged: bool) -> Survey:
    """Look at the headers of some pictures, chosen at random, the same each time.

    wanted: the number of channels asked for; None takes that of the pictures, where grey among colours counts as
    colour. ranged: a range is given, so that pictures of more than 8 bits may lie among others.
    ValueError: a picture's content would be lost, or pictures are not alike.
    """
    chosen = sorted(random.Random(0).sample(range(len(album)), min(HEADERS, len(album))))
    found: dict[int, Facts] = {}
    for i in chosen:
        try:
            with opened(album, i) as picture:
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
    return Survey(channels, True in deep, *(any(getattr(f, n) for f in found.values()) for n in Facts._fields[2:]))


def measured_ranges(album: Album, chosen: Sequence[int], channels: int) -> Ranges:
    """Values that become black and white, per band, of evenly spaced pictures of more than 8 bits.

    All but a ten thousandth of the values at either end lie between them. Pictures that do not decode are left out.
    """
    count = min(IMAGES, len(chosen))
    samples: list[np.ndarray] = []
    pixels = np.random.default_rng(0)
    for i in range(count):
        index = chosen[i * len(chosen) // count]
        try:
            with opened(album, index) as picture:
                values = decoded(picture, channels)
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
        return [(0.0, 1.0)]
    bands = len(samples[0])
    if any(len(sample) != bands for sample in samples):
        raise ValueError("range=null: pictures of more than 8 bits have different numbers of bands: mend the set")
    return [spread(np.concatenate([sample[band] for sample in samples])) for band in range(bands)]


def spread(values: np.ndarray) -> tuple[float, float]:
    """Ends of the range; of values that are nearly all alike, the lowest and the highest."""
    low, high = np.quantile(values, [TAIL, 1 - TAIL], method="nearest")
    if low == high:
        low, high = values.min(), values.max()
    return float(low), float(high)
