"""Optimizer steps whose gradient is NaN or infinite: noticed on the device, and kept from the weights."""

import math
from collections.abc import Mapping
from typing import Literal

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.optim import Optimizer

NonFinite = Literal["stop", "skip"]


class Diverged(FloatingPointError):
    """A loss or a gradient is NaN or infinite; no checkpoint is written afterwards."""


class FiniteSteps:
    """Keep gradients that are not finite from the weights, without a wait for the device.

    nonfinite: `stop` leaves out the first such step and every later one, so that the weights stay those before it until
    `check` raises; `skip` leaves out such steps alone.
    A fused optimizer does nothing in a step where its `found_inf` is 1, as under torch's GradScaler. Other optimizers
    find no gradient then, for which the norm is read from the device. The gradient is that of all ranks, so all ranks
    decide alike.
    """

    def __init__(self, nonfinite: NonFinite) -> None:
        self.nonfinite = nonfinite
        self.norms: list[Tensor] = []  # of the gradient, in the steps of a window, which its reader empties
        self.found: Tensor | None = None  # 1 where this step is left out, else 0

    def watch(self, optimizer: Optimizer, norm: Tensor) -> None:
        """Look at the gradient that `optimizer` is about to use. norm: of all its gradients together."""
        found = (norm - norm).ne_(0).float()  # 1 where it is NaN or infinite, in fewer operations than isfinite
        if self.nonfinite == "stop" and self.found is not None:
            found = torch.maximum(self.found, found)
        self.found = found
        self.norms.append(norm)
        if all(group.get("fused") for group in optimizer.param_groups):
            optimizer.found_inf, optimizer.grad_scale = found, None  # type: ignore[attr-defined]
        elif found:
            for group in optimizer.param_groups:
                for parameter in group["params"]:
                    parameter.grad = None

    def check(self, trainer: pl.Trainer) -> list[float]:
        """Read `norms`, the latest last. Raises Diverged where training cannot go on."""
        norms = torch.stack(self.norms).tolist() if self.norms else []
        bad = [place for place, norm in enumerate(norms) if not math.isfinite(norm)]
        if bad and (self.nonfinite == "stop" or len(bad) == len(norms)):
            step = trainer.global_step - len(norms) + 1 + bad[0]
            each = max(1, int(trainer.num_training_batches) // trainer.accumulate_grad_batches)
            lr = trainer.optimizers[0].param_groups[0]["lr"]
            place = f"step {step} (epoch {(step - 1) // each + 1}, batch {(step - 1) % each + 1})"
            raise Diverged(
                f"training diverged at {place}: the norm of its gradient is {norms[bad[0]]}, "
                f"at a learning rate of {lr:.3g}; {cure(self.nonfinite)}"
            )
        return norms


def check_losses(metrics: Mapping[str, float], when: str) -> None:
    """Raise Diverged where a loss is NaN or infinite, which a last step can cause though its gradient was finite."""
    for name, value in metrics.items():
        if name.endswith("/loss") and not math.isfinite(value):
            raise Diverged(f"training diverged: {name} is {value} {when}; {cure('stop')}")


def cure(nonfinite: NonFinite) -> str:
    """Name what may help against divergence."""
    skip = ", or optim.nonfinite=skip, which leaves such steps out" * (nonfinite == "stop")
    return f"what is saved is from before: try a smaller optim.lr, a longer optim.warmup, or optim.clip_grad=1{skip}"
