"""Differences of mean results between arms: the test, and the interval that inverts the test.

Two arms: a permutation test of the shift (Fisher, 1935; Pitman, 1937) and the t test of Welch (1947), and whichever of
the two sees less decides. The first is exact where both arms have one shape, so also for ties, ceilings and failing
seeds; the second holds its rate where the spreads differ. Called different at 5 % where the means are equal, of 6 or 10
seeds (`python scripts/simulate_rule.py`): 1 to 5 % of samples of one shape, 3 to 6 % with one sd five times the other,
4 to 11 % with a long tail in one arm only. Where seeds fail in one arm only, few seeds may show no failure, and no test
of means sees it: 11 to 26 % if one seed in five fails, 60 to 74 % if one in twenty. Rates of solved seeds (rates.py)
say how many may fail.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations

import numpy as np
from jaxtyping import Bool, Float
from scipy import stats

from patchbench.statistics.inference import Amount, Values, decimals, spread, two_sided

ENUMERATED = math.comb(20, 10)  # exchanges up to which every one is tried: ten seeds in each arm
SAMPLED = 99_999
Masks = Bool[np.ndarray, "exchanges seeds"]


@dataclass(frozen=True)
class StudentT:
    """A sum of means whose error is measured by Student's t. se is 0 where no seed differs, inf below two seeds.

    Seeds that do not differ have no t: they are as sure as so many seeds can be of two arms, by the test of exchanges.
    """

    estimate: float
    seeds: tuple[int, ...]
    se: float
    df: float
    decimals: int = 12

    def tails(self, bound: float) -> tuple[float, float]:
        """One-sided p values of "the amount is at most the bound" and of "at least the bound"."""
        apart = round(self.estimate - bound, self.decimals)
        if self.se == 0:
            return (self.surest if apart > 0 else 1.0), (self.surest if apart < 0 else 1.0)
        t = apart / self.se
        return float(stats.t.sf(t, self.df)), float(stats.t.cdf(t, self.df))

    def p(self, bound: float) -> float:
        return two_sided(self.tails(bound))

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        if self.se == 0:
            half = 0.0 if 2 * self.surest <= (1 - level) * (1 + 1e-12) else math.inf
        else:
            half = float(stats.t.isf((1 - level) / 2, self.df)) * self.se
        return self.estimate - half, self.estimate + half

    @property
    def surest(self) -> float:
        """The smallest tail of exchanges between two arms of so many seeds."""
        fewest = min(self.seeds)
        return 1 / math.comb(2 * fewest, fewest)


@dataclass(frozen=True)
class Exchange:
    """The permutation test of "arm a is arm b, shifted by the bound".

    An exchange of k seeds of a, less the bound, for k seeds of b leaves the difference of means as large as it was if
    the difference between the means of the exchanged seeds is at most the bound. So the share of exchanges that
    speak for a bound is a count of such differences, and the limits of the interval are two of them.

    shifts: these differences, sorted. unchanged: exchanges of nothing. total: all exchanges.
    """

    shifts: Float[np.ndarray, " exchanges"]
    unchanged: int
    total: int
    decimals: int

    def tails(self, bound: float) -> tuple[float, float]:
        """One-sided p values of "the shift is at most the bound" and of "at least the bound"."""
        bound = round(bound, self.decimals)
        below = int(np.searchsorted(self.shifts, bound, side="right"))
        above = len(self.shifts) - int(np.searchsorted(self.shifts, bound, side="left"))
        return (self.unchanged + below) / self.total, (self.unchanged + above) / self.total

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        rejected = math.floor((1 - level) / 2 * self.total * (1 + 1e-12)) - self.unchanged
        if rejected < 0:
            return -math.inf, math.inf
        return float(self.shifts[rejected]), float(self.shifts[-1 - rejected])


@dataclass(frozen=True)
class Difference:
    """The mean of one arm less the mean of another, by the weaker evidence of the two tests."""

    estimate: float
    seeds: tuple[int, ...]
    exchange: Exchange
    student: StudentT

    def p(self, bound: float) -> float:
        most, least = zip(self.exchange.tails(bound), self.student.tails(bound), strict=True)
        return two_sided((max(most), max(least)))

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        lows, highs = zip(self.exchange.interval(level), self.student.interval(level), strict=True)
        return min(lows), max(highs)


@dataclass(frozen=True)
class OverImages(StudentT):
    """A sum of means whose error comes from the choice of seeds and from the choice of test images.

    of_images: the share of the error variance that the images bring.
    """

    of_images: float = 0.0


@dataclass(frozen=True)
class Weaker:
    """One amount by two tests, of which the one that sees less decides."""

    first: Amount
    second: Amount

    @property
    def estimate(self) -> float:
        return self.first.estimate

    @property
    def seeds(self) -> tuple[int, ...]:
        return self.first.seeds

    def p(self, bound: float) -> float:
        return max(self.first.p(bound), self.second.p(bound))

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        lows, highs = zip(self.first.interval(level), self.second.interval(level), strict=True)
        return min(lows), max(highs)


def amount(signs: Sequence[int], arms: Sequence[Values]) -> Amount:
    """The sum of the means of arms, each with its sign: by both tests if it is a - b, else by Student's t."""
    if len(arms) == 2 and sorted(signs) == [-1, 1]:
        a, b = arms if signs[0] > 0 else reversed(arms)
        return difference(a, b)
    return total(signs, arms)


def difference(a: Values, b: Values) -> Difference:
    """The mean of the seeds of a less that of b. The seeds are not paired, and may be of different number."""
    student = total((1, -1), (a, b))
    return Difference(student.estimate, student.seeds, exchange(a, b), student)


def total(signs: Sequence[int], arms: Sequence[Values]) -> StudentT:
    """The sum of the means of arms, each with its sign: Student's t for one, Welch and Satterthwaite's for several."""
    finite(arms)
    places = decimals(np.concatenate(arms))
    estimate = round(float(sum(sign * arm.mean() for sign, arm in zip(signs, arms, strict=True))), places)
    seeds = tuple(map(len, arms))
    if min(seeds) < 2:
        return StudentT(estimate, seeds, math.inf, 1.0, places)
    variances = [(sign * spread(arm)) ** 2 / len(arm) for sign, arm in zip(signs, arms, strict=True)]
    return StudentT(
        estimate, seeds, math.sqrt(sum(variances)), satterthwaite(variances, [n - 1 for n in seeds]), places
    )


def satterthwaite(variances: Sequence[float], df: Sequence[int]) -> float:
    """The degrees of freedom of a sum of variances (Satterthwaite, 1946)."""
    whole = sum(variances)
    return whole**2 / sum(v**2 / d for v, d in zip(variances, df, strict=True)) if whole else float(min(df))


def exchange(a: Values, b: Values) -> Exchange:
    """The permutation test of the shift between two arms: every exchange, or a fixed sample of very many."""
    finite((a, b))
    taken = masks(len(a), len(b))
    given, got = ~taken[:, : len(a)], taken[:, len(a) :]
    size = got.sum(1)
    moved = size > 0
    places = decimals(np.concatenate([a, b]))
    shifts = np.sort(np.round((given[moved] @ a - got[moved] @ b) / size[moved], places))
    return Exchange(shifts, int((~moved).sum()), len(taken), places)


@lru_cache(maxsize=8)
def masks(n: int, m: int, enumerated: int = ENUMERATED, sampled: int = SAMPLED) -> Masks:
    """The seeds, among n + m, that make up arm a after each exchange; the first exchanges nothing.

    enumerated: exchanges up to which every one is listed; of more, `sampled` are drawn, always the same.
    """
    if math.comb(n + m, n) <= enumerated:
        chosen = np.array(list(combinations(range(n + m), n)))
    else:
        order = np.random.default_rng(0).random((1 + sampled, n + m))
        order[0] = np.arange(n + m)
        chosen = np.argsort(order, axis=1)[:, :n]
    taken = np.zeros((len(chosen), n + m), dtype=bool)
    np.put_along_axis(taken, chosen, True, axis=1)
    taken.setflags(write=False)
    return taken


def over_images(signs: Sequence[int], hits: Sequence[Bool[np.ndarray, "_ images"]]) -> OverImages:
    """The sum of the accuracies of arms, each with its sign, over seeds and over images like the tested ones.

    The variance of the sum has a part for the seeds of each arm, and one for the images: that of the mean hits of each
    image, less the part of it that comes from few seeds, which the seeds' variance counts already. Degrees of freedom:
    Satterthwaite's. Called different where arms are equal: in 4 to 6 % of samples, for 6 and 10 seeds and 360 to 4,000
    images. Seeds alone call up to 45 % different; the bootstrap of seeds and images with percentiles (Owen and Eckles,
    2012) 1 to 4 % on 360 images, as it counts the interaction more than once, and 8 % where the seeds make up the
    variance, as it knows no degrees of freedom (scripts/simulate_rule.py).

    hits: for each arm, of its seeds (rows) on the same images (columns), true where the answer was right.
    """
    images = hits[0].shape[1]
    seeds = tuple(len(arm) for arm in hits)
    if min(seeds) < 2:
        raise ValueError(f"hits: arms of {seeds} seeds; the spread between seeds needs two seeds of each arm")
    of_seeds, interaction = [], 0.0
    profile = np.zeros(images)
    for sign, arm in zip(signs, hits, strict=True):
        right = np.asarray(arm, dtype=float)
        by_seed, by_image = right.mean(1), right.mean(0)
        residual = right - by_seed[:, None] - by_image + right.mean()
        n = len(right)
        of_seeds.append(sign**2 * float(by_seed.var(ddof=1)) / n)
        interaction += sign**2 * float((residual**2).sum()) / ((n - 1) * (images - 1)) / (n * images)
        profile += sign * by_image
    of_profile = float(profile.var(ddof=1)) / images
    of_images = max(0.0, of_profile - interaction)
    variance = sum(of_seeds) + of_images
    df = satterthwaite([*of_seeds, of_images], [*(n - 1 for n in seeds), images - 1])
    share = of_images / variance if variance else 0.0
    return OverImages(round(float(profile.mean()), 12), seeds, math.sqrt(variance), df, of_images=share)


def finite(arms: Sequence[Values]) -> None:
    for arm in arms:
        if not len(arm) or not np.isfinite(arm).all():
            raise ValueError(f"an arm has the results {arm.tolist()}; each seed needs a finite one")
