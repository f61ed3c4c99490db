"""Speed and memory of training, as train.py trains, for some steps."""

import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from omegaconf import DictConfig

from patchbench.commands.bench.rounds import Figures
from patchbench.commands.loggers import start_loggers
from patchbench.commands.train import prepare
from patchbench.config.compose import composed
from patchbench.config.origin import origin_of
from patchbench.track.device import Laps
from patchbench.track.progress import ProgressBar

OF_METER = (  # figures of track/meter.py, over the steps after the warm-up
    "images_per_s",
    "tokens_per_s",
    "step_ms_median",
    "step_ms_p95",
    "data_wait_frac",
    "tflops_per_gpu",
    "mfu",
    "gpu_peak_allocated_gib",
    "gpu_peak_reserved_gib",
    "gpu_alloc_retries",
    "cpu_rss_gib",
)


class Clock(pl.Callback):
    """Callback that sums wall and CPU time after the first `warmup` steps, with pauses, but without validation."""

    def __init__(self, warmup: int) -> None:
        self.warmup, self.warm = warmup, False
        self.wall_s = self.cpu_s = 0.0
        self.since: tuple[float, float] | None = None

    def start(self, trainer: pl.Trainer) -> None:
        synchronize(trainer.strategy.root_device)
        self.warm, self.since = True, (time.perf_counter(), time.process_time())

    def stop(self, trainer: pl.Trainer) -> None:
        if self.since is not None:
            synchronize(trainer.strategy.root_device)
            self.wall_s += time.perf_counter() - self.since[0]
            self.cpu_s += time.process_time() - self.since[1]
            self.since = None

    def on_train_epoch_start(self, trainer: pl.Trainer, task: pl.LightningModule) -> None:
        if self.warm:
            self.start(trainer)

    def on_train_batch_end(self, trainer: pl.Trainer, *_: object) -> None:
        if not self.warm and trainer.global_step == self.warmup:
            self.start(trainer)

    def on_validation_start(self, trainer: pl.Trainer, task: pl.LightningModule) -> None:
        self.stop(trainer)

    def on_train_end(self, trainer: pl.Trainer, task: pl.LightningModule) -> None:
        self.stop(trainer)


class HostTime(pl.Callback):
    """Callback that measures the time of the host for each batch. It does not synchronise with the device.

    The time contains a wait for the device if the queue of launches is full, as with a large network. first: seconds
    from the construction of this object to the end of the first batch.
    """

    def __init__(self) -> None:
        self.began = time.perf_counter()
        self.first: float | None = None
        self.seconds: list[float] = []

    def on_train_batch_start(self, *_: object) -> None:
        self.step_began = time.perf_counter()

    def on_train_batch_end(self, *_: object) -> None:
        now = time.perf_counter()
        self.first = self.first or now - self.began
        self.seconds.append(now - self.step_began)


def training(overrides: Sequence[str], steps: int) -> DictConfig:
    """Compose the configuration of a training of `steps` steps.

    overrides: options of train.py, without a budget. Rows of metrics go to a file, unless the overrides have a logger.
    """
    return composed(["logger=csv", *overrides, "budget=steps", f"budget.value={steps}"])


def trained(
    overrides: Sequence[str],
    *,
    steps: int,
    warmup: int,
    callbacks: Sequence[pl.Callback] = (),
    bar: bool = False,
) -> Figures:
    """Train for `warmup` + `steps` steps as train.py does, without checkpoints and test; return the figures.

    The first `warmup` steps count only for `seconds_to_first_step`. Validation is one batch per epoch. callbacks: are
    called after those of train.py. bar: keep the progress bar.
    `images_per_s`, `step_ms_median` and `step_ms_p95` count steps only; `step_ms_wall` and `step_cpu_ms` also count the
    pauses between steps, except validation.
    """
    cfg = training(overrides, warmup + steps)
    host, clock = HostTime(), Clock(warmup)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        out_dir, choices = Path(folder), cfg.hydra.runtime.choices
        ready = prepare(cfg, origin_of(cfg, choices), out_dir, anew=False, in_sweep=False)
        trainer: Any = ready.trainer
        others = [callback for callback in trainer.callbacks if bar or not isinstance(callback, ProgressBar)]
        trainer.callbacks = [*others, host, *callbacks, clock]
        trainer.save_checkpoint = lambda *_, **__: None  # writing a large network takes seconds
        trainer.limit_val_batches = 1
        ready.meter.warm_up = warmup
        trainer.loggers = start_loggers(cfg, ready.origin, ready.draft.cost, out_dir, stack, resume=False)
        trainer.fit(ready.task, ready.data)
    result, cost = ready.meter.summary(), ready.draft.cost
    figures: Figures = {"batch_size": cfg.batch_size, "steps": steps, "tokens": cost.num_tokens}
    figures |= {"gmacs": cost.macs / 1e9, "micro_batches": trainer.accumulate_grad_batches}
    figures |= {name: result[f"final/{name}"] for name in OF_METER if f"final/{name}" in result}
    figures |= per_step(clock.wall_s, clock.cpu_s, steps, cfg.batch_size)
    figures["image_ms"] = figures["step_ms_median"] / cfg.batch_size
    figures |= {"seconds_to_first_step": host.first, "host_ms_median": ms(host.seconds[warmup:])}
    times = list(ready.meter.step_s)
    if len(times) >= 100:
        figures |= {"first_50_step_ms": ms(times[:50]), "last_50_step_ms": ms(times[-50:])}
    return figures


def per_step(wall_s: float, cpu_s: float, steps: int, batch_size: int) -> Figures:
    """Return wall time and CPU time of this process, per step and per image, and images per second of wall time."""
    return {
        "step_ms_wall": 1000 * wall_s / steps,
        "step_cpu_ms": 1000 * cpu_s / steps,
        "images_per_s_wall": steps * batch_size / wall_s,
        "image_ms_wall": 1000 * wall_s / steps / batch_size,
        "image_cpu_ms": 1000 * cpu_s / steps / batch_size,
    }


def timed_steps(
    step: Callable[[], object], steps: int, warmup: int, device: torch.device
) -> tuple[list[float], float, float]:
    """Time steps after a warm-up; return the seconds of each step on the device, and wall and CPU seconds of all."""
    for _ in range(warmup):
        step()
    synchronize(device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    laps = Laps(device)
    wall, cpu = time.perf_counter(), time.process_time()
    laps.mark()
    for _ in range(steps):
        step()
        laps.mark()
    times = laps.read()
    return times, time.perf_counter() - wall, time.process_time() - cpu


def step_times(seconds: Sequence[float], batch_size: int) -> Figures:
    """Return the throughput of steps of one batch each, and median and 95th percentile of their times `seconds`."""
    figures: Figures = {"batch_size": batch_size, "steps": len(seconds)}
    figures |= {"images_per_s": len(seconds) * batch_size / sum(seconds)}
    figures |= {"step_ms_median": ms(seconds), "step_ms_p95": p95(seconds)}
    return figures | {"image_ms": figures["step_ms_median"] / batch_size}


def ms(seconds: Sequence[float]) -> float:
    """Return the median in milliseconds."""
    return 1000 * statistics.median(seconds)


def p95(seconds: Sequence[float]) -> float:
    """Return the 95th percentile in milliseconds."""
    return 1000 * sorted(seconds)[int(0.95 * len(seconds))]


def synchronize(device: torch.device) -> None:
    """Wait until the device has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
