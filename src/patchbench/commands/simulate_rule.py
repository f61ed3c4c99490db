"""Tables of how often the rules of a study err, by simulation."""

from collections.abc import Iterator

import pandas as pd

from patchbench.statistics import calibration
from patchbench.statistics.groups import FALSE_ALARM
from patchbench.statistics.inference import ALPHA
from patchbench.statistics.power import smallest_effect

SEEDS = ((6, 6), (10, 10), (6, 10))
CLAIMS = 12


def tables(samples: int) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield each table with its title. Rates and shares are in percent; the last table is in standard deviations."""
    yield (
        f"two arms of equal means, of 6 and 6, 10 and 10, 6 and 10 seeds ({samples} samples): how often they are\n"
        "called different, and how often intervals miss, by the permutation test, by Welch's t, by the larger p value\n"
        f"(the rule), and by the rule at the strictest of {CLAIMS} claims: {100 * ALPHA / CLAIMS:.1f} is promised",
        pd.DataFrame({arms: two_arms(arms, samples) for arms in calibration.ARMS}).T,
    )
    yield (
        f"sums of arms whose value is 0, by Student's t ({samples} samples): how often they are called other than 0",
        percent(
            {
                terms: {f"n={n}": calibration.error_rate_of_sum(terms, n, samples) for n in (6, 10)}
                for terms in calibration.TOTALS
            }
        ),
    )
    fewer = samples // 4
    yield (
        f"two arms that are equal over all possible images ({fewer} samples): how often they are called different\n"
        "tau: standard deviation from the choice of images, in points of accuracy; share: of images in the variance",
        pd.DataFrame(
            {
                f"{nets}; {n} seeds, {images} images": over_images(nets, n, images, fewer)
                for nets in calibration.NETS
                for n, images in ((6, 360), (10, 360), (6, 4000))
            }
        ).T,
    )
    shapes = ("normal", "uniform", "exponential", "lognormal")
    yield (
        f"seeds of one arm ({10 * samples} samples): how often they seem to form two groups; {100 * FALSE_ALARM:.1f} "
        "is intended",
        percent(
            {
                shape: {
                    f"n={n}": calibration.false_alarm_rate(calibration.ARMS[shape][0], n, 10 * samples)
                    for n in (4, 6, 10, 20)
                }
                for shape in shapes
            }
        ),
    )
    yield (
        "the smallest difference of two arms that is found in 80 of 100 studies, in standard deviations of an arm",
        pd.DataFrame(
            {
                f"{n} seeds": {f"{claims} claims": smallest_effect(n, 1.0, claims) for claims in (1, 4, CLAIMS)}
                for n in (4, 5, 6, 8, 10, 20)
            }
        ).T,
    )


def two_arms(arms: str, samples: int) -> dict[str, float]:
    row: dict[str, float] = {}
    for n, m in SEEDS:
        p = calibration.p_values_of_equal_means(arms, n, m, samples)
        row |= {f"{n},{m} {test}": 100 * float((values <= ALPHA).mean()) for test, values in p.items()}
        row[f"{n},{m} rule/{CLAIMS}"] = 100 * float((p["rule"] <= ALPHA / CLAIMS).mean())
    return row


def over_images(nets: str, seeds: int, images: int, samples: int) -> dict[str, float]:
    shares = calibration.error_rates_over_images(nets, seeds, images, samples)
    return {name: value if name == "tau" else 100 * value for name, value in shares.items()}


def percent(rows: dict[str, dict[str, float]]) -> pd.DataFrame:
    return 100 * pd.DataFrame(rows).T
