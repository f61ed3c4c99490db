"""The records of a folder of runs as one table; a run without a record has a row that says what is known of it."""

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
from patchbench.runs.record import leaving_out, read_record
from patchbench.runs.rows import read_rows

RUN = re.compile(r".+_([0-9a-f]{8})$")  # <name>_<identity>, unless it was renamed or hydra.run.dir names it
MARKS = ("run.json", "last.ckpt", "metrics.csv")  # files that only a run leaves
NO_RUNS = ("wandb", "slurm", "reports")  # folders of many files beside the runs
KEYS = ["run", "identity", "status"]  # what every run has
TAIL = 20_000  # characters of a log that are searched for how it ended


def load(runs_dir: Path, *, knobs: bool = True) -> pd.DataFrame:
    """One row for each run in the folder and in the folders in it, by path.

    Columns: run, the path of its folder; identity; status (done, diverged, failed, unfinished, damaged);
    the factors by name; the leaves of the configuration that take more than one value, by path, as in optim.lr; the
    figures of the result by name, as in test/acc; commit, device, and the versions by package.
    knobs: false leaves the leaves of the configuration out, which depend on all runs of the folder, and adds eval, the
    views of the test images that a run was asked for. FileNotFoundError where there is no such folder.
    """
    if not runs_dir.is_dir():
        raise FileNotFoundError(
            f"runs_dir={runs_dir} is no folder: give the one that holds the runs, runs_dir=<folder>"
        )
    rows, leaves = [], []
    for path in run_folders(runs_dir):
        name = os.path.relpath(path, runs_dir)
        if printable(name) != name:  # no table and no page can have it
            print(f"left out: {printable(path)}, whose name is no text: rename the folder", file=sys.stderr)
            continue
        row, leaf = read(path)
        rows.append({"run": name, **row})
        leaves.append(leaf)
    tell_apart(rows, leaves)
    frame = pd.DataFrame(rows) if rows else pd.DataFrame(columns=KEYS)
    if not knobs:
        return frame
    frame = frame.drop(columns="eval", errors="ignore")
    varied = [name for name, values in distinct(leaves).items() if len(values) > 1 and name not in frame]
    settings = pd.DataFrame({name: [leaf.get(name) for leaf in leaves] for name in varied}, index=frame.index)
    return pd.concat([frame, settings], axis=1)


def run_folders(folder: str | Path) -> Iterator[str]:
    """Paths of the runs in a folder, whatever they are called; a run is not searched for further runs."""
    with suppress(PermissionError):
        for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
            if not entry.is_dir() or entry.name.startswith(".") or entry.name in NO_RUNS:
                continue
            if RUN.match(entry.name) or any(os.path.exists(os.path.join(entry.path, name)) for name in MARKS):
                yield entry.path
            elif not entry.is_symlink():  # a link may lead back
                yield from run_folders(entry.path)


def tell_apart(rows: list[dict[str, Any]], leaves: list[dict[str, Any]]) -> None:
    """Add the content to the level of data sets that lie in folders of one name and are not the same."""
    contents: dict[str, set[str]] = {}
    for row, leaf in zip(rows, leaves, strict=True):
        if content := leaf.get("data.content"):
            contents.setdefault(row.get("data", ""), set()).add(content)
    for row, leaf in zip(rows, leaves, strict=True):
        if len(contents.get(row.get("data", ""), ())) > 1:
            row["data"] = f"{row.get('data', '')}@{leaf['data.content'][:4]}"


def read(folder: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The row of a run without its name, and its options and knobs by path."""
    match = RUN.match(os.path.basename(folder))
    row: dict[str, Any] = {"identity": match[1] if match else None}
    record: dict[str, Any] | None = None
    try:
        with leaving_out():  # one such record must not cost the table of the others
            record = read_record(Path(folder, "run.json"))
    except FileNotFoundError:
        return row | {"status": how_it_ended(Path(folder))}, {}
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


def how_it_ended(folder: Path) -> str:
    """Status of a run without a record, by the end of its log.txt if it has one."""
    log = folder / "log.txt"
    ending = log.read_text(encoding="utf-8", errors="replace")[-TAIL:] if log.is_file() else ""
    if "Diverged" in ending or "training diverged" in ending:
        return "diverged"
    return "failed" if "Error" in ending or "error:" in ending else "unfinished"


def device(machine: Mapping[str, Any]) -> str:
    gpus = machine["gpus"]
    return f"{len(gpus)} x {gpus[0]}" if gpus else f"{machine['cores']} cores of {machine['cpu']}"


def plain(value: Any) -> Any:
    """A value that can be compared and counted: a list becomes text, as on the command line."""
    return json.dumps(value, separators=(",", ":")) if isinstance(value, list | dict) else value


def flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, dict) and value:
            yield from flat(value, f"{prefix}{name}.")
        elif name not in ("_target_", "_partial_", "_convert_"):
            yield prefix + name, "null" if value is None else plain(value)


def distinct(rows: list[dict[str, Any]]) -> dict[str, set[Any]]:
    """The values that each name takes."""
    found: dict[str, set[Any]] = {}
    for row in rows:
        for name, value in row.items():
            found.setdefault(name, set()).add(value)
    return found


def curves(folder: Path, name: str) -> pd.Series:
    """One metric of a run by step; empty where there is none, and where the file is damaged, which is then named."""
    metrics: dict[str, dict[int, float]] = {}
    with leaving_out():
        metrics = read_rows(folder / "metrics.csv")
    return pd.Series(metrics.get(name, {}), dtype=float).sort_index()
