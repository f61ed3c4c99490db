"""The progress of a training: a bar in the terminal, and a file for the view of a sweep."""

import json
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytorch_lightning as pl
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from patchbench.track.meter import Meter

FILE_EVERY_S = 1.0


class ProgressBar(pl.callbacks.ProgressBar):
    """Show one bar for the whole training: loss, accuracy, images/s, time left. Without a terminal, a line per epoch.

    file: JSON for the view of a sweep, with step, total and figures during training; None: no file.
    """

    def __init__(self, meter: Meter, file: Path | None) -> None:
        super().__init__()
        self.meter = meter
        self.file, self.file_due = file, 0.0
        self.console = Console(stderr=True)
        self.bar: Progress | None = None

    def on_train_start(self, trainer: pl.Trainer, task: pl.LightningModule) -> None:
        if trainer.is_global_zero and self.console.is_terminal:
            self.bar = Progress(
                TextColumn("epoch {task.fields[epoch]}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[figures]}"),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(elapsed_when_finished=False),
                console=self.console,
                refresh_per_second=4,
            )
            self.row = self.bar.add_task("", total=trainer.estimated_stepping_batches, epoch="", figures="")
            self.bar.start()

    def on_train_batch_end(self, trainer: pl.Trainer, *_: object) -> None:
        if self.bar:
            epoch = f"{trainer.current_epoch + 1}/{trainer.max_epochs}"
            self.bar.update(self.row, completed=trainer.global_step, epoch=epoch, figures=self.figures())

        elif self.file and trainer.is_global_zero and time.monotonic() > self.file_due:
            self.file_due = time.monotonic() + FILE_EVERY_S
            total = trainer.estimated_stepping_batches
            state = {"step": trainer.global_step, "total": total, "figures": self.figures()}
            with suppress(OSError):  # an incomplete file does no harm: the view ignores it until the next second
                self.file.write_text(json.dumps(state))

    def on_validation_end(self, trainer: pl.Trainer, task: pl.LightningModule) -> None:
        if trainer.state.fn == "fit" and trainer.is_global_zero and not self.console.is_terminal:
            print(f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}  {self.figures()}", file=sys.stderr)

    def figures(self) -> str:
        """Return the latest loss, accuracies and speed as text."""
        row = self.meter.latest
        figures = []
        if "train/loss" in row:
            figures.append(f"loss {row['train/loss']:.3f}  train acc {row['train/acc']:.1%}")
        if "val/acc" in row:
            figures.append(f"val acc {row['val/acc']:.1%}")
        if "throughput/images_per_s" in row:
            figures.append(f"{row['throughput/images_per_s']:,.0f} images/s")
        return "  ".join(figures)

    def disable(self) -> None:
        """Remove the bar."""
        if self.bar:
            self.bar.stop()

    def on_train_end(self, *_: object) -> None:
        self.disable()

    def on_exception(self, *_: object) -> None:
        self.disable()
