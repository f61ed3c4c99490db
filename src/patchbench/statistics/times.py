"""Steps until a task is solved, where some seeds never solve it within the budget.

A seed that did not get there counts as inf: later than every seed that did. The budget is one for all seeds compared.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float
from scipy.stats import binom, rankdata

from patchbench.statistics.amounts import exchange
from patchbench.statistics.inference import Values, two_sided

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


@dataclass(frozen=True)
class Sooner:
    """Median steps of one arm less those of another, with the test of ranks, which has no interval.

    estimate: nan where neither median seed gets there.
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
        """The p value of a bound of 0, the only one that ranks tell; 1 where medians and ranks disagree on the sign."""
        if bound != 0:
            raise ValueError(f"bound={bound}: ranks tell only which arm is sooner, so the bound must be 0")
        ranks = rankdata(np.concatenate([self.a, self.b]))
        later = float(ranks[: len(self.a)].mean() - ranks[len(self.a) :].mean())
        return p_of_ranks(self.a, self.b) if later * self.estimate > 0 else 1.0

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        return math.nan, math.nan
