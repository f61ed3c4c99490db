"""The runs on disk: choose some, show them as a table, write them to a file, delete them."""

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
from patchbench.runs.lock import is_held
from patchbench.runs.metrics import FACTORS, main_figures, metric

COMPARE = {"<=": operator.le, ">=": operator.ge, "!=": operator.ne, "<": operator.lt, ">": operator.gt}
CONDITION = re.compile(r"(?P<column>[^<>=!]+)(?P<how><=|>=|!=|==|<|>|=)(?P<value>.*)")


def choose(frame: pd.DataFrame, conditions: Sequence[str]) -> pd.DataFrame:
    """Keep the rows that meet every condition: `column=a,b`, one of these values, or a comparison.

    ValueError for a column that does not exist.
    """
    for condition in conditions:
        parts = CONDITION.fullmatch(condition)
        if not parts:
            raise ValueError(f"cannot read {condition!r}: write column=value, column=a,b or 'column>value'")
        name, how, value = parts["column"].strip(), parts["how"], parts["value"]
        column = frame[existing(frame, name)]
        if how in ("=", "=="):
            frame = frame[column.map(spell).isin(value.split(","))] if value else frame[column.isna()]
        elif how == "!=":
            frame = frame[~column.map(spell).isin(value.split(","))]
        else:
            frame = frame[COMPARE[how](pd.to_numeric(column, errors="coerce"), number(condition, value))]
    return frame


def number(condition: str, value: str) -> float:
    try:
        return float(value)
    except ValueError:
        raise ValueError(f"{condition!r} compares with a number: {value!r} is none") from None


def spell(value: object) -> str:
    """A value as on the command line: pandas reads a patch of 4 as 4.0 where other runs have none."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def existing(frame: pd.DataFrame, name: str) -> str:
    """The name of a column. ValueError with the nearest one if there is no such column."""
    if name not in frame:
        close = nearest(name, frame.columns)
        hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(list(frame.columns)[:20])} and others"
        raise ValueError(f"no column {name!r}: {hint}")
    return name


def shown(frame: pd.DataFrame, columns: Sequence[str], sort: str | None) -> pd.DataFrame:
    """Select the columns asked for, or the factors that vary and the main figures; sort by a column, `-` downwards."""
    if sort:
        name = existing(frame, sort.lstrip("-"))
        frame = frame.sort_values(name, ascending=not sort.startswith("-"), kind="stable")
    if not columns:
        varied = [name for name in FACTORS if name in frame and frame[name].map(spell).nunique() > 1]
        figures = [name for name in main_figures() if name in frame]
        columns = ["status", *varied, *figures, "run"]
    return frame[[existing(frame, name) for name in columns]]


def show(frame: pd.DataFrame, every: pd.DataFrame, limit: int) -> None:
    """Print the table. every: all columns of the same rows, for the levels that all of them share."""
    console = Console(highlight=False)
    shared = {name: every[name].iloc[0] for name in FACTORS if name in every and every[name].map(spell).nunique() == 1}
    if shared and len(every) > 1:
        line = "all  " + "  ".join(f"{name}={spell(value)}" for name, value in shared.items())
        console.print(line, soft_wrap=True, markup=False)
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in frame:
        table.add_column(str(name), justify="right" if is_numeric_dtype(frame[name]) else "left", no_wrap=True)
    for _, row in frame.head(limit).iterrows():
        table.add_row(*(Text(cell(str(name), value)) for name, value in row.items()))
    needed = console.measure(table, options=console.options.update(max_width=10_000)).maximum
    console.width = max(console.width, needed)  # nothing is cut off
    console.print(table)
    counts = ", ".join(f"{count} {status}" for status, count in every["status"].value_counts().items())
    more = f"; {len(frame) - limit:,} more, limit=0 shows all" if len(frame) > limit else ""
    console.print(f"{len(frame):,} runs: {counts or 'none'}{more}")


def cell(name: str, value: object) -> str:
    if pd.isna(value):  # type: ignore[call-overload]
        return ""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return metric(name).cell(value) if "/" in name else spell(value)


def write(frame: pd.DataFrame, path: Path) -> None:
    """Write CSV or Parquet, by the end of the name. ValueError for another end, or where Parquet cannot be written."""
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
    """Remove these runs with their folders of W&B; return the names of the runs that are being trained, which stay.

    ValueError, and nothing is removed, where the folder of a run is a link, or lies elsewhere.
    """
    here, busy = runs_dir.resolve(), []
    for name in frame["run"]:
        if here not in (folder := (runs_dir / name).resolve()).parents or folder != here / name:
            raise ValueError(f"{runs_dir / name} is a link to {folder}: remove it by hand")
    for name in frame["run"]:
        if is_held(runs_dir / name):
            busy.append(name)
        else:
            wandb_files.delete(runs_dir / name, wandb_files.wandb_dir(runs_dir))
            shutil.rmtree(runs_dir / name)
    return busy
