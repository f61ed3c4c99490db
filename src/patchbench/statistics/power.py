"""The smallest effect that a number of seeds can find."""

import math
from functools import lru_cache

import numpy as np
from scipy import stats

from patchbench.statistics.amounts import permutations
from patchbench.statistics.inference import ALPHA, least_seeds

POWER = 0.8
SAMPLES = 2000
PERMUTATIONS = 9_999  # sampled for more seeds than can be enumerated quickly


def smallest_effect(n: int, sd: float, claims: int = 1) -> float:
    """Return the smallest true difference that two arms of n seeds find with probability POWER; inf if none.

    sd: standard deviation between the seeds of an arm. An effect is found if p is at most ALPHA / claims, the strictest
    step of Holm.
    """
    return math.inf if n < least_seeds(claims) else sd * standard_effect(n, ALPHA / claims)


@lru_cache
def standard_effect(n: int, alpha: float) -> float:
    """Return the smallest difference that is found, in units of sd, by simulation of the lower end of the interval."""
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, SAMPLES, n))
    in_a = permutations(n, n, 2 * PERMUTATIONS, PERMUTATIONS)
    exchanging = in_a[:, n:].any(1)
    from_a, from_b = (~in_a[exchanging, :n]).astype(float), in_a[exchanging, n:].astype(float)
    shifts = (a @ from_a.T - b @ from_b.T) / from_b.sum(1)
    rejected = math.floor(alpha / 2 * len(in_a) * (1 + 1e-12)) - int((~exchanging).sum())
    by_permutation = np.partition(shifts, rejected, axis=1)[:, rejected]
    by_welch = stats.ttest_ind(a, b, axis=1, equal_var=False).confidence_interval(1 - alpha).low
    return float(np.quantile(-np.minimum(by_permutation, by_welch), POWER))
