"""The learning curves of a run, thinned to what a plot can show."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from patchbench.dashboard.plain import rounded

POINTS = 120  # of a curve: more than a plot of 600 pixels shows
NO_CURVES = ("final/", "model/", "test/", "data/", "time/", "epoch")  # figures of the run, or what it is plotted over


def curves(folder: Path) -> dict[str, Any]:
    """By metric, the steps and the values; and the steps of an epoch, None where no epoch has ended."""
    path = folder / "metrics.csv"
    if not path.exists() or path.stat().st_size == 0:
        return {"steps_per_epoch": None, "curves": {}}
    # A run that was killed may have half a line at the end; rows that a resumed run repeats come later and count.
    rows = pd.read_csv(path, usecols=["step", "name", "value"], on_bad_lines="skip").dropna(subset=["step", "name"])
    rows = rows.drop_duplicates(["step", "name"], keep="last")
    found = {}
    for name, part in rows.groupby("name", sort=True):
        if len(part) > 1 and not str(name).startswith(NO_CURVES):
            steps, values = thin(part["step"].to_numpy(), part["value"].to_numpy(float))
            found[str(name)] = [steps.tolist(), rounded(values)]
    ends = rows[rows["name"] == "epoch"]
    last = ends.loc[ends["step"].idxmax()] if len(ends) else None
    return {"steps_per_epoch": None if last is None else last["step"] / last["value"], "curves": found}


def thin(steps: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """At most POINTS of them, each as it was: the first, the last, and the least and greatest of every stretch."""
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
