"""Rates of error of the rules, by simulation: python scripts/simulate_rule.py prints them."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy import stats

from patchbench.statistics.amounts import masks, over_images, total
from patchbench.statistics.groups import two_groups
from patchbench.statistics.inference import ALPHA
from patchbench.statistics.power import EXCHANGES

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
    return lambda rng, size: np.where(rng.random(size) < rate, 0.5, 0.99) + rng.normal(0.0, 0.003, size)


def right(images: int, accuracy: float, sd: float) -> Draw:
    """Right answers on so many images, as a fraction."""
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
    "360 images at 96.5 %": (right(360, 0.965, 0.006), right(360, 0.965, 0.006)),
    "360 images at 99.5 %": (right(360, 0.995, 0.0), right(360, 0.995, 0.0)),
    "4,000 images at 99.85 %": (right(4000, 0.9985, 0.0003), right(4000, 0.9985, 0.0003)),
    "exponential, normal": (exponential(1.0, 1.0), normal(1.0, 1.0)),
    "exponential, normal sd 0.1": (exponential(1.0, 1.0), normal(1.0, 0.1)),
    "exponential, mirrored": (exponential(1.0, 1.0), exponential(1.0, -1.0)),
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
    """The p values of no difference, by Welch's t, of many samples at once; 1 or 0 where no arm varies."""
    apart = a.mean(1) - b.mean(1)
    parts = [arm.var(axis=1, ddof=1) / arm.shape[1] for arm in (a, b)]
    varies = (np.ptp(a, axis=1) > 0) | (np.ptp(b, axis=1) > 0)
    variance = np.where(varies, sum(parts), 1.0)
    of_parts = sum(part**2 / (arm.shape[1] - 1) for part, arm in zip(parts, (a, b), strict=True))
    df = variance**2 / np.where(varies, of_parts, 1.0)
    return np.where(varies, 2 * stats.t.sf(np.abs(apart) / np.sqrt(variance), df), apart == 0)


def ps_of_equal_means(arms: str, n: int, m: int, samples: int) -> dict[str, Float[np.ndarray, " samples"]]:
    """The p values of no difference between arms of equal means: by exchanges, by Welch's t, and by both, the rule.

    The share of small ones is that of false findings, and of intervals that miss, since these invert the test.
    """
    rng = np.random.default_rng(0)
    a, b = (draw(rng, (samples, seeds)) for draw, seeds in zip(ARMS[arms], (n, m), strict=True))
    exchanged, welch = exchange_ps(a, b), welch_ps(a, b)
    return {"exchanges": exchanged, "Welch": welch, "rule": np.maximum(exchanged, welch)}


TOTALS: Mapping[str, tuple[tuple[int, Draw], ...]] = {  # sums of arms whose true value is 0
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


def wrong_total(terms: str, n: int, samples: int) -> float:
    """The share of samples in which a sum of arms, each of n seeds, misses its true value, by Student's t."""
    rng = np.random.default_rng(0)
    arms = [draw(rng, (samples, n)) for _, draw in TOTALS[terms]]
    signs = [sign for sign, _ in TOTALS[terms]]
    some = ([arm[sample] for arm in arms] for sample in range(samples))
    return float(np.mean([total(signs, arms).p(0.0) <= ALPHA for arms in some]))


@dataclass(frozen=True)
class Nets:
    """Networks on images: the logit of a right answer, and the sd of its parts."""

    mean: float
    of_image: float  # the same in both arms
    of_image_and_arm: float
    of_seed: float
    of_answer: float

    def hits(self, rng: np.random.Generator, seeds: int, images: int) -> tuple[Hits, Hits]:
        """Hits of two arms on the same images; over all images and seeds that there could be, the arms are equal."""
        hard = self.mean + rng.normal(0.0, self.of_image, images)

        def arm() -> Hits:
            here = hard + rng.normal(0.0, self.of_image_and_arm, images) + rng.normal(0.0, self.of_seed, (seeds, 1))
            return here + rng.normal(0.0, self.of_answer, (seeds, images)) > 0

        return arm(), arm()


NETS = {
    "97 % right": Nets(4.0, 1.8, 0.5, 0.1, 0.9),
    "97 % right, seeds differ more": Nets(4.0, 1.8, 0.5, 0.25, 0.9),
    "97 % right, arms alike": Nets(4.0, 1.8, 0.0, 0.25, 0.9),
    "89 % right": Nets(2.5, 1.8, 0.6, 0.1, 0.8),
    "84 % right, arms differ more": Nets(2.5, 1.8, 1.5, 0.1, 0.8),
}


def wrong_over_images(nets: str, seeds: int, images: int, samples: int, *, resamples: int = 1000) -> dict[str, float]:
    """The shares of samples in which equal arms differ, by seeds alone, by the two-way bootstrap, and by the rule.

    The bootstrap draws seeds and images anew and takes percentiles (Owen and Eckles, 2012). tau: the sd that the choice
    of images brings, in points of accuracy. share: of the variance, as the rule divides it, that which images bring.
    """
    rng = np.random.default_rng(0)
    of_images = rng.multinomial(images, np.full(images, 1 / images), resamples).T / images
    of_seeds = rng.multinomial(seeds, np.full(seeds, 1 / seeds), (2, resamples)).swapaxes(1, 2) / seeds
    found = []
    for _ in range(samples):
        a, b = NETS[nets].hits(rng, seeds, images)
        amount = over_images((1, -1), (a, b))
        resampled = ((a @ of_images) * of_seeds[0]).sum(0) - ((b @ of_images) * of_seeds[1]).sum(0)
        low, high = np.quantile(resampled, [ALPHA / 2, 1 - ALPHA / 2])
        by_seed = total((1, -1), (a.mean(1), b.mean(1)))
        tau = amount.se**2 * amount.of_images
        found.append((by_seed.p(0.0) <= ALPHA, not low <= 0 <= high, amount.p(0.0) <= ALPHA, tau, amount.of_images))
    shares = np.mean(found, axis=0)
    names = ("seeds only", "bootstrap", "rule", "tau", "share")
    return dict(zip(names, (*shares[:3], 100 * math.sqrt(shares[3]), shares[4]), strict=True))


def alarms(draw: Draw, n: int, samples: int) -> float:
    """The share of samples in which n seeds seem to fall into two groups, however near."""
    return float(
        np.mean([two_groups(seeds, 0.0) is not None for seeds in draw(np.random.default_rng(0), (samples, n))])
    )
