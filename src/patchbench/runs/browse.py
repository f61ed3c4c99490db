"""The table of the runs on disk: filter rows, select columns, print, write to a file, delete runs."""

import operator
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from pandas.api.types import is_numeric_dtype
from rich.console import Console
from rich.table import Table
from rich.text import Text

from patchbench.checks import nearest
from patchbench.machine import write_whole
from patchbench.runs import wandb_files
from patchbench.runs.lock import is_locked
from patchbench.runs.metrics import FACTORS, main_metrics, metric
from patchbench.words import count

COMPARE = {"<=": operator.le, ">=": operator.ge, "!=": operator.ne, "<": operator.lt, ">": operator.gt}
CONDITION = re.compile(r"(?P<column>[^<>=!]+)(?P<how><=|>=|!=|==|<|>|=)(?P<value>.*)")


def filter_rows(frame: pd.DataFrame, conditions: Sequence[str]) -> pd.DataFrame:
    """Return the rows that meet all conditions.

    A condition is `column=a,b`, true for each of these values, or a comparison such as `column>0.5`. ValueError for a
    condition that cannot be read, or a column that does not exist.
    """
    for condition in conditions:
        parts = CONDITION.fullmatch(condition)
        if not parts:
            raise ValueError(f"cannot read {condition!r}: write column=value, column=a,b or 'column>value'")
        name, comparison, value = parts["column"].strip(), parts["how"], parts["value"]
        column = frame[known_column(frame, name)]
        if comparison in ("=", "=="):
            frame = frame[column.map(spell).isin(value.split(","))] if value else frame[column.isna()]
        elif comparison == "!=":
            frame = frame[~column.map(spell).isin(value.split(","))]
        else:
            frame = frame[COMPARE[comparison](pd.to_numeric(column, errors="coerce"), parse_number(condition, value))]
    return frame


def parse_number(condition: str, value: str) -> float:
    """Convert the value of a comparison. ValueError names the condition if the value is no number."""
    try:
        return float(value)
    except ValueError:
        raise ValueError(f"{condition!r} compares with a number, and {value!r} is no number") from None


def spell(value: object) -> str:
    """Spell a value as on the command line: pandas stores a patch of 4 as 4.0 if other runs have no patch."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def known_column(frame: pd.DataFrame, name: str) -> str:
    """Return the name of a column. ValueError names a similar column if there is no such column."""
    if name not in frame:
        close = nearest(name, frame.columns)
        hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(list(frame.columns)[:20])} and others"
        raise ValueError(f"no column {name!r}: {hint}")
    return name


def select_columns(frame: pd.DataFrame, columns: Sequence[str], sort: str | None) -> pd.DataFrame:
    """Select columns, and sort the rows.

    columns: names; if empty, the factors that vary and the main metrics. sort: a column, `-` before it: descending.
    """
    if sort:
        name = known_column(frame, sort.lstrip("-"))
        frame = frame.sort_values(name, ascending=not sort.startswith("-"), kind="stable")
    if not columns:
        varying = [name for name in FACTORS if name in frame and frame[name].map(spell).nunique() > 1]
        figures = [name for name in main_metrics() if name in frame]
        columns = ["status", *varying, *figures, "run"]
    return frame[[known_column(frame, name) for name in columns]]


def print_table(frame: pd.DataFrame, full: pd.DataFrame, limit: int) -> None:
    """Print the table. full: the same rows with all columns, for the levels that all rows share."""
    console = Console(highlight=False)
    shared = {name: full[name].iloc[0] for name in FACTORS if name in full and full[name].map(spell).nunique() == 1}
    if shared and len(full) > 1:
        line = "all  " + "  ".join(f"{name}={spell(value)}" for name, value in shared.items())
        console.print(line, soft_wrap=True, markup=False)
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in frame:
        table.add_column(str(name), justify="right" if is_numeric_dtype(frame[name]) else "left", no_wrap=True)
    for _, row in frame.head(limit).iterrows():
        table.add_row(*(Text(cell(str(name), value)) for name, value in row.items()))
    needed = console.measure(table, options=console.options.update(max_width=10_000)).maximum
    console.width = max(console.width, needed)  # so that no cell is cut off
    console.print(table)
    counts = ", ".join(f"{number} {status}" for status, number in full["status"].value_counts().items())
    more = f"; {len(frame) - limit:,} more, limit=0 shows all" if len(frame) > limit else ""
    console.print(f"{count(len(frame), 'run')}: {counts or 'none'}{more}")


def cell(name: str, value: object) -> str:
    if pd.isna(value):  # type: ignore[call-overload]
        return ""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return metric(name).cell(value) if "/" in name else spell(value)


def write(frame: pd.DataFrame, path: Path) -> None:
    """Write CSV or Parquet, by the suffix of the path. ValueError for another suffix, or if pyarrow is missing."""
    if not path.parent.is_dir():
        raise ValueError(f"out={path}: there is no folder {path.parent}")
    if path.suffix == ".csv":
        write_whole(path, frame.to_csv(index=False))
    elif path.suffix == ".parquet":
        try:
            frame.to_parquet(path, index=False)
        except ImportError:
            raise ValueError(f"out={path}: Parquet needs pip install pyarrow; or use out=<name>.csv") from None
    else:
        raise ValueError(f"out={path} must end in .csv or .parquet")


def delete(frame: pd.DataFrame, runs_dir: Path) -> list[str]:
    """Delete these runs and their W&B folders. Runs that are being trained are not deleted; their names are returned.

    ValueError, and nothing is deleted, if the folder of a run is a link or lies outside of `runs_dir`.
    """
    root, busy = runs_dir.resolve(), []
    for name in frame["run"]:
        if root not in (folder := (runs_dir / name).resolve()).parents or folder != root / name:
            raise ValueError(f"{runs_dir / name} is a link to {folder}: remove it by hand")
    for name in frame["run"]:
        if is_locked(runs_dir / name):
            busy.append(name)
        else:
            wandb_files.delete(runs_dir / name, wandb_files.wandb_dir(runs_dir))
            shutil.rmtree(runs_dir / name)
    return busy
