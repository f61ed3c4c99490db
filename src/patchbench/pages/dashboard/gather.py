"""The data of the page about a folder of runs."""

import base64
import json
import math
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pandas as pd

from patchbench.pages.dashboard.columns import describe_columns, describe_curves
from patchbench.pages.dashboard.curves import curves, points
from patchbench.pages.dashboard.plain import redact_paths
from patchbench.runs.metrics import FACTORS
from patchbench.runs.record import read_record
from patchbench.runs.records import flat, load

LOG = 6_000  # characters at the end of a log that are shown
PICTURES = {".png": "image/png", ".svg": "image/svg+xml", ".jpg": "image/jpeg", ".webp": "image/webp"}
REPEATED = ("model.embed.", "model.pos.", "optim.optimizer.", "optim.schedule.")  # knobs that have another path as well


def gather(runs_dir: Path, page: Path) -> dict[str, Any]:
    """Collect the table of runs and, for each run, configuration, results, curves, pictures and the end of the log.

    page: file to be written; if it lies beside the runs, it links to their pictures, else it contains them.
    FileNotFoundError if there are no runs.
    """
    frame = load(runs_dir)
    if frame.empty:
        raise FileNotFoundError(
            f"runs_dir={runs_dir} holds no runs: train some, or give their folder, runs_dir=<folder>"
        )
    beside = runs_dir.resolve().is_relative_to(page.resolve().parent)
    prefix = Path(os.path.relpath(runs_dir, page.parent)) if beside else None
    redact, most = redact_paths(runs_dir), points(len(frame))
    runs = [
        details(runs_dir, row, redact, prefix / row["run"] if prefix is not None else None, most)
        for row in frame.to_dict("records")
    ]
    common = share_config(runs)
    columns = describe_columns(frame)
    values = [[cell(row[column["name"]], redact) for column in columns] for row in frame.to_dict("records")]
    read = datetime.now().strftime("%Y-%m-%d %H:%M")
    return {
        "title": runs_dir.resolve().name,
        "read": read,
        "factors": FACTORS,
        "columns": columns,
        "rows": values,
        "config": common,
        "runs": runs,
        "metrics": describe_curves({name for run in runs for name in run["curves"]}),
    }


def cell(value: Any, redact: Callable[[str], str]) -> Any:
    """Return a cell of the table as a value of JSON; None if the run has no value."""
    if isinstance(value, str):
        return redact(value)
    if pd.isna(value):
        return None
    value = value.item() if hasattr(value, "item") else value
    if not isinstance(value, float) or not math.isfinite(value):
        return value
    return int(value) if value.is_integer() else float(f"{value:.7g}")  # what a float32 holds


def share_config(runs: list[dict[str, Any]]) -> dict[str, str]:
    """Take the most common value of each option out of the runs, and return these values.

    A run keeps the values that differ: None for an option that it does not have.
    """
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for run in runs:
        for name, value in run["config"].items():
            counts[name][value] += 1
    common = {name: values.most_common(1)[0][0] for name, values in counts.items()}
    for run in runs:
        own = run["config"]
        run["config"] = {name: own.get(name) for name in common if own.get(name) != common[name]} if own else None
    return common


def details(
    runs_dir: Path, row: Mapping[str, Any], redact: Callable[[str], str], link: Path | None, most: int
) -> dict[str, Any]:
    """Collect the content of the page of one run, except its row.

    redact: removes private paths from a text. link: folder of the run relative to the page; None: embed the pictures.
    most: points of a curve. Entries beside config and curves, if there are any: infinite, the results that are not
    finite, as text; log, the end of the log of a run without a record; pictures and reports.
    """
    folder = runs_dir / row["run"]
    content: dict[str, Any] = {"config": {}, **curves(folder, most)}
    path = folder / "run.json"
    if row["status"] == "done":
        record = read_record(path)
        leaves = {name: value for name, value in flat(record["config"]) if not name.startswith(REPEATED)}
        content["config"] = {name: redact(spell(value)) for name, value in leaves.items()}
        content["infinite"] = {
            name: spell(value)
            for name, value in record["result"].items()
            if isinstance(value, float) and not math.isfinite(value)
        }
    log = folder / "log.txt"
    if row["status"] != "done" and log.is_file():
        content["log"] = redact(log.read_text(encoding="utf-8", errors="replace")[-LOG:])
    files = sorted(path for path in folder.rglob("*") if path.suffix in (*PICTURES, ".html") and path.is_file())
    content["pictures"] = [
        {"name": path.relative_to(folder).with_suffix("").as_posix(), "source": source(path, folder, link)}
        for path in files
        if path.suffix in PICTURES
    ]
    content["reports"] = [
        {"name": path.relative_to(folder).as_posix(), "source": source(path, folder, link)}
        for path in files
        if path.suffix == ".html" and link is not None
    ]
    return {name: value for name, value in content.items() if value or name in ("config", "curves")}


def source(path: Path, folder: Path, link: Path | None) -> str:
    """Return the URL of a picture for the browser: a relative path, or a data URL with the content."""
    if link is not None:
        return quote((link / path.relative_to(folder)).as_posix())
    return f"data:{PICTURES[path.suffix]};base64,{base64.b64encode(path.read_bytes()).decode()}"


def spell(value: Any) -> str:
    """Spell a value of a configuration or a result."""
    if value in ("{}", "[]"):  # for example a network without positional schemes
        return "none"
    return value if isinstance(value, str) else json.dumps(value)
