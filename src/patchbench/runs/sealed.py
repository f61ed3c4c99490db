"""Files that end with a digest of their bytes, so that one altered bit is noticed before they are used.

The digest stands behind the end of the zip archive that torch.save writes, where readers of such archives look past it.
"""

import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from patchbench.machine import whole_file

SEAL = re.compile(rb"\npatchbench sha256 ([0-9a-f]{64})\n")
LENGTH = len("\npatchbench sha256 \n") + 64  # bytes
CHUNK = 2**20  # bytes


class Damaged(ValueError):
    """A file whose bytes are not those that were written."""


class Hashing:
    """A file to write to that computes the digest of what it is given."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.digest = file, hashlib.sha256()

    def write(self, data: bytes | memoryview) -> int:
        self.digest.update(data)
        return self.file.write(data)

    def flush(self) -> None:
        self.file.flush()


@contextmanager
def sealed_file(path: Path) -> Iterator[Hashing]:
    """Open a file that appears under its name when it is whole, with the digest at its end."""
    with whole_file(path, "wb") as file:
        hashing = Hashing(file)
        yield hashing
        file.write(f"\npatchbench sha256 {hashing.digest.hexdigest()}\n".encode())


def check_seal(path: Path) -> None:
    """Damaged unless the bytes of a file have the digest at its end. It reads the whole file once."""
    size = os.path.getsize(path) - LENGTH
    digest = hashlib.sha256()
    with path.open("rb") as file:
        left = max(0, size)
        while left and (data := file.read(min(CHUNK, left))):
            digest.update(data)
            left -= len(data)
        found = SEAL.fullmatch(file.read())
    if not found:
        raise Damaged(f"{path} is damaged, or no checkpoint of this version: its end lacks the digest of its bytes")
    if found[1].decode() != digest.hexdigest():
        raise Damaged(f"{path} is damaged: its bytes do not have the digest that was written with them")
