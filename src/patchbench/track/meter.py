"""Loss, throughput and memory of a training run, read from the device once in many steps.

Meaning of the names. All rates and times, except `wall`, are measured over steady training steps: without warm-up,
validation, checkpoints and logging, but with the time of waiting for data. A window is the steps between two rows.

train/loss, train/acc            mean over the images of the window, with augmentation
train/grad_norm, lr-AdamW        in the last step of the window; the norm is that before clipping
train/skipped_steps              steps left out so far, with a gradient that is not finite; with optim.nonfinite=skip
throughput/images_per_s          images of all ranks / time of the slowest rank
final/images_per_s_wall          images of all ranks / all time except validation, with the time between windows
throughput/tokens_per_s          images/s x tokens of the trunk, with prefix tokens; if the network has tokens
throughput/images_per_s_per_gpu  images/s per device, GPU or CPU
throughput/step_ms               mean time of an optimizer step, slowest rank
throughput/data_wait_ms, _frac   time in which the host waits for training images, slowest rank; per step, as a share
throughput/tflops_per_gpu        6 x forward multiply-accumulates / s, without recomputed ones
throughput/mfu                   tflops_per_gpu / dense bf16 peak; if the precision is bf16 and the peak is known
memory/gpu_peak_allocated_gib    peak memory of tensors in the window, largest over ranks
memory/gpu_peak_reserved_gib     peak memory of the allocator, largest over ranks
memory/gpu_alloc_retries         allocations that first had to free the cache; above 0 the speed is not representative
memory/cpu_rss_gib               peak resident memory in the epoch, sum over ranks, with their data workers
"""

import math
import statistics
import time
from array import array
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.profilers import PassThroughProfiler, Profiler
from torch import Tensor

from patchbench.data.source import Batch
from patchbench.nets.cost import Cost
from patchbench.track.device import GIB, Laps, bf16_peak, peak_resident_bytes, reset_peak_resident
from patchbench.track.finite import check_losses

WARM_UP = 3  # steps that do not count for speed: compilation, autotuning, start of the data workers


class DataWait(PassThroughProfiler):
    """Profiler that measures the seconds in which training waits for the next batch.

    profiler: the profiler that was asked for, which receives all calls as well. counting: true during the time that
    counts as training; the first batch of an epoch is read before.
    """

    nothing = nullcontext()

    def __init__(self, profiler: Profiler) -> None:
        super().__init__()
        self.profiler, self.seconds, self.counting = profiler, 0.0, False

    def setup(self, stage: str, local_rank: int | None = None, log_dir: str | None = None) -> None:
        self.profiler.setup(stage, local_rank, log_dir)

    def describe(self) -> None:
        self.profiler.describe()

    def teardown(self, stage: str | None) -> None:
        self.profiler.teardown(stage)

    def profile(self, action_name: str) -> AbstractContextManager[None]:  # type: ignore[override]
        """Return the context of the profiler, or an empty one if there is none: that of Lightning costs time."""
        return self.nothing if type(self.profiler) is PassThroughProfiler else self.profiler.profile(action_name)

    def start(self, action_name: str) -> None:
        self.profiler.start(action_name)
        if action_name.endswith("train_dataloader_next"):
            self.started = time.perf_counter()

    def stop(self, action_name: str) -> None:
        self.profiler.stop(action_name)
        if action_name.endswith("train_dataloader_next") and self.counting:
            self.seconds += time.perf_counter() - self.started


class Meter(pl.Callback):
    """Write a row of metrics to all loggers after every `every` optimizer steps; `summary()` covers the whole run."""

    def __init__(self, every: int, cost: Cost) -> None:
        self.every, self.cost = every, cost
        self.warm_up = min(WARM_UP, every)  # steps
        self.latest: dict[str, float] = {}
        self.step_s = array("d")
        self.images = self.seconds = self.waited = self.flops = 0.0  # over the whole run, steady steps only
        self.wall_images = self.wall_seconds = 0.0  # over the whole run, from the first steady step on
        self.wall_since: float | None = None
        self.peaks: dict[str, float] = {}
        self.best: dict[str, float] = {}
        self.validated: dict[str, float] = {}  # metrics of the last validation
        self.skipped = 0  # steps with a gradient that was not finite
        self.warm = False
        self.began: float | None = None
        self.earlier_s = 0.0

    def state_dict(self) -> dict[str, Any]:
        return {
            "best": self.best,
            "validated": self.validated,
            "wall_s": self.wall_s(),
            "skipped": self.skipped,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.best, self.earlier_s = state["best"], state["wall_s"]
        self.validated = state.get("validated", {})  # empty if the run was stopped before its first validation
        self.skipped = state.get("skipped", 0)

    def wall_s(self) -> float:
        """Seconds of training, summed over all starts of the run."""
        return self.earlier_s + (0.0 if self.began is None else time.perf_counter() - self.began)

    def on_train_start(self, trainer: pl.Trainer, task: Any) -> None:
        self.began = time.perf_counter()  # after the start of loggers, which may wait for a server
        self.device = trainer.strategy.root_device
        self.finite = task.finite
        self.laps = Laps(self.device)
        self.peak = bf16_peak(self.device) if "bf16" in str(trainer.precision) else None
        self.waiting = DataWait(trainer.profiler)  # type: ignore[attr-defined]
        trainer.profiler = self.waiting  # type: ignore[attr-defined]
        reset_peak_resident()
        self.start_window()

    def start_window(self) -> None:
        """Reset the sums of a window."""
        self.window_images = self.window_steps = self.window_batches = 0
        self.waiting.seconds = 0.0
        self.step_laps: list[float] = []
        self.losses: list[Tensor] = []  # of each batch; added up when the window ends, as are hits and images
        self.hits: list[Tensor] = []
        self.counts: list[int] = []
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)

    def start_clock(self) -> None:
        """Count the time from now on as training."""
        self.laps.mark()
        self.waiting.counting = True

    def stop_clock(self) -> None:
        """Stop counting the time as training, before validation, checkpoints and logging."""
        self.step_laps += self.laps.read()
        self.waiting.counting = False

    def on_train_epoch_start(self, trainer: pl.Trainer, task: pl.LightningModule) -> None:
        self.start_clock()  # so that waiting for the first batch of an epoch counts
        self.wall_since = time.perf_counter() if self.warm else None

    def on_train_batch_start(self, trainer: pl.Trainer, task: pl.LightningModule, batch: Batch, batch_idx: int) -> None:
        self.lr = trainer.optimizers[0].param_groups[0]["lr"]
        if not self.waiting.counting:  # training was resumed within an epoch
            self.start_clock()

    def on_train_batch_end(
        self, trainer: pl.Trainer, task: pl.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        images = len(batch[1])
        self.window_images += images
        if self.wall_since is not None:
            self.wall_images += images * trainer.world_size
        self.window_batches += 1
        self.losses.append(outputs["batch_loss"])
        self.hits.append(outputs["hits"])
        self.counts.append(images)
        if self.window_batches % trainer.accumulate_grad_batches == 0:
            self.laps.mark()
            self.window_steps += 1
            if self.window_steps == (self.every if self.warm else self.warm_up):
                self.end_window(trainer, task)
                self.start_window()
                self.start_clock()

    def on_train_epoch_end(self, trainer: pl.Trainer, task: pl.LightningModule) -> None:
        self.stop_clock()

    def on_validation_start(self, trainer: pl.Trainer, task: pl.LightningModule) -> None:
        """Check loss and gradient before a checkpoint is written."""
        if trainer.state.fn == "fit":
            self.stop_clock()
            if self.wall_since is not None:
                self.wall_seconds += time.perf_counter() - self.wall_since
                self.wall_since = None
            if self.window_steps:
                self.read_losses(trainer)

    def on_validation_end(self, trainer: pl.Trainer, task: pl.LightningModule) -> None:
        if trainer.state.fn == "fit":
            validated = {name: float(value) for name, value in trainer.callback_metrics.items()}
            check_losses(validated, f"after epoch {trainer.current_epoch + 1}")
            self.validated = validated
            best = max(validated["val/acc"], self.best.get("val/acc_best", 0.0))
            self.best = {"val/acc_best": best, "final/acc_best": best}
            self.latest |= validated
            row = validated | self.resident(trainer) | {"epoch": trainer.current_epoch + 1}
            self.write(trainer, row | self.summary())

    def on_train_end(self, trainer: pl.Trainer, task: pl.LightningModule) -> None:
        if self.window_steps:
            self.end_window(trainer, task)

    def read_losses(self, trainer: pl.Trainer) -> tuple[dict[str, float], int]:
        """Return loss, accuracy, gradient norm and learning rate of the window, and the number of steps left out.

        Diverged if loss or gradient is not finite.
        """
        norms_of_window = self.finite.check(trainer)
        norms = [norm for norm in norms_of_window if math.isfinite(norm)]
        losses, hits = torch.stack(self.losses), torch.stack(self.hits)
        counts = torch.tensor(self.counts, device=self.device)
        if self.finite.nonfinite == "skip":
            taken = losses.isfinite()
            losses, hits, counts = losses.where(taken, 0.0), hits.where(taken, 0), counts.where(taken, 0)
        sums = torch.stack([(losses * counts).sum(), hits.sum(), counts.sum()])
        loss, correct, images = (
            trainer.strategy.reduce(sums, reduce_op="sum") if trainer.world_size > 1 else sums
        ).tolist()
        row = {"train/grad_norm": norms[-1]}
        if images:
            row |= {"train/loss": loss / images, "train/acc": correct / images}
        check_losses(row, f"by step {trainer.global_step}")
        row[f"lr-{trainer.optimizers[0].__class__.__name__.removeprefix('Lightning')}"] = self.lr
        return row, len(norms_of_window) - len(norms)

    def end_window(self, trainer: pl.Trainer, task: pl.LightningModule) -> None:
        """Write the row of the window."""
        self.stop_clock()
        row, skipped = self.read_losses(trainer)
        self.skipped += skipped
        self.finite.norms = []
        if self.finite.nonfinite == "skip":
            row["train/skipped_steps"] = self.skipped
        if self.warm:
            row |= self.speed(trainer, sum(self.step_laps)) | self.memory(trainer)
            restart = self.device.type == "cuda" and len(self.step_laps) > 1  # the device is idle at the first step
            self.step_s.extend(self.step_laps[restart:])
        elif self.wall_since is None:
            self.wall_since = time.perf_counter()
        self.warm = True
        self.latest |= row
        self.write(trainer, row)

    def speed(self, trainer: pl.Trainer, seconds: float) -> dict[str, float]:
        """Return the throughput of the window. seconds: duration of the window on this rank."""
        world = trainer.world_size
        images = self.window_images * world
        slowest = torch.tensor([seconds, self.waiting.seconds], device=self.device, dtype=torch.float64)
        if world > 1:
            slowest = trainer.strategy.reduce(slowest, reduce_op="max")
        seconds, wait = slowest.tolist()
        self.images, self.seconds, self.waited = self.images + images, self.seconds + seconds, self.waited + wait
        flops = self.cost.train_flops(images, self.window_steps)
        self.flops += flops
        rate = images / seconds
        row = {
            "throughput/images_per_s": rate,
            "throughput/images_per_s_per_gpu": rate / world,
            "throughput/step_ms": 1000 * seconds / self.window_steps,
            "throughput/data_wait_ms": 1000 * wait / self.window_steps,
            "throughput/data_wait_frac": wait / seconds,
            "throughput/tflops_per_gpu": flops / seconds / world / 1e12,
        }
        if self.cost.num_tokens:
            row["throughput/tokens_per_s"] = rate * self.cost.num_tokens
        if self.peak:
            row["throughput/mfu"] = flops / seconds / world / self.peak
        return row

    def memory(self, trainer: pl.Trainer) -> dict[str, float]:
        """Return the peaks of GPU memory in the window; empty on a CPU."""
        row, reduce = {}, trainer.strategy.reduce
        if self.device.type == "cuda":
            stats = torch.cuda.memory_stats(self.device)
            names = ("allocated_bytes.all.peak", "reserved_bytes.all.peak", "num_alloc_retries")
            most = torch.tensor([stats.get(name, 0) for name in names], device=self.device, dtype=torch.float64)
            allocated, reserved, retries = (reduce(most, reduce_op="max") if trainer.world_size > 1 else most).tolist()
            row["memory/gpu_peak_allocated_gib"] = allocated / GIB
            row["memory/gpu_peak_reserved_gib"] = reserved / GIB
            row["memory/gpu_alloc_retries"] = retries
        self.update_peaks(row)
        return row

    def resident(self, trainer: pl.Trainer) -> dict[str, float]:
        """Return the peak of host memory in the epoch. It is read once an epoch, since that takes up to 50 ms."""
        most = torch.tensor(peak_resident_bytes(), device=self.device, dtype=torch.float64)
        total = trainer.strategy.reduce(most, reduce_op="sum") if trainer.world_size > 1 else most
        reset_peak_resident()
        row = {"memory/cpu_rss_gib": float(total) / GIB}
        self.update_peaks(row)
        return row

    def update_peaks(self, row: dict[str, float]) -> None:
        """Update the peaks over the whole run with those of a row."""
        for name, value in row.items():
            self.peaks[name] = max(value, self.peaks.get(name, 0.0))

    def write(self, trainer: pl.Trainer, row: dict[str, float]) -> None:
        """Write a row to all loggers, with the number of steps; Lightning's `log` takes longer than a small step."""
        for logger in trainer.loggers:
            logger.log_metrics(row, step=trainer.global_step)

    def summary(self) -> dict[str, float]:
        """Summarise the run as `final/...`: rates and quantiles over all steady steps, peaks of memory."""
        final = {name.replace("memory/", "final/"): value for name, value in self.peaks.items()}
        if self.step_s:
            rate = self.images / self.seconds
            share = self.latest["throughput/images_per_s_per_gpu"] / self.latest["throughput/images_per_s"]
            final |= {
                "final/images_per_s": rate,
                "final/ms_per_image": 1000 / rate,
                "final/step_ms_median": 1000 * statistics.median(self.step_s),
                "final/step_ms_p95": 1000 * sorted(self.step_s)[int(0.95 * len(self.step_s))],
                "final/data_wait_frac": self.waited / self.seconds,
                "final/tflops_per_gpu": self.flops / self.seconds * share / 1e12,
            }
            if self.cost.num_tokens:
                final["final/tokens_per_s"] = rate * self.cost.num_tokens
            if self.wall_seconds:
                final["final/images_per_s_wall"] = self.wall_images / self.wall_seconds
            if self.peak:
                final["final/mfu"] = final["final/tflops_per_gpu"] * 1e12 / self.peak
        if self.skipped:
            final["final/skipped_steps"] = self.skipped
        return final | self.best | {"time/wall_s": self.wall_s()}
