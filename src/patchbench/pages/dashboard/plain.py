"""Make data fit for the page: JSON that any browser reads, without paths that identify a machine or a person."""

import json
import math
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

HOME = re.compile(r"(?:/[\w.+@-]+)*/(?:home|Users)/[^/\s'\":]+|[A-Z]:\\+Users\\+[^\\\s'\"]+|/root(?=[/\s'\":]|$)")


def rounded(values: Iterable[float]) -> list[float | None]:
    """Round to five digits; None, which breaks the line of a plot, replaces numbers that are not finite."""
    return [float(f"{value:.5g}") if math.isfinite(value) else None for value in values]


def redact_paths(runs_dir: Path) -> Callable[[str], str]:
    """A function that shortens paths in a text: they start at the folder of runs, at this folder `.` or at home `~`."""
    here = {str(runs_dir.resolve()): runs_dir.name, str(Path.cwd()): ".", str(Path.home()): "~"}
    known = sorted((path for path in here if len(path) > 1), key=len, reverse=True)
    paths = re.compile("(" + "|".join(map(re.escape, known)) + r")(?=[/\\\s'\":,]|$)")

    def change(text: str) -> str:
        return HOME.sub("~", paths.sub(lambda found: here[found[1]], text)) if "/" in text or "\\" in text else text

    return change


def embedded(data: Any) -> str:
    """JSON for a script element: it has no `<`, which could close the element, and no NaN."""
    return json.dumps(cleaned(data), allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")


def cleaned(data: Any) -> Any:
    """Replace the numbers that JSON cannot express, which are not finite, by None."""
    if isinstance(data, dict):
        return {str(name): cleaned(value) for name, value in data.items()}
    if isinstance(data, list | tuple):
        return [cleaned(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data
