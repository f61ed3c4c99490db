"""Parts of a cache, each with a checksum, so that damage is noticed when an image is read.

A cache is written in chunks. A part is far smaller than a chunk, because checking one image means reading its part.
"""

import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from patchbench.data.cache_format import PREPARE, images_file

PART_BYTES = 2**20  # several small images, or one large


class Part(NamedTuple):
    """Rows `start` to `stop` of the files of a split, `stop` excluded, and the checksum of their images and labels."""

    start: int
    stop: int
    crc32: int


def rows_of_part(shape: tuple[int, ...]) -> int:
    """Return the number of images in a part. shape: channels, height and width of an image."""
    return max(1, PART_BYTES // int(np.prod(shape)))


def checksums(images: np.ndarray, labels: np.ndarray) -> list[int]:
    """Compute the checksums of the parts of a chunk."""
    rows = rows_of_part(images.shape[1:])
    return [checksum(images[i : i + rows], labels[i : i + rows]) for i in range(0, len(labels), rows)]


def checksum(images: np.ndarray, labels: np.ndarray) -> int:
    return zlib.crc32(labels.data, zlib.crc32(images.data))


def parts(meta: Mapping[str, Any], split: str) -> Iterator[Part]:
    """List the parts of a split, in order. In a cache of an earlier version each chunk of 16 MiB is one part.

    meta: content of meta.json.
    """
    chunks = meta["splits"][split]["chunks"]
    if "parts" not in meta:
        yield from (Part(*chunk) for chunk in chunks)
        return
    rows, crcs = meta["parts"]["rows"], iter(meta["parts"]["crc32"][split])
    for start, stop, _ in chunks:
        for first in range(start, stop, rows):
            yield Part(first, min(first + rows, stop), next(crcs))


def altered_images(folder: Path, split: str, start: int, stop: int) -> str:
    """Return the error message for images of a cache that have changed since they were written."""
    return (
        f"{images_file(folder, split)} or its labels: {start} to {stop - 1} have changed since they were written: "
        f"remove {folder} and run {PREPARE} again"
    )
