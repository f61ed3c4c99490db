"""Rates of seeds that solve a task, k of n: exact tests for one arm and for the difference between two arms.

One arm: the binomial test and its interval (Clopper and Pearson, 1934). Two arms: an unconditional test at every margin
(Barnard, 1945; Chan and Zhang, 1999), inverted. All margins use one order of all tables, by their approximate lower
limits (Agresti and Caffo, 2000). So the p value rises and falls only once as the margin moves, and inverting the test
gives an interval, the shortest one for this order (Buehler, 1957; Kabaila and Lloyd, 2003). Ordering by the score
statistic, as scipy's `barnard_exact` does, gives nearly the same p at margin 0, but wider intervals if nearly all seeds
solve the task: 10 of 10 against 10 of 10 is within 0.46, here within 0.31.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float
from scipy.optimize import brentq, minimize_scalar
from scipy.special import gammaln, xlog1py, xlogy
from scipy.stats import binom, binomtest, norm

from patchbench.statistics.inference import two_sided

GRID = 201  # values of the unknown rate that are tried before the maximum is refined
Table = Bool[np.ndarray, "solved_a solved_b"]


@dataclass(frozen=True)
class Rate:
    """The rate at which the seeds of an arm solve a task: `solved` of `n` seeds."""

    solved: int
    n: int

    def __post_init__(self) -> None:
        if not 0 <= self.solved <= self.n or self.n < 1:
            raise ValueError(f"solved={self.solved} of n={self.n} is not a count of seeds")

    @property
    def estimate(self) -> float:
        return self.solved / self.n

    @property
    def seeds(self) -> tuple[int, ...]:
        return (self.n,)

    def p(self, bound: float) -> float:
        if not 0 <= bound <= 1:
            return 0.0
        at_most, at_least = binom.sf(self.solved - 1, self.n, bound), binom.cdf(self.solved, self.n, bound)
        return two_sided((float(at_most), float(at_least)))

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        low, high = binomtest(self.solved, self.n).proportion_ci(level, method="exact")
        return float(low), float(high)


@dataclass(frozen=True)
class RateDifference:
    """The rate of one arm minus the rate of another."""

    a: Rate
    b: Rate

    @property
    def estimate(self) -> float:
        return self.a.estimate - self.b.estimate

    @property
    def seeds(self) -> tuple[int, ...]:
        return (self.a.n, self.b.n)

    def tails(self, bound: float) -> tuple[float, float]:
        """Return one-sided p values of "the difference is at most the bound" and of "it is at least the bound"."""
        if not -1 <= bound <= 1:
            return float(bound > 1), float(bound < -1)
        return self.largest(self.as_large, bound), self.largest(self.as_small, bound)

    def p(self, bound: float) -> float:
        return two_sided(self.tails(bound))

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        tail = (1 - level) / 2
        low = self.crossing(self.as_large, tail) if not self.as_large.all() else -1.0
        high = self.crossing(self.as_small, tail) if not self.as_small.all() else 1.0
        return low, high

    def crossing(self, tables: Table, tail: float) -> float:
        """Return the margin at which the largest probability of these tables is `tail`."""
        return float(brentq(lambda bound: self.largest(tables, bound) - tail, -1.0, 1.0, xtol=1e-9))

    @cached_property
    def as_large(self) -> Table:
        """Mask of the tables with at least as much evidence for a large difference as the observed table."""
        order = lower_limits(self.a.n, self.b.n)
        return order >= order[self.a.solved, self.b.solved]

    @cached_property
    def as_small(self) -> Table:
        """Mask of the tables with at least as much evidence for a small difference as the observed table."""
        order = lower_limits(self.b.n, self.a.n).T
        return order >= order[self.a.solved, self.b.solved]

    def largest(self, tables: Table, bound: float) -> float:
        """Return the largest probability of these tables among all pairs of rates that differ by the bound."""
        start, end = max(0.0, -bound), min(1.0, 1.0 - bound)

        def probability(rate: Float[np.ndarray, " k"]) -> Float[np.ndarray, " k"]:
            of_a = binomial(self.a.n, np.clip(rate + bound, 0.0, 1.0))
            return ((of_a @ tables) * binomial(self.b.n, rate)).sum(1)

        rates = np.linspace(start, end, GRID)
        probabilities = probability(rates)
        best = int(probabilities.argmax())
        bracket = rates[max(best - 1, 0)], rates[min(best + 1, GRID - 1)]
        if bracket[0] == bracket[1]:
            return float(probabilities[best])
        finer = minimize_scalar(lambda rate: -probability(np.array([rate]))[0], bounds=bracket, method="bounded")
        return float(max(probabilities[best], -finer.fun))


def binomial(n: int, rates: Float[np.ndarray, " k"]) -> Float[np.ndarray, "k solved"]:
    """Return the probabilities of 0 to n successes at each rate."""
    x = np.arange(n + 1)
    ways = gammaln(n + 1) - gammaln(x + 1) - gammaln(n - x + 1)
    return np.exp(ways + xlogy(x, rates[:, None]) + xlog1py(n - x, -rates[:, None]))


def lower_limits(n: int, m: int) -> Float[np.ndarray, "solved_a solved_b"]:
    """Return for all tables the approximate lower limit of the first rate minus the second (Agresti and Caffo, 2000).

    One success and one failure are added to each arm.
    """
    first, second = ((np.arange(k + 1) + 1) / (k + 2) for k in (n, m))
    variance = (first * (1 - first) / (n + 2))[:, None] + second * (1 - second) / (m + 2)
    return np.round(first[:, None] - second - norm.isf(0.025) * np.sqrt(variance), 9)
