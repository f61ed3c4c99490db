"""The learning curves of a run, thinned to what a plot can show."""

from pathlib import Path
from typing import Any

import numpy as np

from patchbench.pages.dashboard.plain import rounded
from patchbench.runs.record import skip_damaged
from patchbench.runs.rows import read_rows

POINTS = 120  # of a curve: more than a plot of 600 pixels shows
NO_CURVES = ("final/", "model/", "test/", "data/", "time/", "epoch")  # figures of the run, or what it is plotted over


def curves(folder: Path) -> dict[str, Any]:
    """Steps and values of each metric, and the number of steps in an epoch, None before the first epoch has ended.

    A file of metrics that is damaged is named, and has no curves.
    """
    metrics: dict[str, dict[int, float]] = {}
    with skip_damaged():
        metrics = read_rows(folder / "metrics.csv")
    found = {}
    for name in sorted(metrics):
        if len(metrics[name]) > 1 and not name.startswith(NO_CURVES):
            points = whole_windows(sorted(metrics[name].items()))
            steps, values = thin(np.array([step for step, _ in points]), np.array([value for _, value in points]))
            found[name] = [steps.tolist(), rounded(values)]
    step, epoch = max(metrics["epoch"].items()) if "epoch" in metrics else (None, None)
    return {"steps_per_epoch": step / epoch if step and epoch else None, "curves": found}


def whole_windows(points: list[tuple[int, float]]) -> list[tuple[int, float]]:
    """Leave out the last point of a mean over windows of steps where its window is shorter than half of the others.

    A run ends in the middle of a window; a mean over a step or two is a jump that says nothing.
    """
    if len(points) < 4:
        return points
    steps = [step for step, _ in points]
    return points[:-1] if 2 * (steps[-1] - steps[-2]) < steps[-2] - steps[-3] else points


def thin(steps: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Choose at most POINTS points: the first, the last, and the least and the greatest of every stretch."""
    if len(steps) <= POINTS:
        return steps, values
    kept = {0, len(steps) - 1}
    for stretch in np.array_split(np.arange(1, len(steps) - 1), (POINTS - 2) // 2):
        inside = values[stretch]
        broken = ~np.isfinite(inside)
        kept |= {int(stretch[broken.argmax()])} if broken.any() else set()
        if not broken.all():
            kept |= {
                int(stretch[np.where(broken, np.inf, inside).argmin()]),
                int(stretch[np.where(broken, -np.inf, inside).argmax()]),
            }
    chosen = sorted(kept)
    return steps[chosen], values[chosen]
