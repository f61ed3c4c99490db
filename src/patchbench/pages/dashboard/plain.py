"""Preparation of data for the page: JSON for all browsers, without paths that identify a machine or a person."""

import json
import math
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

HOME = re.compile(r"(?:/[\w.+@-]+)*/(?:home|Users)/[^/\s'\":]+|[A-Z]:\\+Users\\+[^\\\s'\"]+|/root(?=[/\s'\":]|$)")


def rounded(values: Iterable[float]) -> list[float | None]:
    """Round to five digits. Numbers that are not finite become None, which interrupts the line of a plot."""
    return [float(f"{value:.5g}") if math.isfinite(value) else None for value in values]


def redact_paths(runs_dir: Path) -> Callable[[str], str]:
    """Return a function that shortens paths in a text: they begin with the folder of runs, or with `.` or `~`."""
    shown_as = {str(runs_dir.resolve()): runs_dir.name, str(Path.cwd()): ".", str(Path.home()): "~"}
    known = sorted((path for path in shown_as if len(path) > 1), key=len, reverse=True)
    paths = re.compile("(" + "|".join(map(re.escape, known)) + r")(?=[/\\\s'\":,]|$)")

    def change(text: str) -> str:
        return HOME.sub("~", paths.sub(lambda match: shown_as[match[1]], text)) if "/" in text or "\\" in text else text

    return change


def script_json(data: Any) -> str:
    """Return JSON for a script element: without `<`, which could close the element, and without NaN."""
    return json.dumps(without_nan(data), allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")


def without_nan(data: Any) -> Any:
    """Replace numbers that are not finite, which JSON cannot express, by None."""
    if isinstance(data, dict):
        return {str(name): without_nan(value) for name, value in data.items()}
    if isinstance(data, list | tuple):
        return [without_nan(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data
