"""Any source, read once in parallel, becomes a cache (cached.py): chunk by chunk, so that what is cut off goes on."""

import errno
import json
import os
import shutil
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch.utils.data import DataLoader, Dataset

from patchbench.data.sets.cached import FORMAT, META, PLAN, crc32, images_file, labels_file, load, read_meta
from patchbench.data.source import Source, Split

CHUNK_BYTES = 2**24  # written, checksummed and, when cut off, lost as one
DONE = "done.jsonl"  # a line for each chunk that is on the disk


class Chunk(NamedTuple):
    """Images `start` to `stop` of a split."""

    split: str
    start: int
    stop: int


def prepare(
    source: Source, out: Path, *, made_from: Mapping[str, Any], command: str, workers: int
) -> Mapping[str, Any]:
    """Write what `source` gives to evaluation into `out`, and return what meta.json tells of it.

    made_from: what must be the same for a cut-off preparation to go on; command: what completes it, for messages.
    ValueError, OSError: `out` holds something else or cannot be written, the disk is full, an image is bad.
    """
    if finished_before(out, made_from):
        return read_meta(out)
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
        write_json(out / PLAN, {"format": FORMAT, "made_from": made_from, "command": command})
    splits = source.splits()
    shape = (source.in_chans, *source.img_size)
    counts = {name: len(split) for name, split in splits.items()}
    with writing(out):
        starts = {name: allocate(out, name, count, shape) for name, count in counts.items()}
        chunks, done = list(cut(counts, shape)), read_journal(out / DONE)
        writer = Writer(splits, out, shape, starts)
        with (out / DONE).open("a", encoding="utf-8") as journal:
            for chunk, found in in_parallel(writer, chunks, done, workers, "preparing"):
                journal.write(json.dumps([chunk, found]) + "\n")
                journal.flush()
                os.fsync(journal.fileno())
                done[chunk] = found
        meta = {
            "format": FORMAT,
            "made_from": made_from,
            "img_size": source.img_size,
            "in_chans": source.in_chans,
            "num_classes": source.num_classes,
            "classes": getattr(source, "classes", None),
            "mirrors": source.mirrors,
            "source": {"mean": list(source.mean), "std": list(source.std)},
            "measured": moments([done[c] for c in chunks if c.split == "train"], source.img_size),
            "splits": {
                name: {
                    "rows": count,  # of the file; those in no chunk are of images that the source left out
                    "chunks": [
                        [c.start, c.start + done[c]["kept"], done[c]["crc32"]] for c in chunks if c.split == name
                    ],
                }
                for name, count in counts.items()
            },
        }
        write_json(out / META, {**meta, "crc32": crc32(meta)})
        for name in (DONE, PLAN):
            (out / name).unlink()
    return meta


def verify(folder: Path, *, workers: int) -> int:
    """Read all of a cache and return the number of its images. ValueError names the first that have changed."""
    splits = read_meta(folder)["splits"]
    kept = {Chunk(name, *span): checked for name in splits for *span, checked in splits[name]["chunks"]}
    for chunk, found in in_parallel(Checker(folder), list(kept), {}, workers, "verifying"):
        if found["crc32"] != kept[chunk]:
            raise ValueError(
                f"{images_file(folder, chunk.split)} or its labels: {chunk.start} to {chunk.stop - 1} are not as they "
                f"were written: remove {folder} and prepare it again"
            )
    return sum(chunk.stop - chunk.start for chunk in kept)


class Writer(Dataset):
    """Reads a chunk of a source, writes it, and tells its checksum; of training images also the sums of their pixels.

    What goes wrong is told as `error`: raised here, a loader would bring it as a traceback of many lines.
    """

    def __init__(
        self, splits: Mapping[str, Split], out: Path, shape: tuple[int, ...], starts: Mapping[str, tuple[int, int]]
    ) -> None:
        self.splits, self.out, self.shape, self.starts = splits, out, shape, starts

    def __getitem__(self, chunk: Chunk) -> tuple[Chunk, dict[str, Any]]:
        try:
            read = self.splits[chunk.split].read(range(chunk.start, chunk.stop))
        except (ValueError, OSError) as error:
            return chunk, {"error": str(error)}
        images, labels = (np.ascontiguousarray(part.numpy()) for part in read)
        assert images.shape[1:] == self.shape, f"{images.shape=} of {self.shape=}"
        files = images_file(self.out, chunk.split), labels_file(self.out, chunk.split)
        try:
            for path, start, array in zip(files, self.starts[chunk.split], (images, labels), strict=True):
                write(path, start + chunk.start * array.itemsize * int(np.prod(array.shape[1:])), array)
        except OSError as error:
            return chunk, {"error": error.strerror, "errno": error.errno}
        found: dict[str, Any] = {"kept": len(labels), "crc32": checksum(images, labels)}
        if chunk.split == "train":
            found |= sums(images)
        return chunk, found


class Checker(Dataset):
    """The checksum of a chunk as it lies on the disk."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __getitem__(self, chunk: Chunk) -> tuple[Chunk, dict[str, Any]]:
        files = images_file(self.folder, chunk.split), labels_file(self.folder, chunk.split)
        try:
            images, labels = (np.asarray(load(file))[chunk.start : chunk.stop] for file in files)
        except ValueError as error:
            return chunk, {"error": str(error)}
        return chunk, {"crc32": checksum(images, labels)}


def in_parallel(
    task: Dataset, chunks: Sequence[Chunk], done: Mapping[Chunk, Any], workers: int, what: str
) -> Iterator[tuple[Chunk, dict[str, Any]]]:
    """What `task` makes of each chunk that is not done, in order. A bar, on a terminal, counts images."""
    missing = [chunk for chunk in chunks if chunk not in done]
    loader: Iterable = DataLoader(task, sampler=missing, batch_size=None, num_workers=min(workers, len(missing)))
    console = Console(stderr=True)
    bar = Progress(
        TextColumn(what),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("images"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(elapsed_when_finished=False),
        console=console,
        disable=not console.is_terminal,
    )
    total, left = (sum(c.stop - c.start for c in some) for some in (chunks, missing))
    with bar:
        row = bar.add_task("", total=total, completed=total - left)
        for chunk, found in loader:
            if "errno" in found:
                raise OSError(found["errno"], found["error"])
            if "error" in found:
                raise ValueError(found["error"])
            bar.advance(row, chunk.stop - chunk.start)
            yield chunk, found


def finished_before(out: Path, made_from: Mapping[str, Any]) -> bool:
    """Whether `out` is the finished cache of this. ValueError where it is anything but that, unfinished, or empty."""
    plan = out / PLAN
    if (out / META).is_file():
        there = read_meta(out)["made_from"]
    elif plan.is_file():
        there = json.loads(plan.read_text(encoding="utf-8"))["made_from"]
    elif not out.exists() or (
        out.is_dir() and {path.name for path in out.iterdir()} <= {plan.with_suffix(".part").name}
    ):
        return False
    else:
        raise ValueError(f"out={out} holds something else: choose a folder that is empty, or not there yet")
    if there != made_from:
        odd = [key for key in {**there, **made_from} if there.get(key) != made_from.get(key)]
        changes = ", ".join(f"data.{key}={there.get(key)} there, {made_from.get(key)} here" for key in odd)
        raise ValueError(f"out={out} is a cache of something else ({changes}): choose another folder, or remove it")
    return (out / META).is_file()


@contextmanager
def writing(out: Path) -> Iterator[None]:
    """OSError says that it is `out` which cannot be written, and what becomes of what is."""
    try:
        yield
    except OSError as error:
        raise OSError(
            f"out={out} cannot be written ({error.strerror}): make room or choose another folder; the same command "
            "goes on where it stopped"
        ) from error


def cut(counts: Mapping[str, int], shape: tuple[int, ...]) -> Iterator[Chunk]:
    images = max(1, CHUNK_BYTES // int(np.prod(shape)))
    for name, count in counts.items():
        for start in range(0, count, images):
            yield Chunk(name, start, min(start + images, count))


def allocate(out: Path, split: str, count: int, shape: tuple[int, ...]) -> tuple[int, int]:
    """Make the files of a split in full size, unless they are there; returns the bytes at which their arrays start.

    OSError now, not after hours, where the disk is too small.
    """
    starts = []
    for path, whole, dtype in (
        (images_file(out, split), (count, *shape), np.dtype(np.uint8)),
        (labels_file(out, split), (count,), np.dtype(np.int64)),
    ):
        needed = int(np.prod(whole)) * dtype.itemsize
        try:
            array = load(path)
            there = (array.shape, array.dtype) == (whole, dtype)
        except ValueError:
            there = False
        if not there:
            (out / DONE).unlink(missing_ok=True)
            if (free := shutil.disk_usage(out).free) < needed:
                gib = f"{path.name} takes {needed / 2**30:.3g} GiB, and {free / 2**30:.3g} GiB are free"
                raise OSError(errno.ENOSPC, gib)
            array = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=whole)
        starts.append(array.offset)
        if hasattr(os, "posix_fallocate"):  # not on a Mac
            with path.open("r+b") as file:
                os.posix_fallocate(file.fileno(), 0, array.offset + needed)
    return starts[0], starts[1]


def write(path: Path, start: int, array: np.ndarray) -> None:
    with path.open("r+b") as file:
        file.seek(start)
        file.write(array.data)
        file.flush()
        os.fsync(file.fileno())


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Under its name only when all of it is on the disk."""
    part = path.with_suffix(".part")
    with part.open("w", encoding="utf-8") as file:
        json.dump(content, file)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def read_journal(path: Path) -> dict[Chunk, dict[str, Any]]:
    """The chunks that were done before. A line that was cut off is none, and is taken out of the way."""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
    whole = [line for line in lines if line.endswith("\n")]
    if whole != lines:
        path.write_text("".join(whole), encoding="utf-8")
    return {Chunk(*chunk): found for chunk, found in map(json.loads, whole)}


def checksum(images: np.ndarray, labels: np.ndarray) -> int:
    return zlib.crc32(labels.data, zlib.crc32(images.data))


def sums(images: np.ndarray) -> dict[str, list[float]]:
    """Of pixels and of their squares, per channel."""
    total = np.zeros((2, images.shape[1]))
    for image in images:
        pixels = image.reshape(len(image), -1).astype(np.float64)  # holds these sums exactly
        total += pixels.sum(1), np.vecdot(pixels, pixels)
    return {"sum": total[0].tolist(), "squares": total[1].tolist()}


def moments(found: Sequence[Mapping[str, Any]], img_size: Sequence[int]) -> dict[str, list[float]]:
    """Mean and standard deviation per channel, of pixels in 0 ... 1; at least a level, since it is divided by."""
    pixels = sum(chunk["kept"] for chunk in found) * np.prod(img_size)
    mean, square = (np.sum([chunk[name] for chunk in found], 0) / pixels for name in ("sum", "squares"))
    return {"mean": (mean / 255).tolist(), "std": (np.sqrt(np.maximum(square - mean**2, 1.0)) / 255).tolist()}
