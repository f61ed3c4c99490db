"""Detection of gradients that are NaN or infinite, on the device; such a gradient does not change the weights."""

import math
from collections.abc import Mapping
from typing import Literal

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.optim import Optimizer

NonFinite = Literal["stop", "skip"]


class Diverged(FloatingPointError):
    """Raised if a loss or a gradient is NaN or infinite, before a checkpoint is written."""


class FiniteSteps:
    """Leave out optimizer steps with a gradient that is not finite, without waiting for the device.

    nonfinite: `stop` leaves out the first such step and all later steps, so that the weights do not change until
    `check` raises; `skip` leaves out only steps with such a gradient.
    A fused optimizer does nothing in a step if its `found_inf` is 1, as with torch's GradScaler. For other optimizers
    the norm is read from the device and the gradients are removed. The gradient is reduced over all ranks, so that all
    ranks decide alike.
    """

    def __init__(self, nonfinite: NonFinite) -> None:
        self.nonfinite = nonfinite
        self.norms: list[Tensor] = []  # of the gradients since the last window; Meter empties the list
        self.found_inf: Tensor | None = None  # 1 if this step is left out, else 0

    def watch(self, optimizer: Optimizer, norm: Tensor) -> None:
        """Check the gradient before a step of `optimizer`. norm: of all gradients together."""
        found_inf = (norm - norm).ne_(0).float()  # 1 for NaN and infinity, in fewer operations than isfinite
        if self.nonfinite == "stop" and self.found_inf is not None:
            found_inf = torch.maximum(self.found_inf, found_inf)
        self.found_inf = found_inf
        self.norms.append(norm)
        if all(group.get("fused") for group in optimizer.param_groups):
            optimizer.found_inf, optimizer.grad_scale = found_inf, None  # type: ignore[attr-defined]
        elif found_inf:
            for group in optimizer.param_groups:
                for parameter in group["params"]:
                    parameter.grad = None

    def check(self, trainer: pl.Trainer) -> list[float]:
        """Return `norms` as numbers, the latest last. Diverged if training cannot continue."""
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
    """Raise Diverged if a loss is NaN or infinite: a step can cause that although its gradient was finite."""
    for name, value in metrics.items():
        if name.endswith("/loss") and not math.isfinite(value):
            raise Diverged(f"training diverged: {name} is {value} {when}; {cure('stop')}")


def cure(nonfinite: NonFinite) -> str:
    """Name options that may prevent the divergence."""
    skip = ", or optim.nonfinite=skip, which leaves such steps out" * (nonfinite == "stop")
    return f"the checkpoints are from before: try a smaller optim.lr, a longer optim.warmup, or optim.clip_grad=1{skip}"
