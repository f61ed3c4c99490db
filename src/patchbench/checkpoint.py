"""Checkpoints that are never torn, and a training that can be stopped at any step without losing it."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
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


class StopOnSignal(pl.Callback):
    """On Ctrl-C, SIGTERM, SIGUSR1 or SIGUSR2, finish the step, save last.ckpt and leave with 128 + the signal's number.

    The handler only takes note; ranks agree every `every` steps and at the end of an epoch, so that all save together.
    A step of several micro-batches is finished first, since no checkpoint holds half a gradient.
    After the last step of an epoch its validation still runs, or a resumed training would lack it.
    A second Ctrl-C, and any signal before or after training, ends at once.
    """

    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)  # of several the last one counts

    def __init__(self, path: Path, every: int) -> None:
        self.path, self.every = path, every
        self.received = 0  # its place in `signals`, from 1
        self.training, self.process = False, os.getpid()
        self.epoch_ended = False

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Handle the signals in this block, and at its end, when all is saved and closed, hand one that ended it on.

        Whoever handled it before acts then: submitit queues the job again.
        """
        before = {s: signal.signal(s, self.take_note) for s in self.signals}

        def restore() -> None:
            for number, handler in before.items():
                signal.signal(number, handler)

        try:
            yield
        except SystemExit as end:
            restore()
            for number, handler in before.items():
                if end.code == 128 + number and callable(handler) and handler is not signal.default_int_handler:
                    handler(number, None)
            raise
        finally:
            restore()

    def take_note(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self.process:  # SLURM sends it to the workers, too, that were forked from here
            return
        if not self.training or (self.received and number == signal.SIGINT):
            raise SystemExit(128 + number)
        self.received = max(self.received, 1 + self.signals.index(signal.Signals(number)))

    def on_train_start(self, trainer: pl.Trainer, task: pl.LightningModule) -> None:
        self.training = True
        signal.signal(signal.SIGTERM, self.take_note)  # Lightning has put its own before it

    def on_train_batch_end(self, trainer: pl.Trainer, *_: object) -> None:
        if trainer.fit_loop.epoch_loop.batch_progress.current.ready % trainer.accumulate_grad_batches:
            return
        last = trainer.is_last_batch or trainer.should_stop
        if trainer.world_size == 1 or trainer.global_step % self.every == 0 or last:
            self.stop_if_told(trainer, leave=not last)

    def on_train_epoch_end(self, trainer: pl.Trainer, task: pl.LightningModule) -> None:
        self.epoch_ended = True  # keep_checkpoints will save it: Lightning calls them after all others

    def on_train_epoch_start(self, trainer: pl.Trainer, task: pl.LightningModule) -> None:
        if self.epoch_ended:
            self.epoch_ended = False
            self.stop_if_told(trainer, leave=True, save=False)

    def stop_if_told(self, trainer: pl.Trainer, *, leave: bool, save: bool = True) -> None:
        received = self.received
        if trainer.world_size > 1:
            flag = torch.tensor(received, device=trainer.strategy.root_device)
            received = int(trainer.strategy.reduce(flag, reduce_op="max"))
        if received and save:
            trainer.save_checkpoint(self.path)
        if received and leave:
            number = self.signals[received - 1]
            if trainer.is_global_zero:
                print(f"{number.name}: saved {self.path}; the same command goes on from there", file=sys.stderr)
            raise SystemExit(128 + number)

    def on_train_end(self, *_: object) -> None:
        self.training = False

    def on_exception(self, *_: object) -> None:
        self.training = False
