"""The smallest effect that so many seeds find."""

import math
from functools import lru_cache

import numpy as np
from scipy import stats

from patchbench.statistics.amounts import masks
from patchbench.statistics.inference import ALPHA, least_seeds

POWER = 0.8
SAMPLES = 2000
EXCHANGES = 9_999  # of more seeds than can be enumerated quickly


def smallest_effect(n: int, sd: float, claims: int = 1) -> float:
    """The smallest true difference of two arms that n seeds of each find with probability POWER; inf if none.

    sd: between the seeds of an arm. Found: p is at most ALPHA / claims, the strictest step of Holm.
    """
    return math.inf if n < least_seeds(claims) else sd * standard_effect(n, ALPHA / claims)


@lru_cache
def standard_effect(n: int, alpha: float) -> float:
    """The smallest difference in units of sd: the limits' distance below the difference, by simulation."""
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, SAMPLES, n))
    taken = masks(n, n, 2 * EXCHANGES, EXCHANGES)
    moved = taken[:, n:].any(1)
    given, got = (~taken[moved, :n]).astype(float), taken[moved, n:].astype(float)
    shifts = (a @ given.T - b @ got.T) / got.sum(1)
    rejected = math.floor(alpha / 2 * len(taken) * (1 + 1e-12)) - int((~moved).sum())
    by_exchange = np.partition(shifts, rejected, axis=1)[:, rejected]
    by_welch = stats.ttest_ind(a, b, axis=1, equal_var=False).confidence_interval(1 - alpha).low
    return float(np.quantile(-np.minimum(by_exchange, by_welch), POWER))
