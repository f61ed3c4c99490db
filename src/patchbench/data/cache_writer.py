"""Write a cache of any data set, in parallel, chunk by chunk; an interrupted preparation can be continued."""

import errno
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from patchbench.data.cache_chunks import Chunk, in_parallel
from patchbench.data.cache_format import (
    DONE,
    FORMAT,
    META,
    PLAN,
    crc32,
    damaged_file,
    images_file,
    labels_file,
    read_meta,
    read_plan,
)
from patchbench.data.cache_parts import checksum, checksums, rows_of_part
from patchbench.data.sets.cached import map_array
from patchbench.data.source import Source, Split, unreadable
from patchbench.machine import whole_file

CHUNK_BYTES = 2**24
UNFINISHED = re.compile(rf"({re.escape(PLAN)}|{re.escape(META)})\.part-\d+")  # left over if `write_json` was killed


def prepare(
    source: Source, out: Path, *, made_from: Mapping[str, Any], command: str, workers: int
) -> Mapping[str, Any]:
    """Write the images of `source`, as evaluation reads them, into `out`; return the content of meta.json.

    made_from: knobs of the source; an interrupted preparation is continued if they are the same. command: the command
    that completes the cache, for messages. ValueError, OSError: `out` holds something else or cannot be written, the
    disk is full, an image does not decode.
    """
    if is_finished(out, made_from):
        return read_meta(out, "out")
    with write_errors(out):
        write_json(out / PLAN, {"format": FORMAT, "made_from": made_from, "command": command})
    splits = source.splits()
    shape = (source.in_chans, *source.img_size)
    counts = {name: len(split) for name, split in splits.items()}
    with write_errors(out):
        starts = {name: allocate(out, name, count, shape) for name, count in counts.items()}
        chunks, done = list(make_chunks(counts, shape)), read_journal(out / DONE)
        for chunk, result in done.items():  # images that were skipped before the interruption count too
            unreadable(splits[chunk.split])[result.get("bad", [])] = True
        writer = Writer(splits, out, shape, starts)
        with (out / DONE).open("a", encoding="utf-8") as journal:
            for chunk, result in in_parallel(writer, chunks, done, workers, "preparing"):
                journal.write(json.dumps([chunk, result]) + "\n")
                journal.flush()
                os.fsync(journal.fileno())
                done[chunk] = result
        meta = {
            "format": FORMAT,
            "made_from": made_from,
            "img_size": source.img_size,
            "in_chans": source.in_chans,
            "num_classes": source.num_classes,
            "classes": getattr(source, "classes", None),
            "mirrors": source.mirrors,
            "source": {"mean": list(source.mean), "std": list(source.std)},
            "measured": mean_and_std([done[c] for c in chunks if c.split == "train"], source.img_size),
            **({} if getattr(source, "range", None) is None else {"range": source.range}),  # type: ignore[attr-defined]
            "splits": {
                name: {
                    "rows": count,  # of the file; rows outside all chunks belong to images that the source skipped
                    "chunks": [
                        [c.start, c.start + done[c]["kept"], done[c]["crc32"]] for c in chunks if c.split == name
                    ],
                }
                for name, count in counts.items()
            },
        }
        if all("parts" in done[c] for c in chunks):  # not if an earlier version began the cache
            crcs = {name: [crc for c in chunks if c.split == name for crc in done[c]["parts"]] for name in counts}
            meta["parts"] = {"rows": rows_of_part(shape), "crc32": crcs}
        write_json(out / META, {**meta, "crc32": crc32(meta)})
        for path in out.iterdir():
            if path.name in (DONE, PLAN) or UNFINISHED.fullmatch(path.name):
                path.unlink()
    return meta


class Writer(Dataset):
    """Dataset that reads a chunk of a source, writes it, and returns its checksums.

    For training images it also returns the sums of the pixels. An error is returned under the key `error`, because an
    exception in a worker process would arrive with a long traceback.
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
        images, labels = (np.ascontiguousarray(tensor.numpy()) for tensor in read)
        assert images.shape[1:] == self.shape, f"{images.shape=} of {self.shape=}"
        files = images_file(self.out, chunk.split), labels_file(self.out, chunk.split)
        try:
            for path, start, array in zip(files, self.starts[chunk.split], (images, labels), strict=True):
                write(path, start + chunk.start * array.itemsize * int(np.prod(array.shape[1:])), array)
        except OSError as error:
            return chunk, {"error": error.strerror, "errno": error.errno}
        result: dict[str, Any] = {"kept": len(labels), "crc32": checksum(images, labels)}
        result["parts"] = checksums(images, labels)
        bad = unreadable(self.splits[chunk.split])[chunk.start : chunk.stop].nonzero().flatten() + chunk.start
        if len(bad):
            result["bad"] = bad.tolist()
        if chunk.split == "train":
            result |= pixel_sums(images)
        return chunk, result


def is_finished(out: Path, made_from: Mapping[str, Any]) -> bool:
    """True if `out` is the finished cache of `made_from`, False if `out` is unfinished, empty or does not exist.

    Knobs that only one side has were added in a later version and are ignored. ValueError if `out` is the cache of
    another source or holds something else.
    """
    plan = out / PLAN
    if (out / META).is_file():
        stored = read_meta(out, "out")["made_from"]
    elif plan.is_file():
        stored = read_plan(out)["made_from"]
    elif not out.exists() or (out.is_dir() and all(UNFINISHED.fullmatch(path.name) for path in out.iterdir())):
        return False
    else:
        raise ValueError(f"out={out} holds something else: choose a folder that is empty or does not exist yet")
    if differing := [key for key in made_from if key in stored and stored[key] != made_from[key]]:
        changes = ", ".join(f"data.{key}={stored[key]} there, {made_from[key]} here" for key in differing)
        raise ValueError(f"out={out} is a cache of something else ({changes}): choose another folder, or remove it")
    return (out / META).is_file()


@contextmanager
def write_errors(out: Path) -> Iterator[None]:
    """Raise an OSError in this block again with a message that names `out` and the cure."""
    try:
        yield
    except OSError as error:
        raise OSError(
            f"out={out} cannot be written ({error.strerror}): free some space or choose another folder; the same "
            "command continues where it stopped"
        ) from error


def make_chunks(counts: Mapping[str, int], shape: tuple[int, ...]) -> Iterator[Chunk]:
    images = max(1, CHUNK_BYTES // int(np.prod(shape)))
    for name, count in counts.items():
        for start in range(0, count, images):
            yield Chunk(name, start, min(start + images, count))


def allocate(out: Path, split: str, count: int, shape: tuple[int, ...]) -> tuple[int, int]:
    """Create the files of a split in full size, unless they exist; return the byte offsets of their arrays.

    OSError at once, not after hours, if the disk is too small.
    """
    starts = []
    for path, full_shape, dtype in (
        (images_file(out, split), (count, *shape), np.dtype(np.uint8)),
        (labels_file(out, split), (count,), np.dtype(np.int64)),
    ):
        needed = int(np.prod(full_shape)) * dtype.itemsize
        try:
            array = map_array(path)
            exists = (array.shape, array.dtype) == (full_shape, dtype)
        except ValueError:
            exists = False
        if not exists:
            (out / DONE).unlink(missing_ok=True)
            if (free := shutil.disk_usage(out).free) < needed:
                gib = f"{path.name} takes {needed / 2**30:.3g} GiB, and {free / 2**30:.3g} GiB are free"
                raise OSError(errno.ENOSPC, gib)
            array = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=full_shape)
        starts.append(array.offset)
        if hasattr(os, "posix_fallocate"):  # macOS has none
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
    with whole_file(path) as file:
        json.dump(content, file)


def read_journal(path: Path) -> dict[Chunk, dict[str, Any]]:
    """Read the results of the chunks that are done. An incomplete last line is ignored and removed.

    ValueError for a line that cannot be read.
    """
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
    complete = [line for line in lines if line.endswith("\n")]
    if complete != lines:
        path.write_text("".join(complete), encoding="utf-8")
    try:
        return {Chunk(*chunk): result for chunk, result in map(json.loads, complete)}
    except (ValueError, TypeError, RecursionError) as error:
        raise damaged_file(path, error) from error


def pixel_sums(images: np.ndarray) -> dict[str, list[float]]:
    """Sum the pixels and their squares, per channel."""
    total = np.zeros((2, images.shape[1]))
    for image in images:
        pixels = image.reshape(len(image), -1).astype(np.float64)  # float64 holds these sums exactly
        total += pixels.sum(1), np.vecdot(pixels, pixels)
    return {"sum": total[0].tolist(), "squares": total[1].tolist()}


def mean_and_std(results: Sequence[Mapping[str, Any]], img_size: Sequence[int]) -> dict[str, list[float]]:
    """Compute mean and standard deviation per channel, of pixels in 0 ... 1.

    The standard deviation is at least one grey level, because images are divided by it.
    """
    pixels = sum(chunk["kept"] for chunk in results) * np.prod(img_size)
    mean, square = (np.sum([chunk[name] for chunk in results], 0) / pixels for name in ("sum", "squares"))
    return {"mean": (mean / 255).tolist(), "std": (np.sqrt(np.maximum(square - mean**2, 1.0)) / 255).tolist()}
