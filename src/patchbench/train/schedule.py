"""Learning-rate schedules, built from an optimizer and the number of its steps."""

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


def warmup_cosine(optimizer: Optimizer, total_steps: int, *, warmup: float) -> LambdaLR:
    """Rise linearly over the first `warmup` share of the steps, then fall to zero along a cosine."""
    rise = max(1, round(warmup * total_steps))

    def scale(step: int) -> float:
        if step < rise:
            return (step + 1) / rise
        return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, total_steps - rise)))

    return LambdaLR(optimizer, scale)
