"""The learning curves of a run, with no more points than a plot can show."""

from pathlib import Path
from typing import Any

import numpy as np

from patchbench.pages.dashboard.plain import rounded
from patchbench.runs.record import skip_damaged
from patchbench.runs.rows import read_rows

POINTS = 120  # largest number of points of a curve; a plot is 600 pixels wide
FEWEST = 6  # points of a curve, however many runs there are
OF_ALL = 60_000  # points of one metric over all runs: what a browser draws and a file holds
NO_CURVES = ("final/", "model/", "test/", "data/", "time/", "epoch")  # results of the run, and the axis of plots


def points(runs: int) -> int:
    """Return the number of points of a curve on a page with this number of runs."""
    return min(POINTS, max(FEWEST, OF_ALL // max(1, runs)))


def curves(folder: Path, most: int = POINTS) -> dict[str, Any]:
    """Return steps and values of each metric, and the number of steps in an epoch, None before the end of the first.

    most: points of a curve. For a damaged file of metrics a line is printed, and there are no curves.
    """
    metrics: dict[str, dict[int, float]] = {}
    with skip_damaged():
        metrics = read_rows(folder / "metrics.csv")
    thinned = {}
    for name in sorted(metrics):
        if len(metrics[name]) > 1 and not name.startswith(NO_CURVES):
            whole = complete_windows(sorted(metrics[name].items()))
            steps, values = thin(np.array([step for step, _ in whole]), np.array([value for _, value in whole]), most)
            thinned[name] = [steps.tolist(), rounded(values)]
    step, epoch = max(metrics["epoch"].items()) if "epoch" in metrics else (None, None)
    return {"steps_per_epoch": step / epoch if step and epoch else None, "curves": thinned}


def complete_windows(points: list[tuple[int, float]]) -> list[tuple[int, float]]:
    """Leave out the last point of means over windows of steps if its window is less than half as long as the others.

    A run ends within a window, and the mean over one or two steps would be a jump without meaning.
    """
    if len(points) < 4:
        return points
    steps = [step for step, _ in points]
    return points[:-1] if 2 * (steps[-1] - steps[-2]) < steps[-2] - steps[-3] else points


def thin(steps: np.ndarray, values: np.ndarray, most: int = POINTS) -> tuple[np.ndarray, np.ndarray]:
    """Choose at most `most` points: the first, the last, and the minimum and maximum of each section of the curve."""
    if len(steps) <= most:
        return steps, values
    chosen_places = {0, len(steps) - 1}
    for stretch in np.array_split(np.arange(1, len(steps) - 1), (most - 2) // 2):
        inside = values[stretch]
        broken = ~np.isfinite(inside)
        chosen_places |= {int(stretch[broken.argmax()])} if broken.any() else set()
        if not broken.all():
            chosen_places |= {
                int(stretch[np.where(broken, np.inf, inside).argmin()]),
                int(stretch[np.where(broken, -np.inf, inside).argmax()]),
            }
    chosen = sorted(chosen_places)
    return steps[chosen], values[chosen]
