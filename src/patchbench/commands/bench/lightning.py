"""Training by Lightning alone, to tell what the framework adds from what Lightning adds to a step."""

from collections.abc import Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from patchbench.commands.bench.bare import Plain, plain
from patchbench.commands.bench.rounds import Figures
from patchbench.commands.bench.training import Clock
from patchbench.track.device import Laps


class Task(pl.LightningModule):
    """The smallest module that trains: a loss and an optimizer."""

    def __init__(self, parts: Plain) -> None:
        super().__init__()
        self.net, self.parts = parts.net, parts

    def training_step(self, batch: tuple[Tensor, Tensor], number: int) -> Tensor:
        return self.parts.loss(*batch)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return self.parts.optimizer


class Times(Clock):
    """Clock that also has the seconds of each step after the first `warmup` steps."""

    def start(self, trainer: pl.Trainer) -> None:
        super().start(trainer)
        device = trainer.strategy.root_device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        self.laps = Laps(device)

    def on_train_batch_end(self, trainer: pl.Trainer, *_: object) -> None:
        super().on_train_batch_end(trainer)
        if self.warm:
            self.laps.mark()


def lightning(overrides: Sequence[str], *, steps: int, warmup: int) -> Figures:
    """Train as `bare` does, by Lightning's Trainer without loggers, checkpoints, validation and progress bar.

    overrides: see `plain`.
    """
    parts = plain(overrides, warmup + steps)
    times = Times(warmup)
    trainer = pl.Trainer(
        accelerator="gpu" if parts.device.type == "cuda" else "cpu",
        devices=1,
        precision=parts.precision,  # type: ignore[arg-type]
        max_steps=warmup + steps,
        gradient_clip_val=parts.cfg.optim.clip_grad,
        callbacks=[times],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    batches: Any = parts.batches  # Lightning takes any iterable
    trainer.fit(Task(parts), batches)
    return parts.figures(times.laps.read(), times.wall_s, times.cpu_s)
