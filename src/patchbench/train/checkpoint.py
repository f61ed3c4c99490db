"""Checkpoints that are never torn, and a training that can be stopped at any step without losing it."""

import os
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.plugins.io import CheckpointIO


class AtomicCheckpoint(CheckpointIO):
    """The file appears under its name only when all of it is on the disk, and is read without running code from it.

    Lightning's own writer moves the file from the system's temporary folder, which is a copy, and can tear, where that
    is another file system.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: object = None) -> None:
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(f".part-{os.getpid()}")
        try:
            with part.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
        except RuntimeError as error:  # as torch says when a write fails
            cause: BaseException | None = error
            while cause and not isinstance(cause, OSError):
                cause = cause.__context__
            if cause is None:
                raise
            raise OSError(f"{path} could not be written ({cause}): make room; the same command then goes on") from error
        finally:
            part.unlink(missing_ok=True)

    def load_checkpoint(
        self, path: str | Path, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        return read_checkpoint(path, map_location)

    def remove_checkpoint(self, path: str | Path) -> None:
        Path(path).unlink(missing_ok=True)


def read_checkpoint(path: str | Path, map_location: Any = "cpu") -> dict[str, Any]:
    """FileNotFoundError if there is none, ValueError if it is no checkpoint of this framework."""
    if not Path(path).is_file():
        raise FileNotFoundError(
            f"ckpt={path}: there is no such file; a run keeps last.ckpt and best.ckpt in its directory"
        )
    try:
        checkpoint = torch.load(path, map_location=map_location, weights_only=True)
    except Exception as error:  # torch raises a different class for each way in which a file is no checkpoint
        raise ValueError(f"ckpt={path} cannot be read as a checkpoint: {str(error).splitlines()[0]}") from error
    if "patchbench" not in checkpoint:
        raise ValueError(f"ckpt={path} was not written by train.py: its configuration is missing")
    return checkpoint


class Origin(pl.Callback):
    """Keep in every checkpoint what it came from, as plain values: enough to build the network and its data again."""

    def __init__(self, origin: dict[str, Any]) -> None:
        self.origin = origin

    def on_save_checkpoint(self, trainer: pl.Trainer, task: pl.LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint["patchbench"] = self.origin


def keep_checkpoints(out_dir: Path) -> list[pl.Callback]:
    """last.ckpt after every epoch, and best.ckpt by validation accuracy, the first among equals.

    Two callbacks, for the `save_last` of one saves only when the best is saved as well. The last comes last: it holds
    what the other has found.
    """
    last = ModelCheckpoint(out_dir, "last", enable_version_counter=False)
    best = ModelCheckpoint(out_dir, "best", monitor="val/acc", mode="max", enable_version_counter=False)
    return [best, last]
