"""What a reader has to know of a column: its unit, which way is better, and whether it is shown at first."""

from typing import Any

import pandas as pd

from patchbench.runs.metrics import better, sign
from patchbench.runs.records import KEYS

FACTORS = ["embed", "patch", "pos", "data", "model", "augment", "optim", "budget", "seed"]
FIGURES = ["test/acc", "val/acc_best", "final/images_per_s", "final/gpu_peak_allocated_gib", "final/cpu_rss_gib"]
FIGURES += ["model/params_m", "time/wall_s"]


def described(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """For each column of the table of runs what `describe` says; runs without a record say nothing of what varies."""
    done = frame[frame["status"] == "done"]
    return [describe(str(name), (frame if name in KEYS or done.empty else done)[name]) for name in frame]


def describe(name: str, values: pd.Series) -> dict[str, Any]:
    """times, unit and better as above; number: nothing else is in it; chosen: a factor; varied; shown at first."""
    known = values.dropna()
    number = len(known) > 0 and all(isinstance(value, int | float) and not isinstance(value, bool) for value in known)
    figure = "/" in name
    times, measure = sign(name) if figure else (1, "")
    varied = values.map(str).nunique() > 1
    shown = name in ("run", "status") or (name in FACTORS and varied) or (name in FIGURES and known.size > 0)
    return {
        "name": name,
        "times": times,
        "unit": measure,
        "better": better(name) if figure else 0,
        "number": number,
        "chosen": name in FACTORS,
        "varied": varied,
        "shown": shown,
    }
