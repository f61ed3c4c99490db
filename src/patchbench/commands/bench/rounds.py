"""Rounds of measurements. Each round measures all sides, so that a change of the speed of a machine affects all."""

import gc
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from scipy.stats import quantile_test

from patchbench.track.busy import count_busy_cores

Figures = dict[str, Any]


@dataclass(frozen=True)
class Ratio:
    """Ratio of a figure between two sides in each round, the first side over the second.

    low, high: interval of the median, with a confidence of 95 % or more for any distribution; with fewer than six
    rounds, the least and the largest ratio. fastest: ratio of the least values over all rounds, since other processes
    can only slow a side down.
    """

    rounds: list[float]
    median: float
    low: float
    high: float
    fastest: float


def interleaved(
    sides: Sequence[Callable[[], Figures]], rounds: int, say: Callable[[int, list[Figures]], None]
) -> list[list[Figures]]:
    """Measure each side once in every round; return the figures of each side, one row per round.

    Each row also has `others_cores`, the cores that other processes used during the measurement. say: is called after
    each round with its number, from 1, and the figures of all sides.
    """
    rounds_by_side: list[list[Figures]] = [[] for _ in sides]
    for number in range(1, rounds + 1):
        for side, rows in zip(sides, rounds_by_side, strict=True):
            with count_busy_cores() as used:
                figures = side()
            rows.append(figures | {"others_cores": round(used[0], 2)})
            gc.collect()
            if torch.cuda.is_initialized():
                torch.cuda.empty_cache()
        say(number, [rows[-1] for rows in rounds_by_side])
    return rounds_by_side


def ratio(first: Sequence[float], second: Sequence[float]) -> Ratio:
    """Return the ratio of a figure between two sides. first, second: values of the figure, one per round."""
    values = [a / b for a, b in zip(first, second, strict=True)]
    low, high = spread(values)
    return Ratio(values, statistics.median(values), low, high, min(first) / min(second))


def spread(values: Sequence[float]) -> tuple[float, float]:
    """Return an interval of the median with a confidence of 95 % or more, by order statistics.

    For fewer than six values, return their range.
    """
    if len(values) < 6:
        return min(values), max(values)
    interval = quantile_test(values, p=0.5).confidence_interval(0.95)
    return float(interval.low), float(interval.high)


def ratios(first: Sequence[Figures], second: Sequence[Figures], names: Sequence[str]) -> dict[str, Any]:
    """Return the ratios of the figures that both sides have in every round, and that are not 0, as plain values."""
    rows = (*first, *second)
    shared = [name for name in names if all(row.get(name) for row in rows)]
    return {name: asdict(ratio([r[name] for r in first], [r[name] for r in second])) for name in shared}


def summary(rows: Sequence[Figures], names: Sequence[str]) -> dict[str, dict[str, float]]:
    """Return the median, the least and the largest value of each figure over the rounds."""
    values_by_name = {name: [row[name] for row in rows if isinstance(row.get(name), int | float)] for name in names}
    return {
        name: {"median": statistics.median(values), "low": min(values), "high": max(values)}
        for name, values in values_by_name.items()
        if values
    }
