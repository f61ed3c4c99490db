"""SHA-256 digests of the files of a study, in the file SHA256SUMS in the same folder: `sha256sum -c` checks them too.

With a truncated table, finished runs would be trained again, and the next report would lose the missing rows.
"""

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from zipfile import BadZipFile

from patchbench.machine import write_whole

SUMS = "SHA256SUMS"  # lines of digest, two spaces, file name


@contextmanager
def verified_file(path: Path) -> Iterator[None]:
    """Check the digest of a file that this block reads. ValueError names the file for every error of the block."""
    check_sum(path)
    try:
        yield
    except (ValueError, KeyError, EOFError, BadZipFile) as error:
        raise ValueError(f"{path} is damaged ({' '.join(str(error).split())[:200]})") from error


def check_sum(path: Path) -> None:
    """Raise ValueError for a file with another digest than in SHA256SUMS; a file without a digest is not checked."""
    expected = read_sums(path.parent).get(path.name)
    if expected and path.exists() and digest(path) != expected:
        raise ValueError(
            f"{path} does not have its digest in {SUMS}, it was cut short or edited: `git checkout` restores it; "
            f"to use it as it is, remove its line from {SUMS}"
        )


def write_sums(folder: Path, names: Iterable[str]) -> None:
    """Write the digests of the named files that exist, and remove those of the others; further lines stay."""
    digests = read_sums(folder)
    for name in names:
        digests.pop(name, None)
        if (folder / name).exists():
            digests[name] = digest(folder / name)
    write_whole(folder / SUMS, "".join(f"{value}  {name}\n" for name, value in sorted(digests.items())))


def read_sums(folder: Path) -> dict[str, str]:
    """Read the digests of a folder, by file name."""
    path = folder / SUMS
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []
    pairs = [line.split("  ", 1) for line in lines if "  " in line]
    return {name: value for value, name in pairs}


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
