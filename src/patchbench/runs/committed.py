"""The finished runs of a study as files beside it: runs.csv, curves.csv, hits.npz.

They are small enough to be committed, so a study is reported, and goes on, on another machine than the one that made
its runs. The same runs give the same bytes, whatever else lies in the folder of runs.

runs.csv     a row for each planned run, with the figures of its record; every float reads back as it was
curves.csv   identity, step, epoch, images, val/acc of each validation of each finished run; six decimals
hits.npz     answers to the test images by identity: identities; images, a count for each; right and asked, the bits of
             one run after those of another, each from a new byte; asked is empty if every image was asked
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
from patchbench.runs.record import leaving_out
from patchbench.runs.records import KEYS, curves
from patchbench.runs.sums import check_sum, intact, write_sums

RUNS, CURVES, HITS = "runs.csv", "curves.csv", "hits.npz"
PLANNED = ("scale", "part", "arm", "rung", "seed")  # columns that say for which planned run a row is
NEEDED = ("part", "arm", "seed", "identity", "status")
WHOLE = ("seed", "epochs", "batch_size")
POINTS = ["identity", "step", "epoch", "images", "val/acc"]


def merged(records: pd.DataFrame, folder: Path) -> pd.DataFrame:
    """Records of this machine after the rows of runs.csv in `folder`, without the columns of the plan.

    Of several rows of one identity, the last finished one counts: so a record here wins, and a run that has failed here
    does not hide one that was finished elsewhere. records: as `records.load` returns them.
    """
    if not (folder / RUNS).exists():
        return records
    rows = read_runs(folder / RUNS)
    rows = rows[rows["status"] != "not run"].drop(columns=[name for name in PLANNED if name in rows])
    parts = [part.dropna(axis=1, how="all") for part in (rows, records) if len(part)]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=KEYS)


def keep(folder: Path, planned: pd.DataFrame, records: pd.DataFrame, runs_dir: Path) -> None:
    """Write the three files of the planned runs; what is no longer planned is dropped.

    planned: a row for each run, from `merged` records. records: those of this machine, whose runs lie in `runs_dir`;
    curves and hits of all other finished runs are those that `folder` holds.
    """
    finished = planned[planned["status"] == "done"].drop_duplicates("identity")
    here = finished["identity"].isin(records.loc[records["status"] == "done", "identity"])
    elsewhere = set(finished.loc[~here, "identity"])
    old = read_curves(folder)
    points = filled([old[old["identity"].isin(elsewhere)], points_of(finished[here], runs_dir)])
    place = {identity: n for n, identity in enumerate(finished["identity"])}
    points = points.sort_values(["identity", "step"], key=lambda c: c.map(place) if c.name == "identity" else c)
    hits = {identity: found for identity, found in read_hits(folder).items() if identity in elsewhere}
    for row in finished[here].itertuples():
        with leaving_out():
            if found := hits_of_run(runs_dir / row.run):
                hits[row.identity] = found
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / CURVES, points.to_csv(index=False, lineterminator="\n"))
    write_hits(folder / HITS, dict(sorted(hits.items())))
    write_runs(folder / RUNS, planned)  # last, so that no run is done without the rest
    write_sums(folder, (RUNS, CURVES, HITS))


def read_runs(path: Path) -> pd.DataFrame:
    """Read runs.csv: metrics as floats, counts as integers, all else as text, even an arm called 16 or none.

    ValueError in one line for a table that is not the one that was written, lacks a column, or has two rows for one
    planned run.
    """
    check_sum(path)
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False).apply(typed)
    except ValueError as error:  # pandas': no columns, or a row with more than there are; or no text
        raise ValueError(f"{path}: {' '.join(str(error).split())}") from error
    if lacking := [name for name in NEEDED if name not in table]:
        raise ValueError(f"{path}: column {lacking[0]} is missing: a row has {', '.join(NEEDED)} and its figures")
    if len(table) and not pd.api.types.is_integer_dtype(table["seed"]):
        raise ValueError(f"{path}: column seed must hold a whole number in every row")
    twice = table[table.duplicated([name for name in PLANNED if name in table])]
    if len(twice):
        row = twice.iloc[0]
        place = f"part {row['part']}, arm {row['arm']}, seed {row['seed']}"
        raise ValueError(f"{path}: {place} has two rows: a seed counts once, so remove one")
    return table


def typed(column: pd.Series) -> pd.Series:
    """A column of text as what it is, by its name; a metric that is no number, as model/grid, stays text."""
    texts = column.where(column != "")
    if "/" not in str(column.name) and column.name not in WHOLE:
        return texts
    try:
        numbers = texts.map(float, na_action="ignore").astype(float)  # Python's is exact, the one of pandas is not
    except ValueError:
        return texts
    whole = column.name in WHOLE and numbers.notna().all()
    return numbers.astype(int) if whole else numbers


def write_runs(path: Path, table: pd.DataFrame) -> None:
    """Write runs.csv with its columns in a fixed order, without those that are empty."""
    table = table.dropna(axis=1, how="all")
    first = [name for name in dict.fromkeys((*PLANNED, "identity", "run", "status", *FACTORS)) if name in table]
    columns = first + sorted(set(table) - set(first))
    write_whole(path, table[columns].map(spelled).to_csv(index=False, lineterminator="\n"))


def spelled(value: Any) -> str:
    """A value as text: the shortest that reads back as the same number, whole ones without a point."""
    if (isinstance(value, float) and math.isnan(value)) or value is None:
        return ""
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return str(int(value))
    return repr(float(value)) if isinstance(value, float) else str(value)


def points_of(runs: pd.DataFrame, runs_dir: Path) -> pd.DataFrame:
    """Validation accuracy by step of finished runs of this machine, with the columns POINTS. runs: a row for each."""
    tables = []
    for row in runs.to_dict("records"):
        score = curves(runs_dir / row["run"], "val/acc")
        steps = score.index.to_numpy(dtype=int)
        columns = (row["identity"], steps, 1 + np.arange(len(steps)), steps * int(row["batch_size"]))
        tables.append(pd.DataFrame(dict(zip(POINTS, (*columns, score.to_numpy().round(6)), strict=True))))
    return filled(tables)


def read_curves(folder: Path) -> pd.DataFrame:
    """The columns POINTS of every run; empty where there is no file."""
    if not (folder / CURVES).exists():
        return filled([])
    with intact(folder / CURVES):
        return pd.read_csv(folder / CURVES, dtype={"identity": str}, converters={"val/acc": float})[POINTS]


def filled(tables: list[pd.DataFrame]) -> pd.DataFrame:
    """The tables of POINTS in one; empty ones have no types to agree on."""
    tables = [table for table in tables if len(table)]
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=POINTS)


def read_hits(folder: Path) -> dict[str, Hits]:
    """Answers to the test images by identity, of the runs that have them."""
    if not (folder / HITS).exists():
        return {}
    with intact(folder / HITS), (folder / HITS).open("rb") as content, np.load(content) as file:
        names, images, right, asked = (file[name] for name in ("identities", "images", "right", "asked"))
    hits, start = {}, 0
    for name, count in zip(names.tolist(), images.tolist(), strict=True):
        end = start + math.ceil(count / 8)
        given = np.unpackbits(asked[start:end], count=count) if len(asked) else np.ones(count)
        hits[name] = Hits(np.unpackbits(right[start:end], count=count).astype(bool), given.astype(bool))
        start = end
    return hits


def write_hits(path: Path, hits: Mapping[str, Hits]) -> None:
    """Write hits.npz, or remove it where no run has any."""
    if not hits:
        path.unlink(missing_ok=True)
        return
    partly = [each.asked for each in hits.values() if not each.asked.all()]
    asked = [np.packbits(each.asked) for each in hits.values()] if partly else [np.zeros(0, np.uint8)]
    with whole_file(path, "wb") as file:
        np.savez(
            file,
            identities=np.array(list(hits)),
            images=np.array([len(each.right) for each in hits.values()]),
            right=np.concatenate([np.packbits(each.right) for each in hits.values()]),
            asked=np.concatenate(asked),
        )
