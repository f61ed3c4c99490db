"""Files that end with the SHA-256 digest of their bytes, so that one altered bit is noticed before they are used.

The digest follows the zip archive that torch.save writes; readers of zip archives ignore bytes after the archive.
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
    """Raised for a file that was altered after it was written."""


class Hashing:
    """A file for writing that computes the digest of all bytes written."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.digest = file, hashlib.sha256()

    def write(self, data: bytes | memoryview) -> int:
        self.digest.update(data)
        return self.file.write(data)

    def flush(self) -> None:
        self.file.flush()


@contextmanager
def sealed_file(path: Path) -> Iterator[Hashing]:
    """Open a file for writing; the file appears under its name when it is complete, with the digest at its end."""
    with whole_file(path, "wb") as file:
        hashing = Hashing(file)
        yield hashing
        file.write(f"\npatchbench sha256 {hashing.digest.hexdigest()}\n".encode())


def check_seal(path: Path) -> None:
    """Raise Damaged unless the bytes of a file have the digest at its end. The whole file is read once."""
    size = os.path.getsize(path) - LENGTH
    digest = hashlib.sha256()
    with path.open("rb") as file:
        remaining = max(0, size)
        while remaining and (data := file.read(min(CHUNK, remaining))):
            digest.update(data)
            remaining -= len(data)
        seal = SEAL.fullmatch(file.read())
    if not seal:
        raise Damaged(f"{path} is damaged, or no checkpoint of this version: the digest at its end is missing")
    if seal[1].decode() != digest.hexdigest():
        raise Damaged(f"{path} is damaged: its bytes do not match the digest at its end")
