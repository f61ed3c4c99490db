"""Content of a data set in eight digits, wherever it lies, so that another set at the same path is noticed."""

import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from patchbench.data.cache_format import META, PLAN

SIZES = 100_000  # files whose size is read; of more, this many, evenly spaced
INDEX_SUFFIX = ".shard-index.json"  # of the index that data=shards makes of an archive
NO_CONTENT = ("made_from", "crc32", "parts")  # of the meta.json of a cache: what it was made from; other checksums
OURS = re.compile(rf"{re.escape(INDEX_SUFFIX)}$|\.part-\d+$").search  # files that we write beside the data


def fingerprint(root: str) -> str:
    """Eight hex digits that are equal for equal data sets, wherever they lie.

    A folder counts by the names of its files below `root`, which tell the labels of class folders, and by their sizes.
    A URL (s3://, https://, ...) counts by the names and sizes that fsspec lists. A cache of scripts/prepare_data.py
    counts by its checksums. A moved copy and a symbolic link are equal; a file that is added, removed, renamed, resized
    or moved to another class is seen. Other pixels in files of the same names and sizes are not seen (in a cache they
    are), and beyond 100,000 files a change of size may be missed. Hidden files, unfinished files, and the indices and
    caches that we write into the folder do not count. 100,000 files take half a second of one core, a
    million 2.5 s.
    OSError names a root that is not there or cannot be read.
    """
    try:
        if "://" in root and not root.startswith("file://"):
            content = remote(root)
        else:
            content = local(Path(root.removeprefix("file://")).expanduser())
    except OSError as error:
        why = error.strerror or " ".join(str(error).split()) or type(error).__name__
        at = f" at {error.filename}" if error.filename and str(error.filename) != root else ""
        raise OSError(f"root={root} cannot be read ({why}{at}): give the folder or URL of the data set") from error
    lines = "\n".join([f"{name}\0{what}" for name, what in content])
    return hashlib.sha256(lines.encode("utf-8", "surrogateescape")).hexdigest()[:8]


def local(root: Path) -> Iterable[tuple[str, Any]]:
    """Names and sizes of the files, or the checksums of a cache."""
    if root.is_file():
        return [("", root.stat().st_size)]
    if meta := cache_meta(root):
        return [(name, json.dumps(value)) for name, value in sorted(meta.items()) if name not in NO_CONTENT]
    names = sorted(listed(str(root), "", ()))
    sized = range(len(names)) if len(names) <= SIZES else [i * len(names) // SIZES for i in range(SIZES)]
    sizes = {names[i]: size(f"{root}/{names[i]}") for i in sized}
    return [(name, sizes.get(name, "")) for name in names]


def listed(folder: str, prefix: str, above: tuple[tuple[int, int], ...]) -> Iterator[str]:
    """Names of the files in a folder and below. above: folders (device, inode) that a link must not enter again."""
    with os.scandir(folder) as scan:
        entries = [entry for entry in scan if entry.name[0] != "." and not OURS(entry.name)]
    if prefix and (os.path.exists(f"{folder}/{PLAN}") or cache_meta(Path(folder))):
        return
    status = os.stat(folder)
    above = (*above, (status.st_dev, status.st_ino))
    for entry in entries:
        if not entry.is_dir():
            yield prefix + entry.name
        elif not entry.is_symlink() or (entry.stat().st_dev, entry.stat().st_ino) not in above:
            yield from listed(entry.path, f"{prefix}{entry.name}/", above)


def size(path: str) -> int:
    """Bytes of a file; -1 of a link to nowhere."""
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return -1


def cache_meta(folder: Path) -> dict[str, Any] | None:
    """Content of the meta.json of a finished cache; None for any other folder."""
    try:
        meta = json.loads((folder / META).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, ValueError, RecursionError):
        return None
    return meta if isinstance(meta, dict) and {"format", "made_from", "splits", "crc32"} <= meta.keys() else None


def remote(url: str) -> Iterable[tuple[str, Any]]:
    """Names and sizes of the files below a URL."""
    import fsspec

    try:
        files, folder = fsspec.url_to_fs(url)
        sizes = files.find(folder, detail=True)
    except OSError:
        raise
    except Exception as error:  # of the packages behind fsspec, missing ones among them
        raise OSError(f"{type(error).__name__}: {error}") from error
    if not sizes:
        raise FileNotFoundError("no files there")
    content = [(path[len(folder.rstrip("/")) :].lstrip("/"), facts.get("size")) for path, facts in sizes.items()]
    return sorted(
        (name, size)
        for name, size in content
        if not any(part.startswith(".") for part in name.split("/")) and not OURS(name)
    )
