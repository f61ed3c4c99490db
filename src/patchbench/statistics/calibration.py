"""Error rates of the statistical rules, by simulation: python scripts/simulate_rule.py prints them."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy import stats

from patchbench.statistics.amounts import over_images, permutations, sum_of_means
from patchbench.statistics.groups import two_groups
from patchbench.statistics.inference import ALPHA
from patchbench.statistics.power import PERMUTATIONS

Seeds = Float[np.ndarray, "samples n"]
Hits = Bool[np.ndarray, "n images"]
Draw = Callable[[np.random.Generator, tuple[int, int]], Seeds]


def normal(mean: float, sd: float) -> Draw:
    return lambda rng, size: rng.normal(mean, sd, size)


def exponential(mean: float, sd: float) -> Draw:
    """Draw results with a long tail above the mean, or below the mean if sd is negative."""
    return lambda rng, size: mean + sd * (rng.exponential(1.0, size) - 1)


def failing(rate: float) -> Draw:
    """Draw results of 99 %, of which a share `rate` fails and stays at 50 %; sd 0.3 points."""
    return lambda rng, size: np.where(rng.random(size) < rate, 0.5, 0.99) + rng.normal(0.0, 0.003, size)


def accuracies(images: int, accuracy: float, sd: float) -> Draw:
    """Draw accuracies on this number of images; sd: between seeds."""
    return lambda rng, size: rng.binomial(images, np.clip(rng.normal(accuracy, sd, size), 0, 1), size) / images


ARMS: Mapping[str, tuple[Draw, Draw]] = {  # two arms of equal means
    "normal": (normal(0.0, 1.0), normal(0.0, 1.0)),
    "normal, sd 1 and 5": (normal(0.0, 1.0), normal(0.0, 5.0)),
    "normal, sd 5 and 1": (normal(0.0, 5.0), normal(0.0, 1.0)),
    "uniform": (lambda rng, size: rng.random(size), lambda rng, size: rng.random(size)),
    "exponential": (exponential(1.0, 1.0), exponential(1.0, 1.0)),
    "lognormal": (lambda rng, size: rng.lognormal(size=size), lambda rng, size: rng.lognormal(size=size)),
    "half of the seeds fail": (failing(0.5), failing(0.5)),
    "1 of 5 seeds fails": (failing(0.2), failing(0.2)),
    "1 of 20 seeds fails": (failing(0.05), failing(0.05)),
    "360 images at 96.5 %": (accuracies(360, 0.965, 0.006), accuracies(360, 0.965, 0.006)),
    "360 images at 99.5 %": (accuracies(360, 0.995, 0.0), accuracies(360, 0.995, 0.0)),
    "4,000 images at 99.85 %": (accuracies(4000, 0.9985, 0.0003), accuracies(4000, 0.9985, 0.0003)),
    "exponential, normal": (exponential(1.0, 1.0), normal(1.0, 1.0)),
    "exponential, normal sd 0.1": (exponential(1.0, 1.0), normal(1.0, 0.1)),
    "exponential, mirrored": (exponential(1.0, 1.0), exponential(1.0, -1.0)),
    "half of the seeds fail, flat": (failing(0.5), normal(0.745, 0.003)),
    "1 of 5 seeds fails, flat": (failing(0.2), normal(0.892, 0.003)),
    "1 of 20 seeds fails, flat": (failing(0.05), normal(0.9655, 0.003)),
}


def permutation_p_values(a: Seeds, b: Float[np.ndarray, "samples m"]) -> Float[np.ndarray, " samples"]:
    """Return the p values of no shift by the permutation test, for many samples at once."""
    n, m = a.shape[1], b.shape[1]
    pooled = np.concatenate([a, b], axis=1)
    in_a = permutations(n, m, 2 * PERMUTATIONS, PERMUTATIONS).T.astype(float)
    p = []
    for batch in np.array_split(pooled, math.ceil(len(pooled) / 500)):
        sums = (batch - batch.mean(1, keepdims=True)) @ in_a
        slack = 1e-9 * np.abs(batch).max(1, keepdims=True)  # equal sums tie in spite of rounding
        at_most, at_least = (sums >= sums[:, :1] - slack).mean(1), (sums <= sums[:, :1] + slack).mean(1)
        p.append(np.minimum(1.0, 2 * np.minimum(at_most, at_least)))
    return np.concatenate(p)


def welch_p_values(a: Seeds, b: Float[np.ndarray, "samples m"]) -> Float[np.ndarray, " samples"]:
    """Return the p values of no difference by Welch's t, for many samples at once; 1 or 0 if no arm varies."""
    difference = a.mean(1) - b.mean(1)
    parts = [arm.var(axis=1, ddof=1) / arm.shape[1] for arm in (a, b)]
    varies = (np.ptp(a, axis=1) > 0) | (np.ptp(b, axis=1) > 0)
    variance = np.where(varies, sum(parts), 1.0)
    of_parts = sum(part**2 / (arm.shape[1] - 1) for part, arm in zip(parts, (a, b), strict=True))
    df = variance**2 / np.where(varies, of_parts, 1.0)
    return np.where(varies, 2 * stats.t.sf(np.abs(difference) / np.sqrt(variance), df), difference == 0)


def p_values_of_equal_means(arms: str, n: int, m: int, samples: int) -> dict[str, Float[np.ndarray, " samples"]]:
    """Return p values of no difference between arms of equal means: by permutation, by Welch's t, and by the rule.

    The rule takes the larger p value. The share of small p values is the rate of false findings, and of intervals that
    miss the true value, because intervals invert the test.
    """
    rng = np.random.default_rng(0)
    a, b = (draw(rng, (samples, seeds)) for draw, seeds in zip(ARMS[arms], (n, m), strict=True))
    permutation, welch = permutation_p_values(a, b), welch_p_values(a, b)
    return {"permutation": permutation, "Welch": welch, "rule": np.maximum(permutation, welch)}


TOTALS: Mapping[str, tuple[tuple[int, Draw], ...]] = {  # sums of arms with a true value of 0
    "normal": ((1, normal(0.0, 1.0)),),
    "uniform": ((1, lambda rng, size: rng.random(size) - 0.5),),
    "exponential": ((1, exponential(0.0, 1.0)),),
    "1 of 5 seeds fails": ((1, lambda rng, size: failing(0.2)(rng, size) - 0.892),),
    "a - b - c + d, normal": tuple((sign, normal(0.0, 1.0)) for sign in (1, -1, -1, 1)),
    "a - b - c + d, sd 1, 1, 1, 5": tuple(
        (sign, normal(0.0, sd)) for sign, sd in ((1, 1.0), (-1, 1.0), (-1, 1.0), (1, 5.0))
    ),
    "a - b - c + d, exponential": tuple((sign, exponential(0.0, 1.0)) for sign in (1, -1, -1, 1)),
}


def error_rate_of_sum(terms: str, n: int, samples: int) -> float:
    """Return the share of samples in which Student's t rejects the true value of a sum of arms, each of n seeds."""
    rng = np.random.default_rng(0)
    results = [draw(rng, (samples, n)) for _, draw in TOTALS[terms]]
    signs = [sign for sign, _ in TOTALS[terms]]
    all_arms = ([arm[sample] for arm in results] for sample in range(samples))
    return float(np.mean([sum_of_means(signs, arms).p(0.0) <= ALPHA for arms in all_arms]))


@dataclass(frozen=True)
class Nets:
    """A model of hits: the mean logit of a hit, and the sd of its random parts."""

    mean: float
    of_image: float  # equal in both arms
    of_image_and_arm: float
    of_seed: float
    of_answer: float  # of each seed and image

    def hits(self, rng: np.random.Generator, seeds: int, images: int) -> tuple[Hits, Hits]:
        """Draw the hits of two arms on the same images. Over all possible images and seeds both arms are equal."""
        of_images = self.mean + rng.normal(0.0, self.of_image, images)

        def arm() -> Hits:
            logits = of_images + rng.normal(0.0, self.of_image_and_arm, images)
            logits = logits + rng.normal(0.0, self.of_seed, (seeds, 1))
            return logits + rng.normal(0.0, self.of_answer, (seeds, images)) > 0

        return arm(), arm()


NETS = {
    "97 % right": Nets(4.0, 1.8, 0.5, 0.1, 0.9),
    "97 % right, seeds differ more": Nets(4.0, 1.8, 0.5, 0.25, 0.9),
    "97 % right, arms alike": Nets(4.0, 1.8, 0.0, 0.25, 0.9),
    "89 % right": Nets(2.5, 1.8, 0.6, 0.1, 0.8),
    "84 % right, arms differ more": Nets(2.5, 1.8, 1.5, 0.1, 0.8),
}


def error_rates_over_images(
    nets: str, seeds: int, images: int, samples: int, *, resamples: int = 1000
) -> dict[str, float]:
    """Return the rates of false findings between equal arms: by seeds only, by the two-way bootstrap, by the rule.

    The bootstrap resamples seeds and images and takes percentiles (Owen and Eckles, 2012). tau: sd from the choice of
    images, in points of accuracy. share: share of the variance that the rule attributes to images.
    """
    rng = np.random.default_rng(0)
    of_images = rng.multinomial(images, np.full(images, 1 / images), resamples).T / images
    of_seeds = rng.multinomial(seeds, np.full(seeds, 1 / seeds), (2, resamples)).swapaxes(1, 2) / seeds
    rows = []
    for _ in range(samples):
        a, b = NETS[nets].hits(rng, seeds, images)
        amount = over_images((1, -1), (a, b))
        resampled = ((a @ of_images) * of_seeds[0]).sum(0) - ((b @ of_images) * of_seeds[1]).sum(0)
        low, high = np.quantile(resampled, [ALPHA / 2, 1 - ALPHA / 2])
        by_seed = sum_of_means((1, -1), (a.mean(1), b.mean(1)))
        tau = amount.se**2 * amount.of_images
        rows.append((by_seed.p(0.0) <= ALPHA, not low <= 0 <= high, amount.p(0.0) <= ALPHA, tau, amount.of_images))
    shares = np.mean(rows, axis=0)
    names = ("seeds only", "bootstrap", "rule", "tau", "share")
    return dict(zip(names, (*shares[:3], 100 * math.sqrt(shares[3]), shares[4]), strict=True))


def false_alarm_rate(draw: Draw, n: int, samples: int) -> float:
    """Return the share of samples in which n seeds of one distribution seem to form two groups, at any distance."""
    return float(
        np.mean([two_groups(seeds, 0.0) is not None for seeds in draw(np.random.default_rng(0), (samples, n))])
    )
