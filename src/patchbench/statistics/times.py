"""Steps until a task is solved, if some seeds do not solve it within the budget.

A seed that does not solve the task counts as inf, later than every seed that does. All compared seeds have one budget.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float
from scipy.stats import binom, rankdata

from patchbench.statistics.amounts import permutation_test
from patchbench.statistics.inference import Values, two_sided

Steps = Float[np.ndarray, " _"]


def censored(steps: Values, budget: float) -> Steps:
    """Return the steps of each seed; inf if they exceed the budget, or are nan because the seed did not solve."""
    return np.where(steps <= budget, steps, math.inf).astype(float)


@dataclass(frozen=True)
class Median:
    """The median of the steps of an arm, with the sign test; the ends of its interval are steps of two seeds.

    The interval is -inf to inf if there are too few seeds for its level: below six seeds at 95 %.
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
        at_most, at_least = binom.cdf([below, above], len(self.steps), 0.5)
        return two_sided((float(at_most), float(at_least)))

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        tails = binom.cdf(np.arange(len(self.steps)), len(self.steps), 0.5)
        rejected = int((tails <= (1 - level) / 2 * (1 + 1e-12)).sum())  # number of seed counts with a too small tail
        if not rejected:
            return -math.inf, math.inf
        return float(self.sorted[rejected - 1]), float(self.sorted[-rejected])


def rank_test_p(a: Steps, b: Steps) -> float:
    """Return the two-sided p of "both arms need equally many steps", by a permutation test of ranks.

    All steps of inf share the last rank. The test tells which arm is earlier, but not by how much, because the steps of
    seeds that did not solve the task are unknown.
    """
    ranks = rankdata(np.concatenate([a, b]))
    return two_sided(permutation_test(ranks[: len(a)], ranks[len(a) :]).tails(0.0))


@dataclass(frozen=True)
class MedianDifference:
    """Median steps of one arm minus those of another, with the rank test, which has no interval.

    estimate: nan if both medians are inf.
    """

    a: Steps
    b: Steps

    @property
    def estimate(self) -> float:
        a, b = Median(self.a).estimate, Median(self.b).estimate
        return math.nan if math.isinf(a) and math.isinf(b) else a - b

    @property
    def seeds(self) -> tuple[int, ...]:
        return len(self.a), len(self.b)

    def p(self, bound: float) -> float:
        """Return the p value of a bound of 0; 1 if medians and ranks disagree on the sign. ValueError for others."""
        if bound != 0:
            raise ValueError(f"bound={bound}: ranks tell only which arm is earlier, so the bound must be 0")
        ranks = rankdata(np.concatenate([self.a, self.b]))
        later = float(ranks[: len(self.a)].mean() - ranks[len(self.a) :].mean())
        return rank_test_p(self.a, self.b) if later * self.estimate > 0 else 1.0

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        return math.nan, math.nan
