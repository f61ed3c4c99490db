"""Properties of columns and curves for the page: unit, direction that is better, visibility at first."""

from collections.abc import Iterable
from typing import Any

import pandas as pd

from patchbench.runs.metrics import FACTORS, UNKNOWN, main_metrics, metric, sort_metrics
from patchbench.runs.records import KEYS

ALSO_SHOWN = ("final/gpu_peak_allocated_gib", "final/cpu_rss_gib", "model/params_m")  # in addition to the main metrics


def describe_columns(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Describe each column of the table of runs. Runs without a record are left out when variation is determined."""
    done = frame[frame["status"] == "done"]
    return [describe(str(name), (frame if name in KEYS or done.empty else done)[name]) for name in frame]


def describe(name: str, values: pd.Series) -> dict[str, Any]:
    """Describe one column as JSON.

    times: factor from stored values to shown values. unit. better: 1 for more, -1 for less, 0 for unknown. number: all
    values are numbers. chosen: the column is a factor. varied: it has several values. shown: it is visible at first.
    """
    known = values.dropna()
    number = len(known) > 0 and all(isinstance(value, int | float) and not isinstance(value, bool) for value in known)
    line = metric(name) if "/" in name else None
    varied = values.map(str).nunique() > 1
    figure = name in (*main_metrics(), *ALSO_SHOWN) and known.size > 0
    return {
        "name": name,
        "times": line.factor if line else 1,
        "unit": line.unit if line else "",
        "better": line.better if line else UNKNOWN,
        "number": number,
        "chosen": name in FACTORS,
        "varied": varied,
        "shown": name in ("run", "status") or (name in FACTORS and varied) or figure,
    }


def describe_curves(names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Describe the metrics that have curves, in the order of the table of metrics.

    panel: title of the plot on the page of a run; curves of one quantity, such as train/acc and val/acc, share a plot.
    """
    lines = {name: (metric(name), metric(name.rpartition("/")[2])) for name in sort_metrics(names)}
    return {
        name: {"times": line.factor, "unit": line.unit, "panel": quantity.title}
        for name, (line, quantity) in lines.items()
    }
