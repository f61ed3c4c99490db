"""The local files of W&B: folders of offline runs, which are synced later, and files of artifacts for upload.

This module does not import W&B, since sweeps and tables of runs do not need it.
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
# The log of W&B has the format of LevelDB: blocks of chunks of records, each chunk after a header. Sizes in bytes.
BLOCK, HEADER = 32_768, 7
WHOLE, FIRST, LAST = 1, 2, 4  # types of chunks: a whole record, the first chunk of a record, the last


def run_id(out_dir: Path) -> str | None:
    """Read the W&B id of a run; None if it has none."""
    try:
        return (out_dir / ID_FILE).read_text(encoding="utf-8").strip() or None
    except FileNotFoundError:
        return None


def run_folder_of(run_id: str, runs_dir: Path) -> Path | None:
    """Find the folder of the run that has this W&B id; None if there is none."""
    files = sorted(runs_dir.glob(f"*/{ID_FILE}"))
    return next((path.parent for path in files if path.read_text(encoding="utf-8").strip() == run_id), None)


def wandb_dir(runs_dir: Path) -> Path:
    """Folder of W&B: in WANDB_DIR if that is set, else beside the runs, so that one `wandb sync` uploads all."""
    return Path(os.environ.get("WANDB_DIR") or runs_dir, "wandb")


def staging(folder: Path, run_id: str) -> Path:
    """Folder in which files of artifacts of a run wait for upload. folder: as `wandb_dir` returns it."""
    return folder / "staging" / run_id


def unsynced(folder: Path, run_id: str) -> list[Path]:
    """List the folders of a run that are not synced, oldest first; a run has one for each time it was started."""
    folders = sorted(path for path in folder.glob(f"offline-run-*-{run_id}") if path.is_dir())
    return [path for path in folders if not list(path.glob("*.wandb.synced"))]


def delete(out_dir: Path, folder: Path) -> None:
    """Remove the files of one run from the folder of W&B. out_dir: folder of the run."""
    if own_id := run_id(out_dir):
        for path in (*folder.glob(f"*run-*-{own_id}"), staging(folder, own_id)):
            if path.name.endswith(own_id) and path.is_dir():
                shutil.rmtree(path)


def sync_command(folder: Path, run_ids: Iterable[str]) -> str | None:
    """Return the command that uploads the offline folders of these runs; None if there are none."""
    folders_by_id = {each: unsynced(folder, each) for each in run_ids}
    folders_by_id = {each: folders for each, folders in folders_by_id.items() if folders}
    if not folders_by_id:
        return None
    shown = display_path(folder)
    if len(folders_by_id) > 1:
        return f"wandb sync {shlex.quote(str(shown))}/offline-run-*"
    [(own_id, folders)] = folders_by_id.items()
    if len(folders) > 1:
        return f"wandb sync {shlex.quote(str(shown))}/offline-run-*-{own_id}"
    return f"wandb sync {shlex.quote(str(shown / folders[0].name))}"


def damage(log: Path, rows: int) -> str:
    """Describe the damage of the file that `wandb sync` reads, as the rest of a sentence; empty if it is complete.

    A full disk, or the end of the process of W&B, truncates the file without an error message. rows: number of rows
    that a complete file has at least.
    """
    from wandb.proto import wandb_internal_pb2

    proto: Any = wandb_internal_pb2  # mypy does not see its classes, which are made at import

    num_rows, ended, last_num = 0, False, 0
    try:
        for content in log_records(log):
            record = proto.Record.FromString(content)
            num_rows += record.WhichOneof("record_type") == "history"
            ended |= record.WhichOneof("record_type") == "exit"
            if record.num != last_num + 1:
                break
            last_num = record.num
        else:
            if ended and num_rows >= rows:
                return ""
    except (OSError, ValueError) as error:
        return f"cannot be read ({error})"
    return f"is cut short, as by a full disk, and holds {num_rows} of {rows} rows; metrics.csv has all"


def log_records(log: Path) -> Iterator[bytes]:
    """Yield the records of the log of a run, up to the first that is incomplete or altered."""
    data = log.read_bytes()
    at, parts = HEADER, b""  # the first bytes name the format
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
