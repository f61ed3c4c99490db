"""Differences of mean results between arms: tests, and the intervals that invert the tests.

Two arms are compared by a permutation test of the shift (Fisher, 1935; Pitman, 1937) and by the t test of Welch (1947);
the larger p value decides. The permutation test is exact if both arms have the same distribution up to a shift, also
with ties, ceilings and failing seeds; the t test keeps its error rate if the standard deviations differ. False findings
at 5 % between arms of equal means, with 6 or 10 seeds (`python scripts/simulate_rule.py`): 1 to 5 % of samples if both
arms have the same distribution, 3 to 6 % if one sd is five times the other, 4 to 11 % if only one arm has a long tail.
If seeds fail in one arm only, a few seeds may show no failure, and no test of means can see it: 11 to 26 % if one seed
in five fails, 60 to 74 % if one in twenty fails. Rates of solved seeds (rates.py) tell how many seeds may fail.
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

ENUMERATED = math.comb(20, 10)  # most permutations that are all enumerated: ten seeds in each arm
SAMPLED = 99_999  # permutations that are sampled otherwise
Masks = Bool[np.ndarray, "permutations seeds"]


@dataclass(frozen=True)
class StudentT:
    """A sum of means with an error by Student's t. se is 0 if all seeds of each arm are equal, inf below two seeds.

    If all seeds are equal, t is not defined: the tail is the smallest one of a permutation test.
    """

    estimate: float
    seeds: tuple[int, ...]
    se: float
    df: float
    decimals: int = 12

    def tails(self, bound: float) -> tuple[float, float]:
        """Return one-sided p values of "the amount is at most the bound" and of "it is at least the bound"."""
        distance = round(self.estimate - bound, self.decimals)
        if self.se == 0:
            return (self.smallest_tail if distance > 0 else 1.0), (self.smallest_tail if distance < 0 else 1.0)
        t = distance / self.se
        return float(stats.t.sf(t, self.df)), float(stats.t.cdf(t, self.df))

    def p(self, bound: float) -> float:
        return two_sided(self.tails(bound))

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        if self.se == 0:
            half = 0.0 if 2 * self.smallest_tail <= (1 - level) * (1 + 1e-12) else math.inf
        else:
            half = float(stats.t.isf((1 - level) / 2, self.df)) * self.se
        return self.estimate - half, self.estimate + half

    @property
    def smallest_tail(self) -> float:
        """The smallest tail of a permutation test between two arms of `seeds` seeds."""
        fewest = min(self.seeds)
        return 1 / math.comb(2 * fewest, fewest)


@dataclass(frozen=True)
class Permutation:
    """The permutation test of "arm a is arm b, shifted by the bound".

    Exchange k seeds of a, minus the bound, with k seeds of b: the difference of the arm means does not get smaller if
    the difference between the means of the exchanged seeds is at most the bound. So each tail is a count of these
    differences, and the ends of the interval are two of them.

    shifts: the differences between the means of the exchanged seeds, sorted. unchanged: number of permutations that
    exchange nothing. total: number of all permutations.
    """

    shifts: Float[np.ndarray, " permutations"]
    unchanged: int
    total: int
    decimals: int

    def tails(self, bound: float) -> tuple[float, float]:
        """Return one-sided p values of "the shift is at most the bound" and of "it is at least the bound"."""
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
    """The mean of one arm minus the mean of another; of both tests the larger p value and the wider interval count."""

    estimate: float
    seeds: tuple[int, ...]
    permutation: Permutation
    student: StudentT

    def p(self, bound: float) -> float:
        at_most, at_least = zip(self.permutation.tails(bound), self.student.tails(bound), strict=True)
        return two_sided((max(at_most), max(at_least)))

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        lows, highs = zip(self.permutation.interval(level), self.student.interval(level), strict=True)
        return min(lows), max(highs)


@dataclass(frozen=True)
class OverImages(StudentT):
    """A sum of means with errors from the choice of seeds and from the choice of test images.

    of_images: share of the error variance that comes from the images.
    """

    of_images: float = 0.0


@dataclass(frozen=True)
class Conservative:
    """One amount by two tests: the larger p value and the wider interval count."""

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
    """Measure the signed sum of the means of arms: a - b with the permutation test and Welch's t, else Student's t."""
    if len(arms) == 2 and sorted(signs) == [-1, 1]:
        a, b = arms if signs[0] > 0 else reversed(arms)
        return difference(a, b)
    return sum_of_means(signs, arms)


def difference(a: Values, b: Values) -> Difference:
    """Measure the mean of a minus the mean of b. Seeds are not paired, and their numbers may differ."""
    student = sum_of_means((1, -1), (a, b))
    return Difference(student.estimate, student.seeds, permutation_test(a, b), student)


def sum_of_means(signs: Sequence[int], arms: Sequence[Values]) -> StudentT:
    """Measure the signed sum of the means of arms by Student's t, with Satterthwaite's degrees of freedom."""
    check_finite(arms)
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
    """Return the degrees of freedom of a sum of variances (Satterthwaite, 1946)."""
    total = sum(variances)
    return total**2 / sum(v**2 / d for v, d in zip(variances, df, strict=True)) if total else float(min(df))


def permutation_test(a: Values, b: Values) -> Permutation:
    """Make the permutation test of the shift between two arms, with all permutations or a fixed sample of them."""
    check_finite((a, b))
    in_a = permutations(len(a), len(b))
    from_a, from_b = ~in_a[:, : len(a)], in_a[:, len(a) :]  # the exchanged seeds
    size = from_b.sum(1)
    exchanging = size > 0
    places = decimals(np.concatenate([a, b]))
    shifts = np.sort(np.round((from_a[exchanging] @ a - from_b[exchanging] @ b) / size[exchanging], places))
    return Permutation(shifts, int((~exchanging).sum()), len(in_a), places)


@lru_cache(maxsize=8)
def permutations(n: int, m: int, enumerated: int = ENUMERATED, sampled: int = SAMPLED) -> Masks:
    """Return masks of the seeds, among n + m, that form arm a after each permutation; the first one changes nothing.

    enumerated: most permutations that are all listed; otherwise `sampled` are drawn, always the same ones.
    """
    if math.comb(n + m, n) <= enumerated:
        chosen = np.array(list(combinations(range(n + m), n)))
    else:
        order = np.random.default_rng(0).random((1 + sampled, n + m))
        order[0] = np.arange(n + m)
        chosen = np.argsort(order, axis=1)[:, :n]
    in_a = np.zeros((len(chosen), n + m), dtype=bool)
    np.put_along_axis(in_a, chosen, True, axis=1)
    in_a.setflags(write=False)
    return in_a


def over_images(signs: Sequence[int], hits: Sequence[Bool[np.ndarray, "_ images"]]) -> OverImages:
    """Measure the signed sum of the accuracies of arms, for all seeds and all images like the tested ones.

    The variance of the sum has a part for the seeds of each arm, and a part for the images: the variance of the mean
    hits of each image, minus the interaction of seeds and images, which the variance of the seeds contains already.
    Degrees of freedom are Satterthwaite's. False findings between equal arms: 4 to 6 % of samples, for 6 and 10 seeds
    and 360 to 4,000 images. A test of seeds only has up to 45 %. The percentile bootstrap of seeds and images (Owen and
    Eckles, 2012) has 1 to 4 % on 360 images, because it counts the interaction more than once, and 8 % if most variance
    comes from seeds, because it has no degrees of freedom (scripts/simulate_rule.py).

    hits: for each arm, hits of its seeds (rows) on the same images (columns). ValueError below two seeds in some arm.
    """
    images = hits[0].shape[1]
    seeds = tuple(len(arm) for arm in hits)
    if min(seeds) < 2:
        raise ValueError(f"hits: arms of {seeds} seeds; the variance between seeds needs two seeds of each arm")
    of_seeds, interaction = [], 0.0
    profile = np.zeros(images)
    for sign, arm in zip(signs, hits, strict=True):
        correct = np.asarray(arm, dtype=float)
        by_seed, by_image = correct.mean(1), correct.mean(0)
        residual = correct - by_seed[:, None] - by_image + correct.mean()
        n = len(correct)
        of_seeds.append(sign**2 * float(by_seed.var(ddof=1)) / n)
        interaction += sign**2 * float((residual**2).sum()) / ((n - 1) * (images - 1)) / (n * images)
        profile += sign * by_image
    of_profile = float(profile.var(ddof=1)) / images
    of_images = max(0.0, of_profile - interaction)
    variance = sum(of_seeds) + of_images
    df = satterthwaite([*of_seeds, of_images], [*(n - 1 for n in seeds), images - 1])
    share = of_images / variance if variance else 0.0
    return OverImages(round(float(profile.mean()), 12), seeds, math.sqrt(variance), df, of_images=share)


def check_finite(arms: Sequence[Values]) -> None:
    for arm in arms:
        if not len(arm) or not np.isfinite(arm).all():
            raise ValueError(f"an arm has the results {arm.tolist()}; each seed needs a finite one")
