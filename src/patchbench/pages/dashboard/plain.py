"""What goes into the page: JSON that any browser reads, and no path that tells whose machine it was."""

import json
import math
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

HOME = re.compile(r"(?:/[\w.+@-]+)*/(?:home|Users)/[^/\s'\":]+|[A-Z]:\\+Users\\+[^\\\s'\"]+|/root(?=[/\s'\":]|$)")


def rounded(values: Iterable[float]) -> list[float | None]:
    """To five digits; None, which breaks the line of a plot, for what is no finite number."""
    return [float(f"{value:.5g}") if math.isfinite(value) else None for value in values]


def homeless(runs_dir: Path) -> Callable[[str], str]:
    """Changes text: paths below the folder of runs start there, those below this folder or a home at `.` and `~`."""
    here = {str(runs_dir.resolve()): runs_dir.name, str(Path.cwd()): ".", str(Path.home()): "~"}
    known = sorted((path for path in here if len(path) > 1), key=len, reverse=True)
    paths = re.compile("(" + "|".join(map(re.escape, known)) + r")(?=[/\\\s'\":,]|$)")

    def change(text: str) -> str:
        return HOME.sub("~", paths.sub(lambda found: here[found[1]], text)) if "/" in text or "\\" in text else text

    return change


def embedded(data: Any) -> str:
    """JSON that can stand inside of a script element: no `<` closes it, no NaN is in it."""
    return json.dumps(cleaned(data), allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")


def cleaned(data: Any) -> Any:
    """The same with None for what JSON has no number for."""
    if isinstance(data, dict):
        return {str(name): cleaned(value) for name, value in data.items()}
    if isinstance(data, list | tuple):
        return [cleaned(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data
