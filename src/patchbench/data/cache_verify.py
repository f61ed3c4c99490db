"""Verification of a cache: read all of its files and compare them with the checksums."""

from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from patchbench.data.cache_chunks import Chunk, in_parallel
from patchbench.data.cache_format import images_file, labels_file, read_meta
from patchbench.data.cache_parts import altered_images, checksum
from patchbench.data.sets.cached import map_array


def verify(folder: Path, *, workers: int) -> int:
    """Read a whole cache and return its number of images. ValueError names the first chunk that has changed."""
    splits = read_meta(folder, "out")["splits"]
    expected = {Chunk(name, *span): crc for name in splits for *span, crc in splits[name]["chunks"]}
    for chunk, result in in_parallel(Checker(folder), list(expected), {}, workers, "verifying"):
        if result["crc32"] != expected[chunk]:
            raise ValueError(altered_images(folder, *chunk))
    return sum(chunk.stop - chunk.start for chunk in expected)


class Checker(Dataset):
    """Dataset that computes the checksum of a chunk on the disk."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __getitem__(self, chunk: Chunk) -> tuple[Chunk, dict[str, Any]]:
        files = images_file(self.folder, chunk.split), labels_file(self.folder, chunk.split)
        try:
            images, labels = (np.asarray(map_array(file))[chunk.start : chunk.stop] for file in files)
        except ValueError as error:
            return chunk, {"error": str(error)}
        return chunk, {"crc32": checksum(images, labels)}
