"""Rates of error of the rules, their coverage and their power, by simulation: python scripts/simulate_rule.py."""

import math
from collections.abc import Callable, Mapping
from functools import lru_cache

import numpy as np
from jaxtyping import Bool, Float
from scipy import stats

from patchbench.study.amounts import masks
from patchbench.study.inference import ALPHA, least_seeds

POWER = 0.8
EXCHANGES = 9_999  # of many seeds, as many are sampled as tell a p value of 1 % to a tenth
Seeds = Float[np.ndarray, "samples n"]
Hits = Bool[np.ndarray, "n images"]
Draw = Callable[[np.random.Generator, tuple[int, int]], Seeds]


def normal(mean: float, sd: float) -> Draw:
    return lambda rng, size: rng.normal(mean, sd, size)


def exponential(mean: float, sd: float) -> Draw:
    """A long tail above the mean; below it if sd is negative."""
    return lambda rng, size: mean + sd * (rng.exponential(1.0, size) - 1)


def failing(rate: float) -> Draw:
    """Seeds at 99 %, but for a rate of them that stay at 50 %; sd 0.3 points."""
    return lambda rng, size: np.where(rng.random(size) < rate, 0.5, 0.99) + rng.normal(0, 0.003, size)


def right(images: int, accuracy: float, sd: float) -> Draw:
    """Right answers on so many images, as a fraction."""
    return lambda rng, size: rng.binomial(images, np.clip(rng.normal(accuracy, sd, size), 0, 1), size) / images


ARMS: Mapping[str, tuple[Draw, Draw]] = {  # two arms of equal means
    "normal": (normal(0, 1), normal(0, 1)),
    "normal, sd 1 and 5": (normal(0, 1), normal(0, 5)),
    "normal, sd 5 and 1": (normal(0, 5), normal(0, 1)),
    "uniform": (lambda rng, size: rng.random(size), lambda rng, size: rng.random(size)),
    "exponential": (exponential(1, 1), exponential(1, 1)),
    "lognormal": (lambda rng, size: rng.lognormal(size=size), lambda rng, size: rng.lognormal(size=size)),
    "half of the seeds fail": (failing(0.5), failing(0.5)),
    "1 of 5 seeds fails": (failing(0.2), failing(0.2)),
    "1 of 20 seeds fails": (failing(0.05), failing(0.05)),
    "360 images at 96.5 %": (right(360, 0.965, 0.006), right(360, 0.965, 0.006)),
    "360 images at 99.5 %": (right(360, 0.995, 0.0), right(360, 0.995, 0.0)),
    "4,000 images at 99.85 %": (right(4000, 0.9985, 0.0003), right(4000, 0.9985, 0.0003)),
    "exponential, normal": (exponential(1, 1), normal(1, 1)),
    "exponential, normal sd 0.1": (exponential(1, 1), normal(1, 0.1)),
    "exponential, mirrored": (exponential(1, 1), exponential(1, -1)),
    "half of the seeds fail, flat": (failing(0.5), normal(0.745, 0.003)),
    "1 of 5 seeds fails, flat": (failing(0.2), normal(0.892, 0.003)),
    "1 of 20 seeds fails, flat": (failing(0.05), normal(0.9655, 0.003)),
}


def exchange_ps(a: Seeds, b: Float[np.ndarray, "samples m"]) -> Float[np.ndarray, " samples"]:
    """The p values of no shift, by exchanges of seeds, of many samples at once."""
    n, m = a.shape[1], b.shape[1]
    pooled = np.concatenate([a, b], axis=1)
    taken = masks(n, m, 2 * EXCHANGES, EXCHANGES).T.astype(float)
    p = []
    for some in np.array_split(pooled, math.ceil(len(pooled) / 500)):
        sums = (some - some.mean(1, keepdims=True)) @ taken
        slack = 1e-9 * np.abs(some).max(1, keepdims=True)  # equal sums tie, however they were rounded
        most, least = (sums >= sums[:, :1] - slack).mean(1), (sums <= sums[:, :1] + slack).mean(1)
        p.append(np.minimum(1.0, 2 * np.minimum(most, least)))
    return np.concatenate(p)


def welch_ps(a: Seeds, b: Float[np.ndarray, "samples m"]) -> Float[np.ndarray, " samples"]:
    """The p values of no difference, by Welch's t, of many samples at once; 1 where all seeds are the same."""
    varies = (np.ptp(a, axis=1) > 0) | (np.ptp(b, axis=1) > 0)
    p = np.where(a.mean(1) == b.mean(1), 1.0, 0.0)
    p[varies] = stats.ttest_ind(a[varies], b[varies], axis=1, equal_var=False).pvalue
    return p


def wrong(arms: str, n: int, m: int, samples: int, claims: int = 1) -> dict[str, float]:
    """The shares of samples in which arms of equal means differ: by exchanges, by Welch's t, and by both, the rule.

    The rule's share is also the share of intervals that miss, since they invert the test.
    """
    rng = np.random.default_rng(0)
    a, b = (draw(rng, (samples, seeds)) for draw, seeds in zip(ARMS[arms], (n, m), strict=True))
    exchanged, welch = exchange_ps(a, b), welch_ps(a, b)
    tests = {"exchanges": exchanged, "Welch": welch, "both": np.maximum(exchanged, welch)}
    return {test: float((p <= ALPHA / claims).mean()) for test, p in tests.items()}


def smallest_effect(n: int, sd: float, claims: int = 1) -> float:
    """The smallest true difference of two arms that n seeds of each find with probability POWER; inf if none.

    sd: between the seeds of an arm. Found: p is at most ALPHA / claims, the strictest step of Holm.
    """
    return math.inf if n < least_seeds(claims) else sd * standard_effect(n, ALPHA / claims)


@lru_cache
def standard_effect(n: int, alpha: float, samples: int = 2000) -> float:
    """The smallest difference in units of sd: the distance that the lower limits reach below the difference."""
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, samples, n))
    taken = masks(n, n, 2 * EXCHANGES, EXCHANGES)
    moved = taken[:, n:].any(1)
    given, got = (~taken[moved, :n]).astype(float), taken[moved, n:].astype(float)
    shifts = (a @ given.T - b @ got.T) / got.sum(1)
    rejected = math.floor(alpha / 2 * len(taken) * (1 + 1e-12)) - int((~moved).sum())
    by_exchange = np.partition(shifts, rejected, axis=1)[:, rejected]
    by_welch = stats.ttest_ind(a, b, axis=1, equal_var=False).confidence_interval(1 - alpha).low
    return float(np.quantile(-np.minimum(by_exchange, by_welch), POWER))
