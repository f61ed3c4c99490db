"""Signals: stop a training at any step, and save a checkpoint from which the same command resumes."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import pytorch_lightning as pl
import torch

from patchbench.machine import ignored_under_nohup, redirect_dead_terminal
from patchbench.train.watchdog import ENDING, PATIENCE, SAVING, Watchdog


class StopOnSignal(pl.Callback):
    """Finish the step, save last.ckpt and exit with 128 + number, on SIGHUP, Ctrl-C, SIGTERM, SIGUSR1 or SIGUSR2.

    - The handler only stores the signal: an exception from the handler could interrupt any operation.
    - Ranks agree every `every` steps and at the end of an epoch, so that all save together.
    - A step of several micro-batches is finished first, since a checkpoint cannot store a partial gradient.
    - After the last step of an epoch, its validation runs before anything is saved, since a resumed training would not
      repeat the validation.
    - Before and after training there is nothing to save. The process exits at the next batch or the next
      `exit_if_signalled`; if none follows, the watchdog ends the process.
    - A second Ctrl-C ends the process at once.
    - SIGHUP, which is sent when a terminal closes, stays ignored under nohup.
    """

    # If several signals are received, the last in this order counts.
    signals = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)

    def __init__(self, path: Path, every: int, timeout_s: float | int | None = None) -> None:
        self.path, self.every = path, every
        self.watchdog = Watchdog(timeout_s, self.signals)
        self.received = 0  # position in `signals`, counted from 1; 0: no signal
        self.process = os.getpid()
        self.epoch_ended = False

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Handle the signals in this block. If a signal has ended the block, call its previous handler at the end.

        Then everything is saved and closed, and the previous handler can act: that of submitit queues the job again.
        Outside of the main thread no signals are handled, since Python allows handlers there only.
        """
        in_main_thread = threading.current_thread() is threading.main_thread()
        watched = [number for number in self.signals if in_main_thread and not ignored_under_nohup(number)]
        before = {number: signal.signal(number, self.store_signal) for number in watched}

        def restore() -> None:
            for number, handler in before.items():
                signal.signal(number, handler)

        try:
            with self.watchdog.watching():
                yield
                self.exit_if_signalled()
        except SystemExit as end:
            restore()
            for number, handler in before.items():
                if end.code == 128 + number and callable(handler) and handler is not signal.default_int_handler:
                    handler(number, None)
            raise
        finally:
            restore()

    def store_signal(self, number: int, frame: FrameType | None) -> None:
        """Store a signal."""
        if os.getpid() != self.process:  # SLURM also signals the data workers, which are forks of this process
            return
        if number == signal.SIGHUP:
            redirect_dead_terminal()
        self.received = max(self.received, 1 + self.signals.index(signal.Signals(number)))

    def exit_if_signalled(self) -> None:
        """Exit if this process has received a signal; for use outside of training, when there is nothing to save."""
        self.watchdog.note_progress(in_loop=False, patience=ENDING if self.received else PATIENCE)
        if self.received:
            number = self.signals[self.received - 1]
            print(f"{number.name}: repeat the command to resume", file=sys.stderr)
            raise SystemExit(128 + number)

    def on_train_start(self, trainer: pl.Trainer, task: pl.LightningModule) -> None:
        self.stop_if_signalled(trainer, save=False)
        self.watchdog.note_progress()

    def on_train_batch_end(self, trainer: pl.Trainer, *_: object) -> None:
        self.watchdog.note_progress()
        if trainer.fit_loop.epoch_loop.batch_progress.current.ready % trainer.accumulate_grad_batches:
            return
        if trainer.is_last_batch or trainer.should_stop:
            return
        if trainer.world_size == 1 or trainer.global_step % self.every == 0:
            self.stop_if_signalled(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, task: pl.LightningModule) -> None:
        self.epoch_ended = True  # the callbacks of `write_checkpoints`, which Lightning calls last, save now
        self.watchdog.note_progress(min_timeout=SAVING)

    def on_train_epoch_start(self, trainer: pl.Trainer, task: pl.LightningModule) -> None:
        self.watchdog.note_progress()
        if self.epoch_ended:
            self.epoch_ended = False
            self.stop_if_signalled(trainer, save=False)

    def stop_if_signalled(self, trainer: pl.Trainer, *, save: bool = True) -> None:
        """Save and exit if any rank has received a signal. save: false if the checkpoint is already saved."""
        received = self.received
        if trainer.world_size > 1:
            flag = torch.tensor(received, device=trainer.strategy.root_device)
            received = int(trainer.strategy.reduce(flag, reduce_op="max"))
        if received and save:
            trainer.save_checkpoint(self.path)
        if received:
            number = self.signals[received - 1]
            if trainer.is_global_zero:
                saved = f"saved {self.path}; " * save
                print(f"{number.name}: {saved}repeat the command to resume", file=sys.stderr)
            self.watchdog.note_progress(in_loop=False, patience=ENDING)
            raise SystemExit(128 + number)

    def on_save_checkpoint(self, *_: object) -> None:
        self.watchdog.note_progress(patience=SAVING, min_timeout=SAVING)

    def on_train_end(self, *_: object) -> None:
        self.exit_if_signalled()

    def on_validation_batch_end(self, *_: object) -> None:
        self.watchdog.note_progress()

    def on_test_batch_end(self, *_: object) -> None:
        self.exit_if_signalled()
        self.watchdog.note_progress()

    def on_predict_batch_end(self, *_: object) -> None:
        self.exit_if_signalled()
        self.watchdog.note_progress()
