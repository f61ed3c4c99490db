"""Seeds that fall into two groups far apart, as where some find a solution and others do not.

A mean describes neither group, and its error is not seen in a few seeds: rates describe such an arm (rates.py).
"""

from functools import lru_cache

import numpy as np
from scipy.optimize import brentq

from patchbench.statistics.inference import Values

FALSE_ALARM = (
    0.004  # intended; for normal, uniform and exponential seeds, scripts/simulate_rule.py measures at most 0.5 %
)


def two_groups(values: Values, least_gap: float = 0.1) -> tuple[Values, Values] | None:
    """The lower and the upper group of the seeds of an arm, or None where they are one group.

    least_gap: the least distance between groups, in the unit of the values: ten points of an accuracy.
    """
    ordered = np.sort(values)
    if len(ordered) < 3:
        return None
    gaps = np.diff(ordered)
    split = int(gaps.argmax()) + 1
    share = largest_share(len(ordered), min(split, len(ordered) - split))
    if gaps.max() < max(least_gap, share * np.ptp(ordered)):
        return None
    return ordered[:split], ordered[split:]


@lru_cache
def largest_share(n: int, fewer: int) -> float:
    """The share of the range that a gap takes too seldom in one group of n seeds, of which `fewer` lie beyond the gap.

    One group is exponential or uniform: FALSE_ALARM is for either, divided among the sizes of the smaller group.

    The gaps between exponential values are independent and exponential, with a rate that is the number of values above
    (Renyi, 1953). So the chance that one of rate k exceeds c times all others together is the product of j / (j + c k)
    over the other rates j. A gap between uniform values exceeds the share s of the range with chance (1 - s)^(n - 2).
    """
    others = np.delete(np.arange(1, n), fewer - 1)
    seldom = FALSE_ALARM / (n // 2)
    times = float(brentq(lambda c: np.prod(others / (others + c * fewer)) - seldom, 0.0, 1e6))
    return max(times / (1 + times), 1 - seldom ** (1 / (n - 2)))
