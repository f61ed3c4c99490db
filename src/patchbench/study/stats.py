"""The statistics of a few paired seeds: intervals, exact p values, equivalence, and power.

BCa bootstrap: Efron (1987). Sign flips: Fisher (1935). TOST: Schuirmann (1987). Several comparisons: Holm (1979).
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from itertools import product

import numpy as np
from jaxtyping import Float
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower
from statsmodels.stats.weightstats import DescrStatsW

ALPHA = 0.05
LEAST_SEEDS = math.ceil(math.log2(2 / ALPHA))  # below, the smallest two-sided sign-flip p, 2 / 2^n, is above ALPHA: 6
POWER = 0.8
RESAMPLES = 9999
ENUMERATED = 2**16  # sign flips up to which every one is tried: sixteen seeds
Values = Float[np.ndarray, " n"]


@dataclass(frozen=True)
class Estimate:
    """Mean, standard deviation and 95 % interval of the mean of n seeds; nan where n does not suffice."""

    n: int
    mean: float
    sd: float
    low: float
    high: float


def spread(values: Values) -> float:
    """Standard deviation; 0 where all values are the same but for rounding."""
    sd = float(np.std(values, ddof=1)) if len(values) > 1 else math.nan
    return 0.0 if sd <= 1e-12 * max(1.0, float(np.abs(values).max(initial=0.0))) else sd


def t_estimate(values: Values) -> Estimate:
    """The mean with its interval by Student's t."""
    n, sd = len(values), spread(values)
    mean = float(values.mean()) if n else math.nan
    half = float(stats.t.ppf(1 - ALPHA / 2, n - 1)) * sd / math.sqrt(n) if n > 1 else math.nan
    return Estimate(n, mean, sd, mean - half, mean + half)


def bca_estimate(values: Values) -> Estimate:
    """The mean with its bias-corrected and accelerated bootstrap interval, the same at every call."""
    n, sd = len(values), spread(values)
    mean = float(values.mean()) if n else math.nan
    if n < 2 or sd == 0:
        edge = mean if n > 1 else math.nan
        return Estimate(n, mean, sd, edge, edge)
    result = stats.bootstrap(
        (values,),
        np.mean,
        confidence_level=1 - ALPHA,
        n_resamples=RESAMPLES,
        method="BCa",
        rng=np.random.default_rng(0),
    )
    return Estimate(n, mean, sd, *map(float, result.confidence_interval))


def sign_flip_p(values: Values, null: float = 0.0) -> float:
    """Two-sided p of "symmetric about `null`", over all 2^n flips of sign (a sample of them above sixteen values)."""
    apart = values - null
    apart[np.abs(apart) < 1e-12] = 0.0  # a difference of two equal accuracies is no evidence, however it was rounded
    if len(apart) < 2:
        return 1.0
    result = stats.permutation_test(
        (apart,),
        lambda x, axis: np.mean(x, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=ENUMERATED,
        rng=np.random.default_rng(0),
    )
    return float(result.pvalue)


def tost_p(values: Values, low: float, high: float) -> float:
    """The p value of "the mean is not between low and high": the larger one of two one-sided t tests."""
    if len(values) < 2:
        return 1.0
    if spread(values) == 0:
        return 0.0 if low < values.mean() < high else 1.0
    return float(DescrStatsW(values).ttost_mean(low, high)[0])


def holm(p: Float[np.ndarray, " m"]) -> Float[np.ndarray, " m"]:
    """Adjust p values so that ALPHA bounds the chance of one false finding among all m."""
    return multipletests(p, ALPHA, method="holm")[1] if len(p) else p


def detectable(n: int, sd: float, comparisons: int = 1) -> float:
    """The smallest true difference that n paired seeds find with probability POWER; inf where they can find none.

    sd: of the differences. Found: the sign-flip p is at most ALPHA / comparisons, the strictest step of Holm.
    """
    if math.isnan(sd):
        return math.inf
    return sd * standard_effect(n, ALPHA / comparisons) if sd else 0.0 if 2 / 2**n <= ALPHA / comparisons else math.inf


@lru_cache
def standard_effect(n: int, alpha: float) -> float:
    """The smallest difference in units of sd. Up to twelve seeds by simulation: there the t test promises too much."""
    if 2 / 2**n > alpha:
        return math.inf
    if n > 12:
        return float(TTestPower().solve_power(nobs=n, alpha=alpha, power=POWER))
    noise = np.random.default_rng(0).standard_normal((4000, n))
    low, high = 0.0, 16.0
    for _ in range(12):
        middle = (low + high) / 2
        power = float(np.mean(sign_flip_ps(noise + middle) <= alpha))
        low, high = (low, middle) if power >= POWER else (middle, high)
    return high


def sign_flip_ps(samples: Float[np.ndarray, "k n"]) -> Float[np.ndarray, " k"]:
    """The `sign_flip_p` of many samples of few values at once."""
    flips = np.array(list(product((1.0, -1.0), repeat=samples.shape[1])))
    sums = np.abs(samples @ flips.T)  # the first flips nothing
    return (sums >= sums[:, :1] * (1 - 1e-12)).mean(axis=1)


def noise_of_test_set(accuracy: float, images: float) -> float:
    """Standard deviation of an accuracy that comes from the choice of test images alone."""
    return math.sqrt(max(0.0, accuracy * (1 - accuracy)) / images) if images else math.nan
