"""The interface of an amount with its error, and the correction for several claims (Holm, 1979)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Real
from statsmodels.stats.multitest import multipletests

ALPHA = 0.05
Values = Real[np.ndarray, " _"]  # results of the seeds of an arm, in any order


@runtime_checkable  # the shape checks of the tests call isinstance
class Amount(Protocol):
    """An estimate with its error. A bound lies outside `interval(level)` if and only if p(bound) is at most 1 - level.

    seeds: number of seeds of each arm. p: two-sided p value, twice the smaller tail.
    """

    @property
    def estimate(self) -> float: ...

    @property
    def seeds(self) -> tuple[int, ...]: ...

    def p(self, bound: float) -> float: ...

    def interval(self, level: float = 0.95) -> tuple[float, float]: ...


def two_sided(tails: tuple[float, float]) -> float:
    """Return twice the smaller tail, at most 1."""
    return min(1.0, 2 * min(tails))


@dataclass(frozen=True)
class Corrected:
    """A p value after Holm's correction, and the level at which the interval of the amount agrees with the decision."""

    p: float
    level: float


def correct(p: Sequence[float]) -> list[Corrected]:
    """Adjust p values by Holm's method: ALPHA bounds the probability of a false finding among all of them.

    Each amount is decided at the level 1 - ALPHA / (adjusted p / unadjusted p), so its bound lies outside the interval
    of this level if and only if the adjusted p is at most ALPHA. These intervals agree with the decisions, but they are
    not simultaneous confidence intervals.
    """
    if not p:
        return []
    adjusted = multipletests(p, ALPHA, method="holm")[1]
    return [
        Corrected(float(after), 1 - ALPHA * (before / after if before else 1 / len(p)))
        for before, after in zip(p, adjusted, strict=True)
    ]


def spread(values: Values) -> float:
    """Return the standard deviation between seeds; 0 if all values are equal up to rounding, nan below two seeds."""
    if len(values) < 2:
        return math.nan
    return float(np.std(values, ddof=1)) if np.ptp(np.round(values, decimals(values))) else 0.0


def decimals(values: Values) -> int:
    """Return the number of decimals to which sums of these values are rounded, so that equal sums tie.

    This keeps twelve digits of the largest value.
    """
    largest = float(np.abs(values).max(initial=0.0))
    return 11 - math.floor(math.log10(largest)) if largest else 12


def exact_accuracy(accuracies: Values, images: int) -> Float[np.ndarray, " _"]:
    """Return accuracies as exact fractions of this number of images, without the rounding of float32."""
    return np.round(accuracies * images) / images


def noise_of_test_set(accuracy: float, images: float) -> float:
    """Return the standard deviation of an accuracy due to the choice of test images alone; nan for no images."""
    return math.sqrt(max(0.0, accuracy * (1 - accuracy)) / images) if images else math.nan


def least_seeds(claims: int = 1) -> int:
    """Return the smallest number of seeds per arm with which two arms can decide the strictest of several claims."""
    return next(n for n in range(1, 100) if 2 / math.comb(2 * n, n) <= ALPHA / claims)
