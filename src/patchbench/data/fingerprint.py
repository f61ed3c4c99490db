"""Fingerprint of the content of a data set, so that another set at the same path is noticed."""

import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from patchbench.data.cache_format import META, PLAN

MAX_SIZES = 100_000  # file sizes that are read; of more files, evenly spaced ones
INDEX_SUFFIX = ".shard-index.json"  # file name of the index that data=shards makes for an archive
NO_CONTENT = ("made_from", "crc32", "parts")  # keys in meta.json of a cache: its origin and redundant checksums
is_own_file = re.compile(rf"{re.escape(INDEX_SUFFIX)}$|\.part-\d+$").search  # files that PatchBench writes there


def fingerprint(root: str) -> str:
    """Return eight hexadecimal digits that are equal for equal data sets, at any path.

    For a folder they depend on the names of the files below `root`, which include the class folders, and on the file
    sizes. For a URL (s3://, https://, ...) they depend on the names and sizes that fsspec lists, and for a cache of
    scripts/prepare_data.py on its checksums. A copy or a symbolic link has the same fingerprint; adding, removing,
    renaming, resizing a file or moving it to another class changes the fingerprint. Other pixels in files of the same
    names and sizes do not (except in a cache), and above 100,000 files a change of size may be missed. Hidden files,
    unfinished files, and indices and caches that PatchBench writes into the folder are ignored. 100,000 files take half
    a second on one core, a million 2.5 s. OSError names a root that does not exist or cannot be read.
    """
    try:
        if "://" in root and not root.startswith("file://"):
            content = remote_content(root)
        else:
            content = local_content(Path(root.removeprefix("file://")).expanduser())
    except OSError as error:
        why = error.strerror or " ".join(str(error).split()) or type(error).__name__
        at = f" at {error.filename}" if error.filename and str(error.filename) != root else ""
        raise OSError(f"root={root} cannot be read ({why}{at}): give the folder or URL of the data set") from error
    lines = "\n".join([f"{name}\0{value}" for name, value in content])
    return hashlib.sha256(lines.encode("utf-8", "surrogateescape")).hexdigest()[:8]


def local_content(root: Path) -> Iterable[tuple[str, Any]]:
    """List the names and sizes of the files, or the checksums of a cache."""
    if root.is_file():
        return [("", root.stat().st_size)]
    if meta := cache_meta(root):
        return [(name, json.dumps(value)) for name, value in sorted(meta.items()) if name not in NO_CONTENT]
    names = sorted(file_names(str(root), "", ()))
    sized = range(len(names)) if len(names) <= MAX_SIZES else [i * len(names) // MAX_SIZES for i in range(MAX_SIZES)]
    sizes = {names[i]: size(f"{root}/{names[i]}") for i in sized}
    return [(name, sizes.get(name, "")) for name in names]


def file_names(folder: str, prefix: str, above: tuple[tuple[int, int], ...]) -> Iterator[str]:
    """List the names of the files in a folder and below.

    above: parent folders as (device, inode), which a link must not enter again.
    """
    with os.scandir(folder) as scan:
        entries = [entry for entry in scan if entry.name[0] != "." and not is_own_file(entry.name)]
    if prefix and (os.path.exists(f"{folder}/{PLAN}") or cache_meta(Path(folder))):
        return
    status = os.stat(folder)
    above = (*above, (status.st_dev, status.st_ino))
    for entry in entries:
        if not entry.is_dir():
            yield prefix + entry.name
        elif not entry.is_symlink() or (entry.stat().st_dev, entry.stat().st_ino) not in above:
            yield from file_names(entry.path, f"{prefix}{entry.name}/", above)


def size(path: str) -> int:
    """Return the size of a file in bytes; -1 for a broken link."""
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return -1


def cache_meta(folder: Path) -> dict[str, Any] | None:
    """Read the meta.json of a finished cache; None for any other folder."""
    try:
        meta = json.loads((folder / META).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, ValueError, RecursionError):
        return None
    return meta if isinstance(meta, dict) and {"format", "made_from", "splits", "crc32"} <= meta.keys() else None


def remote_content(url: str) -> Iterable[tuple[str, Any]]:
    """List the names and sizes of the files below a URL."""
    import fsspec

    try:
        files, folder = fsspec.url_to_fs(url)
        sizes = files.find(folder, detail=True)
    except OSError:
        raise
    except Exception as error:  # from packages behind fsspec, which may be missing
        raise OSError(f"{type(error).__name__}: {error}") from error
    if not sizes:
        raise FileNotFoundError("no files there")
    content = [(path[len(folder.rstrip("/")) :].lstrip("/"), facts.get("size")) for path, facts in sizes.items()]
    return sorted(
        (name, size)
        for name, size in content
        if not any(part.startswith(".") for part in name.split("/")) and not is_own_file(name)
    )
