"""The runs on disk: chosen, as a table, written to a file, deleted."""

import operator
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from pandas.api.types import is_numeric_dtype
from rich.console import Console
from rich.table import Table

from patchbench.checks import nearest
from patchbench.runs.lock import is_held

COMPARE = {"<=": operator.le, ">=": operator.ge, "!=": operator.ne, "<": operator.lt, ">": operator.gt}
CONDITION = re.compile(r"(?P<column>[^<>=!]+)(?P<how><=|>=|!=|<|>|=)(?P<value>.*)")
FIGURES = ["test/acc", "val/acc_best", "final/images_per_s", "time/wall_s"]
FACTORS = ["embed", "patch", "pos", "model", "data", "augment", "optim", "seed"]
PERCENT = re.compile(r"acc(5|_best|_low|_high)?$|/same$|_frac$")


def choose(frame: pd.DataFrame, conditions: Sequence[str]) -> pd.DataFrame:
    """The rows that meet every condition: `column=a,b` one of these, or a comparison. ValueError for no such column."""
    for condition in conditions:
        found = CONDITION.fullmatch(condition)
        if not found:
            raise ValueError(f"cannot read {condition!r}: write column=value, column=a,b or 'column>value'")
        name, how, value = found["column"].strip(), found["how"], found["value"]
        column = frame[known(frame, name)]
        if how == "=":
            told = column.map(spelled)
            frame = frame[told.isin(value.split(","))] if value else frame[column.isna()]
        elif how == "!=":
            frame = frame[~column.map(spelled).isin(value.split(","))]
        else:
            frame = frame[COMPARE[how](pd.to_numeric(column, errors="coerce"), number(condition, value))]
    return frame


def number(condition: str, value: str) -> float:
    try:
        return float(value)
    except ValueError:
        raise ValueError(f"{condition!r} compares with a number: {value!r} is none") from None


def spelled(value: object) -> str:
    """As on a command line: a patch of 4 is read back as 4.0 where other runs have none."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def known(frame: pd.DataFrame, name: str) -> str:
    if name not in frame:
        close = nearest(name, frame.columns)
        hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(list(frame.columns)[:20])} and others"
        raise ValueError(f"no column {name!r}: {hint}")
    return name


def shown(frame: pd.DataFrame, columns: Sequence[str], sort: str | None) -> pd.DataFrame:
    """The columns asked for, or the factors that vary and the main figures; sorted by one of them, `-` downwards."""
    if sort:
        name = known(frame, sort.lstrip("-"))
        frame = frame.sort_values(name, ascending=not sort.startswith("-"), kind="stable")
    if not columns:
        varied = [name for name in FACTORS if name in frame and frame[name].map(spelled).nunique() > 1]
        figures = [name for name in FIGURES if name in frame]
        columns = ["status", *varied, *figures, "run"]
    return frame[[known(frame, name) for name in columns]]


def show(frame: pd.DataFrame, every: pd.DataFrame, limit: int) -> None:
    """In the terminal. every: all columns of the same rows, for what they share."""
    console = Console(highlight=False)
    shared = {
        name: every[name].iloc[0] for name in FACTORS if name in every and every[name].map(spelled).nunique() == 1
    }
    if shared and len(every) > 1:
        console.print("all  " + "  ".join(f"{name}={spelled(value)}" for name, value in shared.items()), soft_wrap=True)
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in frame:
        table.add_column(str(name), justify="right" if is_numeric_dtype(frame[name]) else "left", no_wrap=True)
    for _, row in frame.head(limit).iterrows():
        table.add_row(*(cell(name, value) for name, value in row.items()))
    needed = console.measure(table, options=console.options.update(max_width=10_000)).maximum
    console.width = max(console.width, needed)  # nothing is cut off
    console.print(table)
    counts = ", ".join(f"{count} {status}" for status, count in every["status"].value_counts().items())
    more = f"; {len(frame) - limit:,} more, limit=0 shows all" if len(frame) > limit else ""
    console.print(f"{len(frame):,} runs: {counts or 'none'}{more}")


def cell(name: object, value: object) -> str:
    if pd.isna(value):  # type: ignore[call-overload]
        return ""
    if isinstance(value, float):
        return f"{value:.2%}" if PERCENT.search(str(name)) else f"{value:,.4g}"
    return str(value)


def write(frame: pd.DataFrame, path: Path) -> None:
    """As CSV or Parquet, by the name. ValueError for another; ImportError where Parquet cannot be written."""
    if path.suffix == ".csv":
        frame.to_csv(path, index=False)
    elif path.suffix == ".parquet":
        try:
            frame.to_parquet(path, index=False)
        except ImportError:
            raise ValueError(f"out={path}: Parquet needs pip install pyarrow; or use out=<name>.csv") from None
    else:
        raise ValueError(f"out={path} must end in .csv or .parquet")


def delete(frame: pd.DataFrame, runs_dir: Path) -> list[str]:
    """Remove the folders of these runs; the names of those that are being trained, and stay."""
    busy = []
    for name in frame["run"]:
        if is_held(runs_dir / name):
            busy.append(name)
        else:
            shutil.rmtree(runs_dir / name)
    return busy
