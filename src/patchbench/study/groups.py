"""Seeds that fall into two groups far apart, as where some find a solution and others do not.

A mean describes neither group, and its error is not seen in a few seeds: rates describe such an arm (rates.py).
"""

from functools import lru_cache

import numpy as np
from scipy.optimize import brentq

from patchbench.study.inference import Values

FALSE_ALARM = 0.004  # of seeds whose results are exponential; of normal and of uniform ones it is far smaller


def two_groups(values: Values, least_gap: float = 0.1) -> tuple[Values, Values] | None:
    """The lower and the upper group of the seeds of an arm, or None where they are one group.

    least_gap: the least distance between groups, in the unit of the values: ten points of an accuracy.
    """
    ordered = np.sort(values)
    gaps = np.diff(ordered)
    if len(ordered) < 3 or gaps.max() < max(least_gap, largest_share(len(ordered)) * np.ptp(ordered)):
        return None
    split = int(gaps.argmax()) + 1
    return ordered[:split], ordered[split:]


@lru_cache
def largest_share(n: int) -> float:
    """The share of the range that the last gap between n exponential values exceeds with probability FALSE_ALARM.

    The gaps are independent and exponential with rates 1 (the last) to n - 1 (Renyi, 1953), so the chance that the
    last exceeds c times all others together is the product of k / (k + c) over the other rates k.
    """
    rates = np.arange(2, n)
    times = float(brentq(lambda c: np.prod(rates / (rates + c)) - FALSE_ALARM, 0.0, 1e6))
    return times / (1 + times)
