"""The finished runs of a study as files in its folder: runs.csv, curves.csv, hits.npz.

The files are small enough to be committed, so that another machine can report the study and continue it. The same
runs give the same bytes, whatever else lies in the folder of runs.

runs.csv     a row for each planned run, with the results of its record; floats are written so that they read back equal
curves.csv   identity, step, epoch, images and val/acc of each validation of each finished run, with six decimals
hits.npz     answers to the test images: identities; images, the number of each run; right and asked, one bit an image,
             the runs one after another, each from a new byte; asked is empty if all runs were asked all images
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from patchbench.machine import whole_file, write_whole
from patchbench.runs.hits import Hits
from patchbench.runs.hits import read_hits as hits_of_run
from patchbench.runs.metrics import FACTORS
from patchbench.runs.record import skip_damaged
from patchbench.runs.records import KEYS, curves
from patchbench.runs.sums import check_sum, verified_file, write_sums

RUNS, CURVES, HITS = "runs.csv", "curves.csv", "hits.npz"
PLANNED = ("scale", "part", "arm", "rung", "seed")  # columns that identify the planned run of a row
NEEDED = ("part", "arm", "seed", "identity", "status")
WHOLE = ("seed", "epochs", "batch_size")
POINTS = ["identity", "step", "epoch", "images", "val/acc"]


def merged(records: pd.DataFrame, folder: Path) -> pd.DataFrame:
    """Join the rows of runs.csv in `folder`, without the columns of the plan, and the records of this machine.

    The records come last. Of several rows with one identity, the last finished row counts: a record of this machine
    replaces a committed row, and a failed run of this machine does not hide a finished run of another machine.
    records: as `records.load` returns them.
    """
    if not (folder / RUNS).exists():
        return records
    rows = read_runs(folder / RUNS)
    rows = rows[rows["status"] != "not run"].drop(columns=[name for name in PLANNED if name in rows])
    parts = [part.dropna(axis=1, how="all") for part in (rows, records) if len(part)]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=KEYS)


def write_files(folder: Path, planned: pd.DataFrame, records: pd.DataFrame, runs_dir: Path) -> None:
    """Write the three files of the planned runs. Runs that are no longer planned are removed from the files.

    planned: a row for each planned run, from `merged` records. records: records of this machine, of the runs in
    `runs_dir`. Curves and hits of all other finished runs are copied from the files in `folder`.
    """
    finished = planned[planned["status"] == "done"].drop_duplicates("identity")
    is_local = finished["identity"].isin(records.loc[records["status"] == "done", "identity"])
    remote = set(finished.loc[~is_local, "identity"])
    old_points = read_curves(folder)
    old_points = old_points[old_points["identity"].isin(remote)]
    points = concatenated([old_points, curve_points(finished[is_local], runs_dir)])
    position = {identity: n for n, identity in enumerate(finished["identity"])}
    points = points.sort_values(["identity", "step"], key=lambda c: c.map(position) if c.name == "identity" else c)
    hits = {identity: answers for identity, answers in read_hits(folder).items() if identity in remote}
    for row in finished[is_local].itertuples():
        with skip_damaged():
            if answers := hits_of_run(runs_dir / row.run):
                hits[row.identity] = answers
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / CURVES, points.to_csv(index=False, lineterminator="\n"))
    write_hits(folder / HITS, dict(sorted(hits.items())))
    write_runs(folder / RUNS, planned)  # last, so that a run in this table has its curves and hits
    write_sums(folder, (RUNS, CURVES, HITS))


def read_runs(path: Path) -> pd.DataFrame:
    """Read runs.csv: metrics as floats, counts as integers, all other columns as text, also an arm called 16 or none.

    ValueError, in one line, for a table that was altered, lacks a column, or has two rows for one planned run.
    """
    check_sum(path)
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False).apply(parse_column)
    except ValueError as error:  # of pandas: no columns, a row with too many cells, or bytes that are no text
        raise ValueError(f"{path}: {' '.join(str(error).split())}") from error
    if missing := [name for name in NEEDED if name not in table]:
        raise ValueError(f"{path}: column {missing[0]} is missing: a row has {', '.join(NEEDED)} and its figures")
    if len(table) and not pd.api.types.is_integer_dtype(table["seed"]):
        raise ValueError(f"{path}: column seed must hold a whole number in every row")
    repeated = table[table.duplicated([name for name in PLANNED if name in table])]
    if len(repeated):
        row = repeated.iloc[0]
        place = f"part {row['part']}, arm {row['arm']}, seed {row['seed']}"
        raise ValueError(f"{path}: {place} has two rows: a seed counts once, so remove one")
    return table


def parse_column(column: pd.Series) -> pd.Series:
    """Convert a column of text to the type of its name; a metric that is no number, such as model/grid, stays text."""
    texts = column.where(column != "")
    if "/" not in str(column.name) and column.name not in WHOLE:
        return texts
    try:
        numbers = texts.map(float, na_action="ignore").astype(float)  # Python's float is exact, that of pandas is not
    except ValueError:
        return texts
    whole = column.name in WHOLE and numbers.notna().all()
    return numbers.astype(int) if whole else numbers


def write_runs(path: Path, table: pd.DataFrame) -> None:
    """Write runs.csv with its columns in a fixed order; empty columns are left out."""
    table = table.dropna(axis=1, how="all")
    first = [name for name in dict.fromkeys((*PLANNED, "identity", "run", "status", *FACTORS)) if name in table]
    columns = first + sorted(set(table) - set(first))
    write_whole(path, table[columns].map(to_text).to_csv(index=False, lineterminator="\n"))


def to_text(value: Any) -> str:
    """Convert a value to the shortest text that reads back as an equal value; whole floats have no point."""
    if (isinstance(value, float) and math.isnan(value)) or value is None:
        return ""
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return str(int(value))
    return repr(float(value)) if isinstance(value, float) else str(value)


def curve_points(runs: pd.DataFrame, runs_dir: Path) -> pd.DataFrame:
    """Return the validation accuracies of finished runs in `runs_dir`, with the columns POINTS. runs: one run a row."""
    tables = []
    for row in runs.to_dict("records"):
        score = curves(runs_dir / row["run"], "val/acc")
        steps = score.index.to_numpy(dtype=int)
        columns = (row["identity"], steps, 1 + np.arange(len(steps)), steps * int(row["batch_size"]))
        tables.append(pd.DataFrame(dict(zip(POINTS, (*columns, score.to_numpy().round(6)), strict=True))))
    return concatenated(tables)


def read_curves(folder: Path) -> pd.DataFrame:
    """Read curves.csv, with the columns POINTS; empty if there is no file."""
    if not (folder / CURVES).exists():
        return concatenated([])
    with verified_file(folder / CURVES):
        return pd.read_csv(folder / CURVES, dtype={"identity": str}, converters={"val/acc": float})[POINTS]


def concatenated(tables: list[pd.DataFrame]) -> pd.DataFrame:
    """Concatenate tables with the columns POINTS. Empty tables are left out: their columns have no types."""
    tables = [table for table in tables if len(table)]
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=POINTS)


def read_hits(folder: Path) -> dict[str, Hits]:
    """Read hits.npz: the answers to the test images, by identity; empty if there is no file."""
    if not (folder / HITS).exists():
        return {}
    with verified_file(folder / HITS), (folder / HITS).open("rb") as content, np.load(content) as file:
        names, images, right, asked = (file[name] for name in ("identities", "images", "right", "asked"))
    hits, start = {}, 0
    for name, count in zip(names.tolist(), images.tolist(), strict=True):
        end = start + math.ceil(count / 8)
        asked_bits = np.unpackbits(asked[start:end], count=count) if len(asked) else np.ones(count)
        hits[name] = Hits(np.unpackbits(right[start:end], count=count).astype(bool), asked_bits.astype(bool))
        start = end
    return hits


def write_hits(path: Path, hits: Mapping[str, Hits]) -> None:
    """Write hits.npz, or remove it if no run has hits."""
    if not hits:
        path.unlink(missing_ok=True)
        return
    incomplete = [each.asked for each in hits.values() if not each.asked.all()]
    asked = [np.packbits(each.asked) for each in hits.values()] if incomplete else [np.zeros(0, np.uint8)]
    with whole_file(path, "wb") as file:
        np.savez(
            file,
            identities=np.array(list(hits)),
            images=np.array([len(each.right) for each in hits.values()]),
            right=np.concatenate([np.packbits(each.right) for each in hits.values()]),
            asked=np.concatenate(asked),
        )
