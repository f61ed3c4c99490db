"""Detection of two groups of seeds with a gap between them, as when only some seeds find a solution.

A mean describes neither group, and a few seeds do not show its error. Rates describe these arms (rates.py).
"""

from functools import lru_cache

import numpy as np
from scipy.optimize import brentq

from patchbench.statistics.inference import Values

FALSE_ALARM = (
    0.004  # intended; for normal, uniform and exponential seeds, scripts/simulate_rule.py measures at most 0.5 %
)


def two_groups(values: Values, least_gap: float = 0.1) -> tuple[Values, Values] | None:
    """Split the seeds of an arm into a lower and an upper group; None if they form one group.

    least_gap: the least distance between groups, in the unit of the values: ten points of an accuracy.
    """
    ordered = np.sort(values)
    if len(ordered) < 3:
        return None
    gaps = np.diff(ordered)
    split = int(gaps.argmax()) + 1
    share = gap_threshold(len(ordered), min(split, len(ordered) - split))
    if gaps.max() < max(least_gap, share * np.ptp(ordered)):
        return None
    return ordered[:split], ordered[split:]


@lru_cache
def gap_threshold(n: int, fewer: int) -> float:
    """Return the share of the range above which a gap shows two groups. fewer: seeds in the smaller group.

    In one group of n exponential or uniform values a larger gap has the probability FALSE_ALARM at most, divided among
    the possible sizes of the smaller group.

    The gaps between sorted exponential values are independent and exponential, with a rate equal to the number of
    values above (Renyi, 1953). So the probability that the gap of rate k exceeds c times the sum of all others is the
    product of j / (j + c k) over the other rates j. A gap between uniform values exceeds the share s of the range with
    probability (1 - s)^(n - 2).
    """
    others = np.delete(np.arange(1, n), fewer - 1)
    probability = FALSE_ALARM / (n // 2)
    times = float(brentq(lambda c: np.prod(others / (others + c * fewer)) - probability, 0.0, 1e6))
    return max(times / (1 + times), 1 - probability ** (1 / (n - 2)))
