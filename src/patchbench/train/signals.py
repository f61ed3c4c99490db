"""Stop a training at any step without losing it."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import pytorch_lightning as pl
import torch


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
