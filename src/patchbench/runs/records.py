"""The records of a folder of runs as one table; a run without a record has a row with its status."""

import json
import os
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pandas as pd

from patchbench.machine import printable
from patchbench.runs.record import read_record, skip_damaged
from patchbench.runs.rows import read_rows

RUN = re.compile(r".+_([0-9a-f]{8})$")  # <name>_<identity>, unless it was renamed or hydra.run.dir names it
MARKS = ("run.json", "last.ckpt", "metrics.csv")  # files that only a run leaves
NO_RUNS = ("wandb", "slurm", "reports")  # folders of many files beside the runs
KEYS = ["run", "identity", "status"]  # columns that every run has
TAIL = 20_000  # characters at the end of a log that are searched for an error


def load(runs_dir: Path, *, knobs: bool = True) -> pd.DataFrame:
    """Return a row for each run in the folder and in its subfolders, sorted by path.

    Columns: run, the path of the folder of the run; identity; status (done, diverged, failed, unfinished, damaged);
    the factors by name; the knobs that have more than one value in this folder, by path, as in optim.lr; the results
    by name, as in test/acc; commit, device, and the version of each package.
    knobs: false leaves out the knobs, which depend on all runs of the folder, and adds eval, the views of the test
    images that the run evaluated. FileNotFoundError if there is no such folder.
    """
    if not runs_dir.is_dir():
        raise FileNotFoundError(
            f"runs_dir={runs_dir} is no folder: give the one that holds the runs, runs_dir=<folder>"
        )
    rows, leaves = [], []
    start = os.path.join(runs_dir, "")
    for path in run_folders(runs_dir):
        name = path[len(start) :]
        if printable(name) != name:  # a table or a page cannot contain this name
            print(f"left out: {printable(path)}, whose name is no text: rename the folder", file=sys.stderr)
            continue
        row, leaf = read_run(path)
        rows.append({"run": name, **row})
        leaves.append(leaf)
    distinguish_data(rows, leaves)
    frame = pd.DataFrame(rows) if rows else pd.DataFrame(columns=KEYS)
    if not knobs:
        return frame
    frame = frame.drop(columns="eval", errors="ignore")
    varying = [name for name, values in distinct(leaves).items() if len(values) > 1 and name not in frame]
    settings = pd.DataFrame({name: [leaf.get(name) for leaf in leaves] for name in varying}, index=frame.index)
    return pd.concat([frame, settings], axis=1)


def run_folders(folder: str | Path) -> Iterator[str]:
    """Yield the paths of the runs in a folder, under any name; the folder of a run is not searched further."""
    with suppress(PermissionError):
        for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
            if not entry.is_dir() or entry.name.startswith(".") or entry.name in NO_RUNS:
                continue
            if RUN.match(entry.name) or any(os.path.exists(os.path.join(entry.path, name)) for name in MARKS):
                yield entry.path
            elif not entry.is_symlink():  # a link may lead to a folder above
                yield from run_folders(entry.path)


def distinguish_data(rows: list[dict[str, Any]], leaves: list[dict[str, Any]]) -> None:
    """Add the fingerprint to the names of data sets that have equal names and different content."""
    contents: dict[str, set[str]] = {}
    for row, leaf in zip(rows, leaves, strict=True):
        if content := leaf.get("data.content"):
            contents.setdefault(row.get("data", ""), set()).add(content)
    for row, leaf in zip(rows, leaves, strict=True):
        if len(contents.get(row.get("data", ""), ())) > 1:
            row["data"] = f"{row.get('data', '')}@{leaf['data.content'][:4]}"


def read_run(folder: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the row of a run, without the column `run`, and its options and knobs by path."""
    match = RUN.match(os.path.basename(folder))
    row: dict[str, Any] = {"identity": match[1] if match else None}
    record: dict[str, Any] | None = None
    try:
        with skip_damaged():
            record = read_record(os.path.join(folder, "run.json"))
    except FileNotFoundError:
        return row | {"status": status_from_log(Path(folder))}, {}
    if record is None:
        return row | {"status": "damaged"}, {}
    environment, config = record["environment"], record["config"]
    row |= {"identity": record["identity"], "status": "done"}
    row |= {name: plain(level) for name, level in record["factors"].items()} | record["result"]
    row |= {"commit": environment["commit"], "device": device(environment["machine"])} | environment["versions"]
    row |= {"epochs": config["epochs"], "batch_size": config["batch_size"]}
    views = record.get("eval", {})
    row["eval"] = plain(views) if any(views.get(name) for name in ("img_size", "shuffle", "move")) else None
    knobs = {path: value for path, value in record["compared"].items() if "." in path or path not in row}
    return row, {path: "null" if value is None else plain(value) for path, value in knobs.items()}


def status_from_log(folder: Path) -> str:
    """Status of a run without a record, from the end of its log.txt: diverged, failed, or else unfinished."""
    log = folder / "log.txt"
    ending = log.read_text(encoding="utf-8", errors="replace")[-TAIL:] if log.is_file() else ""
    if "Diverged" in ending or "training diverged" in ending:
        return "diverged"
    return "failed" if "Error" in ending or "error:" in ending else "unfinished"


def device(machine: Mapping[str, Any]) -> str:
    """Name the GPUs of a machine, or its CPU if it has none. machine: as in a record."""
    gpus = machine["gpus"]
    return f"{len(gpus)} x {gpus[0]}" if gpus else f"{machine['cores']} cores of {machine['cpu']}"


def plain(value: Any) -> Any:
    """Return a value that can be compared and counted: lists and mappings as text, as on the command line."""
    return json.dumps(value, separators=(",", ":")) if isinstance(value, list | dict) else value


def flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield path and value of each leaf of a configuration, without the keys by which Hydra builds a part."""
    for name, value in tree.items():
        if isinstance(value, dict) and value:
            yield from flat(value, f"{prefix}{name}.")
        elif name not in ("_target_", "_partial_", "_convert_"):
            yield prefix + name, "null" if value is None else plain(value)


def distinct(rows: list[dict[str, Any]]) -> dict[str, set[Any]]:
    """Return the set of values of each name."""
    values_of: dict[str, set[Any]] = {}
    for row in rows:
        for name, value in row.items():
            values_of.setdefault(name, set()).add(value)
    return values_of


def curves(folder: Path, name: str) -> pd.Series:
    """Read one metric of a run by step; empty without the metric. For a damaged file a line is printed."""
    metrics: dict[str, dict[int, float]] = {}
    with skip_damaged():
        metrics = read_rows(folder / "metrics.csv")
    return pd.Series(metrics.get(name, {}), dtype=float).sort_index()
