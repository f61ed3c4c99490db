"""Stop a training at any step without losing its progress."""

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

    The handler only stores the signal: an exception that it raised could end in the middle of anything. Ranks agree
    every `every` steps and at the end of an epoch, so that all save together. A step of several micro-batches is
    finished first, since a checkpoint cannot store half a gradient. After the last step of an epoch its validation runs
    before anything is saved, since a resumed training would not repeat it. Before and after training nothing is left to
    save, and the process ends at the next batch or the next `leave`; where that does not come, the watchdog ends it.
    A second Ctrl-C ends the process at once. SIGHUP, which comes when a terminal or its connection ends, stays ignored
    under nohup.
    """

    # If there are several signals, the last in this order counts.
    signals = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)

    def __init__(self, path: Path, every: int, timeout_s: float | int | None = None) -> None:
        self.path, self.every = path, every
        self.watchdog = Watchdog(timeout_s, self.signals)
        self.received = 0  # position in `signals`, from 1; 0: none
        self.process = os.getpid()
        self.epoch_ended = False

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Handle the signals in this block; at its end, call the earlier handler of a signal that ended it.

        By then everything is saved and closed, and the earlier handler can act: submitit queues the job again.
        Handlers are a matter of the main thread; in another one nothing is handled.
        """
        in_main_thread = threading.current_thread() is threading.main_thread()
        watched = [number for number in self.signals if in_main_thread and not ignored_under_nohup(number)]
        before = {number: signal.signal(number, self.take_note) for number in watched}

        def restore() -> None:
            for number, handler in before.items():
                signal.signal(number, handler)

        try:
            with self.watchdog.watching():
                yield
                self.leave()
        except SystemExit as end:
            restore()
            for number, handler in before.items():
                if end.code == 128 + number and callable(handler) and handler is not signal.default_int_handler:
                    handler(number, None)
            raise
        finally:
            restore()

    def take_note(self, number: int, frame: FrameType | None) -> None:
        """Store a signal."""
        if os.getpid() != self.process:  # SLURM signals the workers too, which are forks of this process
            return
        if number == signal.SIGHUP:
            redirect_dead_terminal()
        self.received = max(self.received, 1 + self.signals.index(signal.Signals(number)))

    def leave(self) -> None:
        """Exit if this process has received a signal: outside of training nothing is left to save."""
        self.watchdog.alive(in_loop=False, patience=ENDING if self.received else PATIENCE)
        if self.received:
            number = self.signals[self.received - 1]
            print(f"{number.name}: the same command goes on from here", file=sys.stderr)
            raise SystemExit(128 + number)

    def on_train_start(self, trainer: pl.Trainer, task: pl.LightningModule) -> None:
        self.stop_if_signalled(trainer, save=False)
        self.watchdog.alive()

    def on_train_batch_end(self, trainer: pl.Trainer, *_: object) -> None:
        self.watchdog.alive()
        if trainer.fit_loop.epoch_loop.batch_progress.current.ready % trainer.accumulate_grad_batches:
            return
        if trainer.is_last_batch or trainer.should_stop:
            return
        if trainer.world_size == 1 or trainer.global_step % self.every == 0:
            self.stop_if_signalled(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, task: pl.LightningModule) -> None:
        self.epoch_ended = True  # the callbacks of `write_checkpoints` save it: Lightning calls them last
        self.watchdog.alive(least=SAVING)

    def on_train_epoch_start(self, trainer: pl.Trainer, task: pl.LightningModule) -> None:
        self.watchdog.alive()
        if self.epoch_ended:
            self.epoch_ended = False
            self.stop_if_signalled(trainer, save=False)

    def stop_if_signalled(self, trainer: pl.Trainer, *, save: bool = True) -> None:
        """Save and leave, if any rank has received a signal."""
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
                print(f"{number.name}: {saved}the same command goes on from here", file=sys.stderr)
            self.watchdog.alive(in_loop=False, patience=ENDING)
            raise SystemExit(128 + number)

    def on_save_checkpoint(self, *_: object) -> None:
        self.watchdog.alive(patience=SAVING, least=SAVING)

    def on_train_end(self, *_: object) -> None:
        self.leave()

    def on_validation_batch_end(self, *_: object) -> None:
        self.watchdog.alive()

    def on_test_batch_end(self, *_: object) -> None:
        self.leave()
        self.watchdog.alive()

    def on_predict_batch_end(self, *_: object) -> None:
        self.leave()
        self.watchdog.alive()
