"""The rows of metrics.csv, `step,name,value`: read them, and mend a file that a kill or a full disk left broken."""

import csv
from collections.abc import Sequence
from pathlib import Path

from patchbench.machine import whole_file

COLUMNS = ["step", "name", "value"]
LONGEST = 1_000  # characters of a name; a longer one is none
Row = tuple[int, str, float]


def read_rows(path: Path) -> dict[str, dict[int, float]]:
    """The value of each metric at each step; empty where there is no file.

    Rows that a resumed run repeats come later and count. The last line may be torn, as a run that was killed, or one
    that is writing it, leaves it. ValueError names the file, and the line, for any other damage.
    """
    metrics: dict[str, dict[int, float]] = {}
    try:
        header, *lines = whole_lines(path.read_text(encoding="utf-8"))
        if header != ",".join(COLUMNS):
            raise ValueError(f"it does not begin with {','.join(COLUMNS)}")
        for number, cells in enumerate(csv.reader(lines), 2):
            if (row := parsed(cells)) is None:
                raise ValueError(f"line {number} is no row of {','.join(COLUMNS)}")
            metrics.setdefault(row[1], {})[row[0]] = row[2]
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, csv.Error) as error:
        why = getattr(error, "strerror", None) or error
        raise ValueError(f"{path} is damaged ({why}): remove it to be rid of this line") from error
    return metrics


def whole_lines(text: str) -> list[str]:
    """The lines of a text without the last one, which is torn or empty; one empty line where there is none."""
    return text.split("\n")[:-1] or [""]


def parsed(cells: Sequence[str]) -> Row | None:
    """The row that the cells of a line make; None if they make none."""
    try:
        step, name, value = cells
        return (int(step), name, float(value)) if name.isprintable() and len(name) <= LONGEST else None
    except ValueError:
        return None


def mend(path: Path) -> None:
    """Leave the header and all whole rows of a file that is to be continued; make it where there is none."""
    text = path.read_bytes().decode("utf-8", "backslashreplace") if path.exists() else ""
    header, *lines = (line.removesuffix("\r") for line in whole_lines(text))
    rows = [row for line in lines if (row := parsed(line.split(","))) and "\\x" not in line]
    if header == ",".join(COLUMNS) and len(rows) == len(lines) and text.endswith("\n"):
        return
    with whole_file(path) as file:
        csv.writer(file).writerows([COLUMNS, *rows])
