"""The length of a training in steps, from a budget of epochs, optimizer steps, floating-point operations or seconds."""

import copy
import math
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytorch_lightning as pl
import torch

from patchbench.data.batches import Batches
from patchbench.train.memory import MicroBatches, announce
from patchbench.train.task import Classify

TIMED, WARM_UP = 20, 5  # optimizer steps


@dataclass(frozen=True)
class Pace:
    """The cost of one optimizer step. seconds_per_step: measures the time of a step when it is called."""

    steps_per_epoch: int
    flops_per_step: int
    seconds_per_step: Callable[[], float]


Budget = Callable[[Pace], int]  # returns steps


def epochs(pace: Pace, *, value: int) -> int:
    return value * pace.steps_per_epoch


def steps(pace: Pace, *, value: int) -> int:
    return value


def flops(pace: Pace, *, value: float | int) -> int:
    """Return the number of steps for `value` FLOPs. ValueError if one step takes more."""
    if value < pace.flops_per_step:
        raise ValueError(
            f"budget.value={value:.3g} FLOPs are less than one step, which takes {pace.flops_per_step:.3g}: "
            "use a larger budget.value, or a smaller batch_size"
        )
    return int(value // pace.flops_per_step)


def seconds(pace: Pace, *, value: float | int) -> int:
    return max(1, int(value / pace.seconds_per_step()))


class Duration(pl.Callback):
    """End training when its budget is spent, also within an epoch, and then validate as at the end of an epoch.

    A checkpoint stores the number of steps, so that a resumed training has the same end and the same learning rates.
    Where trainer.max_time ends training before that, the number becomes that of the steps taken.
    """

    def __init__(self, budget: Budget, data: Batches, flops_per_step: int) -> None:
        self.budget, self.data, self.flops_per_step = budget, data, flops_per_step
        self.total: int | None = None

    def state_dict(self) -> dict[str, Any]:
        return {"total": self.total}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.total = state["total"]

    def steps(self, trainer: pl.Trainer) -> int:
        """Number of steps of the whole training, the same on all ranks. Devices and data must be ready."""
        if self.total is None:
            self.total = trainer.strategy.broadcast(self.steps_of_budget(lambda: seconds_per_step(trainer, self.data)))
        return self.total

    def check(self) -> None:
        """Raise ValueError before training if the budget is less than a step."""
        self.steps_of_budget(lambda: 1.0)

    def steps_of_budget(self, seconds_per_step: Callable[[], float]) -> int:
        """Return the number of steps for the budget. seconds_per_step: returns the time of a step."""
        return self.budget(Pace(self.data.steps_per_epoch(), self.flops_per_step, seconds_per_step))

    def on_fit_start(self, trainer: pl.Trainer, task: pl.LightningModule) -> None:
        trainer.fit_loop.max_epochs = math.ceil(self.steps(trainer) / self.data.steps_per_epoch())

    def on_train_start(self, trainer: pl.Trainer, task: pl.LightningModule) -> None:
        trainer.should_stop = trainer.global_step == self.total  # true if the checkpoint is that of the last step

    def on_train_batch_end(self, trainer: pl.Trainer, *_: object) -> None:
        """Stop after the last step, and validate.

        Lightning's own `max_steps` is not used: with it, a training resumed at the end of an epoch counts it twice.
        """
        if trainer.global_step == self.total and not trainer.is_last_batch:
            trainer.should_stop = True

    def on_validation_start(self, trainer: pl.Trainer, task: pl.LightningModule) -> None:
        """Keep the number of steps where training ends before its budget is spent: no later start may add to them."""
        if trainer.should_stop and self.total and trainer.global_step < self.total:
            announce(f"trainer.max_time is over: training ends after {trainer.global_step:,} of {self.total:,} steps")
            self.total = trainer.global_step


def seconds_per_step(trainer: pl.Trainer, data: Batches) -> float:
    """Measure the median time of TIMED optimizer steps on training batches, in seconds.

    The steps are those of the optimizer of the run. Their learning rate is 0, so that they change no weights.
    """
    task: Any = trainer.lightning_module
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, MicroBatches):
            callback.find_accumulation(trainer, task)
    before = [copy.deepcopy(buffer) for buffer in task.buffers()]  # restored below, such as running averages
    optimizer = task.make_optimizer()
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    batches, times = endless(data), []
    for _ in range(WARM_UP + TIMED):
        synchronise(task)
        start = time.perf_counter()
        for _ in range(trainer.accumulate_grad_batches):
            batch = trainer.strategy.batch_to_device(next(batches))
            with trainer.precision_plugin.forward_context():
                output: Any = trainer.strategy.training_step(batch, 0)
            (output["loss"] / trainer.accumulate_grad_batches).backward()
        optimizer.step()
        optimizer.zero_grad()
        synchronise(task)
        times.append(time.perf_counter() - start)
    for buffer, value in zip(task.buffers(), before, strict=True):
        buffer.copy_(value)
    return statistics.median(times[WARM_UP:])


def endless(data: Batches) -> Iterator[Any]:
    """Yield training batches without end, epoch after epoch."""
    while True:
        yield from data.train_dataloader()


def synchronise(task: Classify) -> None:
    """Wait until the GPU has finished; do nothing on a CPU."""
    if task.device.type == "cuda":
        torch.cuda.synchronize(task.device)
