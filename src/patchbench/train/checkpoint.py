"""Checkpoints: written whole or not at all, with a digest, and read without running code from the file."""

import functools
import os
import pickle
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning import callbacks
from pytorch_lightning.plugins.io import CheckpointIO

from patchbench.machine import partial_path
from patchbench.runs.record import read_record
from patchbench.runs.sealed import check_seal, sealed_file

CHECKPOINTS = ("best.ckpt", "last.ckpt")  # of a run that is not finished
PREVIOUS = "before.ckpt"  # the previous last.ckpt, from which training resumes if last.ckpt is damaged
TESTED = ("best", "last")
KEEP = ("tested", "all", "none")
# Keys of a checkpoint from which no run resumes: all but the states of the optimizer and of callbacks.
ESSENTIAL = ("epoch", "global_step", "pytorch-lightning_version", "state_dict", "loops", "patchbench")


def kept_checkpoints(keep: str, tested: str) -> tuple[str, ...]:
    """List the checkpoints that a finished run keeps.

    keep: one of KEEP, or `best` in records of an earlier version, which means `tested`. tested: one of TESTED.
    """
    return {"all": CHECKPOINTS, "none": ()}.get(keep, (f"{tested}.ckpt",))


class AtomicCheckpoint(CheckpointIO):
    """Write a checkpoint whole or not at all, and read it without running code from the file.

    Lightning's own writer moves the file from the temporary folder of the system. If that is another file system, the
    move is a copy, and an interrupted copy leaves a part of the file.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: object = None) -> None:
        try:
            with sealed_file(Path(path)) as file:
                torch.save(checkpoint, file)  # type: ignore[arg-type]  # torch.save only needs the method `write`
                if Path(path).name == "last.ckpt":
                    keep_previous(Path(path))
        except RuntimeError as error:  # raised by torch when a write fails
            cause: BaseException | None = error
            while cause and not isinstance(cause, OSError):
                cause = cause.__context__
            if not isinstance(cause, OSError):
                raise
            raise OSError(cause.errno, cause.strerror, str(path)) from error

    def load_checkpoint(
        self, path: str | Path, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        return read_checkpoint(path, map_location)

    def remove_checkpoint(self, path: str | Path) -> None:
        Path(path).unlink(missing_ok=True)


def keep_previous(path: Path) -> None:
    """Keep the file at `path`, which will be replaced, as a hard link with the name PREVIOUS."""
    link = partial_path(path.with_name(PREVIOUS))
    with suppress(OSError):  # there is no such file yet, or the file system has no hard links
        os.link(path, link)
        link.replace(path.with_name(PREVIOUS))
        link.unlink(missing_ok=True)  # renaming a hard link to another link of the same file does nothing


def read_checkpoint(path: str | Path, map_location: Any = "cpu") -> dict[str, Any]:
    """Read a checkpoint.

    FileNotFoundError if there is no file, Damaged if its bytes were altered, ValueError if it is no checkpoint of this
    framework.
    """
    if Path(path).is_dir():
        raise FileNotFoundError(f"ckpt={path} is a folder: give a checkpoint in it; {describe_checkpoints(Path(path))}")
    if not Path(path).is_file():
        raise FileNotFoundError(f"ckpt={path}: there is no such file; {describe_checkpoints(Path(path).parent)}")
    check_seal(Path(path))
    check_archive(Path(path))
    try:
        checkpoint = torch.load(path, map_location=map_location, weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"ckpt={path} holds more than tensors and plain values, which could run code: it is not read"
        ) from error
    except Exception as error:  # torch raises a different class for each kind of broken file
        raise ValueError(f"ckpt={path} cannot be read as a checkpoint: {str(error).splitlines()[0]}") from error
    if not isinstance(checkpoint, dict) or not isinstance(checkpoint.get("patchbench"), dict):
        raise ValueError(f"ckpt={path} was not written by train.py: its configuration is missing")
    if not {"identity", "name", "factors", "options", "compared", "targets", "code"} <= checkpoint["patchbench"].keys():
        raise ValueError(f"ckpt={path} was written by an earlier version, which kept no options: train the run again")
    return checkpoint


def check_archive(path: Path) -> None:
    """Raise ValueError unless a file is an archive of torch.save: a compressed archive could unpack to any size."""
    try:
        with zipfile.ZipFile(path) as archive:
            compressed = any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist())
    except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
        raise ValueError(f"ckpt={path} cannot be read as a checkpoint: {error}") from error
    if compressed:
        raise ValueError(f"ckpt={path} is a compressed archive, which train.py does not write: it is not read")


def describe_checkpoints(run: Path) -> str:
    """Say which checkpoints a run keeps, by its record if it is finished, for an error message."""
    try:
        config = read_record(run / "run.json")["config"]
    except (OSError, ValueError):
        return "an unfinished run has last.ckpt and best.ckpt in its directory, a finished run keeps the tested one"
    stored = kept_checkpoints(config.get("keep_checkpoints", "all"), config.get("tested", "best"))
    if not stored:
        return "its run kept none (keep_checkpoints=none): rerun=true keep_checkpoints=tested trains it again"
    if missing := [name for name in stored if not (run / name).exists()]:
        return f"its run is finished and kept {missing[0]}, which was removed: rerun=true trains it again"
    return f"its run is finished and kept {' and '.join(stored)}; keep_checkpoints=all keeps both"


def drop_optimizer_states(path: Path) -> None:
    """Remove the states of the optimizer from a checkpoint from which no run resumes; a third of the bytes remains."""
    checkpoint = read_checkpoint(path)
    if "optimizer_states" in checkpoint:
        AtomicCheckpoint().save_checkpoint({name: checkpoint[name] for name in ESSENTIAL}, path)


class ModelCheckpoint(callbacks.ModelCheckpoint):
    """Lightning's, for the end of an epoch alone: it does nothing after a batch, and makes its key once.

    Lightning asks for the key in every hook. The key contains the name of the class, and checkpoints contain the key.
    """

    @functools.cached_property
    def state_key(self) -> str:  # type: ignore[override]
        return super().state_key

    def on_train_batch_end(self, *_: object) -> None:
        """Do nothing: `every_n_train_steps` is not used."""


def write_checkpoints(out_dir: Path, keep: str) -> list[pl.Callback]:
    """Return callbacks that write last.ckpt after every epoch, and best.ckpt by validation accuracy (first of equals).

    A run resumes from last.ckpt, so best.ckpt contains only weights and configuration, a third of the bytes; with
    keep=all it also contains the states of the optimizer. keep: one of KEEP.
    There are two callbacks, since `save_last` of a single callback writes only when the best changes. The callback for
    last.ckpt is called second, so that last.ckpt contains the state of the other.
    """
    last = ModelCheckpoint(out_dir, "last", enable_version_counter=False)
    best = ModelCheckpoint(
        out_dir,
        "best",
        monitor="val/acc",
        mode="max",
        save_weights_only=keep != "all",
        enable_version_counter=False,
    )
    return [best, last]
