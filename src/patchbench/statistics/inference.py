"""The form of every amount with its error, and the correction over several claims.

Several claims: Holm (1979).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Real
from statsmodels.stats.multitest import multipletests

ALPHA = 0.05
Values = Real[np.ndarray, " _"]  # of the seeds of an arm, in any order


@runtime_checkable  # the shape checks of the tests ask
class Amount(Protocol):
    """An estimate with its error. A bound lies outside `interval(level)` if and only if p(bound) is at most 1 - level.

    seeds: of each arm. p: two-sided, the smaller tail doubled.
    """

    @property
    def estimate(self) -> float: ...

    @property
    def seeds(self) -> tuple[int, ...]: ...

    def p(self, bound: float) -> float: ...

    def interval(self, level: float = 0.95) -> tuple[float, float]: ...


def two_sided(tails: tuple[float, float]) -> float:
    """The smaller tail, doubled."""
    return min(1.0, 2 * min(tails))


@dataclass(frozen=True)
class Corrected:
    """A p value after Holm's correction, and the level at which the interval of the amount agrees with the decision."""

    p: float
    level: float


def correct(p: Sequence[float]) -> list[Corrected]:
    """Adjust p values so that ALPHA bounds the chance of one false finding among all of them.

    An amount decides at ALPHA / (adjusted / unadjusted), so its bound lies outside of the interval of that level if and
    only if the adjusted p is at most ALPHA. Such intervals agree with the decisions; they do not hold all at once.
    """
    if not p:
        return []
    adjusted = multipletests(p, ALPHA, method="holm")[1]
    return [
        Corrected(float(after), 1 - ALPHA * (before / after if before else 1 / len(p)))
        for before, after in zip(p, adjusted, strict=True)
    ]


def spread(values: Values) -> float:
    """Standard deviation between seeds; 0 where all values are the same but for rounding, nan below two."""
    if len(values) < 2:
        return math.nan
    return float(np.std(values, ddof=1)) if np.ptp(np.round(values, decimals(values))) else 0.0


def decimals(values: Values) -> int:
    """Decimals to which sums of such values are rounded, so that equal sums tie: twelve digits of the largest."""
    largest = float(np.abs(values).max(initial=0.0))
    return 11 - math.floor(math.log10(largest)) if largest else 12


def exact_accuracy(accuracies: Values, images: int) -> Float[np.ndarray, " _"]:
    """Accuracies as the fractions of right answers that they were before float32 rounded them."""
    return np.round(accuracies * images) / images


def noise_of_test_set(accuracy: float, images: float) -> float:
    """Standard deviation of an accuracy that comes from the choice of test images alone."""
    return math.sqrt(max(0.0, accuracy * (1 - accuracy)) / images) if images else math.nan


def least_seeds(claims: int = 1) -> int:
    """The fewest seeds of each of two arms that can decide the strictest of several claims."""
    return next(n for n in range(1, 100) if 2 / math.comb(2 * n, n) <= ALPHA / claims)
