"""Digests of the files of a study, in SHA256SUMS beside them: `sha256sum -c` checks them too.

A table that was cut short would let finished runs be made again, and the next report would drop what it lacks.
"""

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from zipfile import BadZipFile

from patchbench.machine import write_whole

SUMS = "SHA256SUMS"  # lines of digest, two blanks, name


@contextmanager
def intact(path: Path) -> Iterator[None]:
    """Check a file before it is read in this block. ValueError with its path, whatever is wrong with it."""
    check_sum(path)
    try:
        yield
    except (ValueError, KeyError, EOFError, BadZipFile) as error:
        raise ValueError(f"{path} is damaged ({' '.join(str(error).split())[:200]})") from error


def check_sum(path: Path) -> None:
    """ValueError for a file that is not the one that was written; a file without a digest is not checked."""
    expected = sums_of(path.parent).get(path.name)
    if expected and path.exists() and digest(path) != expected:
        raise ValueError(
            f"{path} is not the file of {SUMS} beside it, it was cut short or edited: `git checkout` brings it back; "
            f"to go on with it as it is, remove its line from {SUMS}"
        )


def write_sums(folder: Path, names: Iterable[str]) -> None:
    """Write the digests of these files, without those that there are not; those of other files stay."""
    found = sums_of(folder)
    for name in names:
        found.pop(name, None)
        if (folder / name).exists():
            found[name] = digest(folder / name)
    write_whole(folder / SUMS, "".join(f"{value}  {name}\n" for name, value in sorted(found.items())))


def sums_of(folder: Path) -> dict[str, str]:
    """Digests by the names of the files."""
    path = folder / SUMS
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []
    pairs = [line.split("  ", 1) for line in lines if "  " in line]
    return {name: value for value, name in pairs}


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
