"""The rows of metrics.csv, `step,name,value`: reading, and repair after a kill or a full disk."""

import csv
from collections.abc import Sequence
from pathlib import Path

from patchbench.machine import whole_file

COLUMNS = ["step", "name", "value"]
LONGEST = 1_000  # characters of a name; a row with a longer name is damaged
Row = tuple[int, str, float]


def read_rows(path: Path) -> dict[str, dict[int, float]]:
    """Return the value of each metric at each step; empty if there is no file.

    A resumed run may repeat rows: the later row counts. The last line may be incomplete, in a run that was killed or
    is writing it. ValueError names the file and the line for any other damage.
    """
    metrics: dict[str, dict[int, float]] = {}
    try:
        header, *lines = complete_lines(path.read_text(encoding="utf-8"))
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
        raise ValueError(f"{path} is damaged ({why}): remove the file to stop this message") from error
    return metrics


def complete_lines(text: str) -> list[str]:
    """Return the lines of a text without the last, which is incomplete or empty; one empty line if none is complete."""
    return text.split("\n")[:-1] or [""]


def parsed(cells: Sequence[str]) -> Row | None:
    """Convert the cells of a line to a row; None if the line is damaged."""
    try:
        step, name, value = cells
        return (int(step), name, float(value)) if name.isprintable() and len(name) <= LONGEST else None
    except ValueError:
        return None


def repair(path: Path) -> None:
    """Prepare a file for further rows: leave header and complete rows only; make the file if there is none."""
    text = path.read_bytes().decode("utf-8", "backslashreplace") if path.exists() else ""
    header, *lines = (line.removesuffix("\r") for line in complete_lines(text))
    rows = [row for line in lines if (row := parsed(line.split(","))) and "\\x" not in line]
    if header == ",".join(COLUMNS) and len(rows) == len(lines) and text.endswith("\n"):
        return
    with whole_file(path) as file:
        csv.writer(file).writerows([COLUMNS, *rows])
