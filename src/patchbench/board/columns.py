"""What a reader has to know of a column: its unit, which way is better, and whether it is shown at first."""

import re
from typing import Any

import pandas as pd

from patchbench.study.records import KEYS
from patchbench.study.units import unit

UNITS = {
    r"_gib$": "GiB",
    r"images_per_s(_per_gpu)?$": "images/s",
    r"tokens_per_s$": "tokens/s",
    r"_ms(_|$)": "ms",
    r"_s$": "s",
    r"tflops_per_gpu$": "TFLOP/s",
    r"gflops_\w+$": "GFLOP",
    r"gmacs$": "GMAC",
    r"params_m$": "million",
}
SHARE = re.compile(r"_frac$|/mfu$")  # of one, beside what study.units knows
MORE_IS_BETTER = re.compile(r"acc|same$|macro|_per_s|tflops_per_gpu$|mfu$")
LESS_IS_BETTER = re.compile(r"loss$|_gib$|_ms(_|$)|_s$|^model/(tokens|params|params_m|gmacs|gflops_\w+)$")
FACTORS = ["embed", "patch", "pos", "data", "model", "augment", "optim", "budget", "seed"]
FIGURES = ["test/acc", "val/acc_best", "final/images_per_s", "final/gpu_peak_allocated_gib", "final/cpu_rss_gib"]
FIGURES += ["model/params_m", "time/wall_s"]


def sign(name: str) -> tuple[int, str]:
    """What a value is multiplied by to be read, and its unit."""
    if unit(name).factor == 100 or SHARE.search(name):
        return 100, "%"
    return 1, next((sign for pattern, sign in UNITS.items() if re.search(pattern, name)), "")


def better(name: str) -> int:
    """1 where more is better, -1 where less is, 0 where neither is known."""
    if LESS_IS_BETTER.search(name) and not name.endswith("_per_s"):
        return -1
    return 1 if MORE_IS_BETTER.search(name) else 0


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
