"""Steps until a task is solved, where some seeds never solve it within the budget.

A seed that did not get there counts as inf: later than every seed that did. The budget is one for all seeds compared.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float
from scipy.stats import binom, rankdata

from patchbench.study.amounts import exchange
from patchbench.study.inference import Values, two_sided

Steps = Float[np.ndarray, " _"]


def within(steps: Values, budget: float) -> Steps:
    """The steps of each seed, inf where there were more than the budget, or none that sufficed (nan)."""
    return np.where(steps <= budget, steps, math.inf).astype(float)


@dataclass(frozen=True)
class Median:
    """The median of the steps of an arm: the sign test, and its interval between two of the seeds.

    The interval is -inf to inf below six seeds, which cannot bound a median at 95 %.
    """

    steps: Steps

    @cached_property
    def sorted(self) -> Steps:
        return np.sort(self.steps)

    @property
    def estimate(self) -> float:
        middle = len(self.steps) // 2
        return float(self.sorted[[middle, -1 - middle]].mean())

    @property
    def seeds(self) -> tuple[int, ...]:
        return (len(self.steps),)

    def p(self, bound: float) -> float:
        below, above = int((self.steps <= bound).sum()), int((self.steps >= bound).sum())
        most, least = binom.cdf([below, above], len(self.steps), 0.5)
        return two_sided((float(most), float(least)))

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        tails = binom.cdf(np.arange(len(self.steps)), len(self.steps), 0.5)
        rejected = int((tails <= (1 - level) / 2 * (1 + 1e-12)).sum())  # counts of seeds that are too few
        if not rejected:
            return -math.inf, math.inf
        return float(self.sorted[rejected - 1]), float(self.sorted[-rejected])


def p_of_ranks(a: Steps, b: Steps) -> float:
    """Two-sided p of "two arms take equally many steps", by every exchange of ranks; all that are inf share the last.

    The test says which arm is earlier, not by how much: the steps of a seed that never got there are unknown.
    """
    ranks = rankdata(np.concatenate([a, b]))
    return two_sided(exchange(ranks[: len(a)], ranks[len(a) :]).tails(0.0))
