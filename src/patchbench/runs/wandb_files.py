"""The files that W&B leaves of a run: folders that are synced later, and what waits in them to be uploaded.

Imports little, as sweeps and lists of runs do not need W&B itself.
"""

import os
import shlex
import shutil
import struct
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from patchbench.machine import display_path

ID_FILE = "wandb_run_id.txt"  # in the directory of a run
BLOCK, HEADER = 32_768, 7  # bytes of a block of the log of W&B, which is that of LevelDB; of what stands before a piece
WHOLE, FIRST, LAST = 1, 2, 4  # kinds of pieces of a record


def run_id(out_dir: Path) -> str | None:
    """The id of a run in W&B, or None where it has none."""
    try:
        return (out_dir / ID_FILE).read_text(encoding="utf-8").strip() or None
    except FileNotFoundError:
        return None


def holder(run_id: str, runs_dir: Path) -> Path | None:
    """The directory of the run that has this id in W&B."""
    files = sorted(runs_dir.glob(f"*/{ID_FILE}"))
    return next((path.parent for path in files if path.read_text(encoding="utf-8").strip() == run_id), None)


def wandb_dir(runs_dir: Path) -> Path:
    """The folder of W&B: beside the runs, so that one `wandb sync` takes all, or where WANDB_DIR says."""
    return Path(os.environ.get("WANDB_DIR") or runs_dir, "wandb")


def staging(folder: Path, run_id: str) -> Path:
    """The folder in which files of artifacts of a run wait to be uploaded. folder: that of `wandb_dir`."""
    return folder / "staging" / run_id


def offline(folder: Path, run_id: str) -> list[Path]:
    """Folders of a run that are not synced, oldest first; one for each stretch of its training."""
    folders = sorted(path for path in folder.glob(f"offline-run-*-{run_id}") if path.is_dir())
    return [path for path in folders if not list(path.glob("*.wandb.synced"))]


def delete(out_dir: Path, folder: Path) -> None:
    """Remove the files of one run from the folder of W&B."""
    if own := run_id(out_dir):
        for path in (*folder.glob(f"*run-*-{own}"), staging(folder, own)):
            if path.name.endswith(own) and path.is_dir():
                shutil.rmtree(path)


def sync_line(folder: Path, run_ids: Iterable[str]) -> str | None:
    """The command that uploads what these runs have offline, or None if that is nothing."""
    found = {each: offline(folder, each) for each in run_ids}
    found = {each: folders for each, folders in found.items() if folders}
    if not found:
        return None
    place = display_path(folder)
    if len(found) > 1:
        return f"wandb sync {shlex.quote(str(place))}/offline-run-*"
    [(own, folders)] = found.items()
    if len(folders) > 1:
        return f"wandb sync {shlex.quote(str(place))}/offline-run-*-{own}"
    return f"wandb sync {shlex.quote(str(place / folders[0].name))}"


def damage_of(log: Path, rows: int) -> str:
    """Describe the damage of the file that `wandb sync` reads, as the rest of a sentence; empty where it is whole.

    A full disk, and an end of the process of W&B before its time, cut it short without a word. rows: that a whole file
    holds, at least.
    """
    from wandb.proto import wandb_internal_pb2

    proto: Any = wandb_internal_pb2  # its classes are made when it is imported

    found, ended, last = 0, False, 0
    try:
        for content in records(log):
            record = proto.Record.FromString(content)
            found += record.WhichOneof("record_type") == "history"
            ended |= record.WhichOneof("record_type") == "exit"
            if record.num != last + 1:
                break
            last = record.num
        else:
            if ended and found >= rows:
                return ""
    except (OSError, ValueError) as error:
        return f"cannot be read ({error})"
    return f"is cut short, as by a full disk, and holds {found} of {rows} rows; metrics.csv has all"


def records(log: Path) -> Iterator[bytes]:
    """The records of the log of a run, up to the first that is torn or altered."""
    data = log.read_bytes()
    at, parts = HEADER, b""  # what is at the very beginning names the format
    while at + HEADER <= len(data):
        if (left := BLOCK - at % BLOCK) < HEADER:
            at += left
            continue
        digest, length, kind = struct.unpack_from("<IHB", data, at)
        piece = data[at + HEADER : at + HEADER + length]
        if len(piece) < length or zlib.crc32(piece, zlib.crc32(bytes([kind]))) != digest:
            return
        at += HEADER + length
        parts = piece if kind in (WHOLE, FIRST) else parts + piece
        if kind in (WHOLE, LAST):
            yield parts
