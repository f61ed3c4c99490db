"""The runs of a study for a sweep: all planned runs except those that another machine has finished."""

import functools
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from patchbench.config.compose import composed
from patchbench.config.identity import has_analysis, has_eval_results
from patchbench.config.options import EXPERIMENTS
from patchbench.config.plan import Cell, cells, folder_of, identities
from patchbench.config.tuning import tuned_study
from patchbench.runs.committed import RUNS, read_runs


def cells_to_run(
    name: str,
    scale: str,
    tuning: str,
    runs_dir: Path,
    arguments: Sequence[str],
    part: str | None = None,
    experiments: Path = EXPERIMENTS,
) -> list[list[str]]:
    """Return the overrides of each planned run that no other machine has finished with all results asked for.

    A run that another machine has finished has a row in the committed runs.csv, and no record in `runs_dir`. arguments:
    overrides for all runs; with rerun=true no run is left out. ValueError for a wrong study, scale or part.
    """
    study = tuned_study(name, scale, tuning, runs_dir, part, experiments)
    planned = [replace(cell, overrides=(*cell.overrides, *arguments)) for cell in cells(study, scale, experiments)]
    path = folder_of(name, scale, runs_dir, experiments) / RUNS
    remote = finished_elsewhere(path, runs_dir) if "rerun=true" not in arguments else {}
    if remote:
        known = dict(zip(planned, identities(study, planned), strict=True))
        missing = [cell for cell in planned if not has_all_results(cell, remote.get(known[cell]))]
        if done := len(planned) - len(missing):
            print(f"{done} of {len(planned)} runs are in {path}, not in {runs_dir}: rerun=true makes them here")
        planned = missing
    return [list(cell.overrides) for cell in planned]


def finished_elsewhere(path: Path, runs_dir: Path) -> dict[str, dict[str, object]]:
    """Return the rows of runs.csv of finished runs, by identity, without runs that have a record in `runs_dir`."""
    if not path.exists():
        return {}
    table = read_runs(path)
    local = {record.parent.name.rpartition("_")[2] for record in runs_dir.glob("*/run.json")}
    done = table[(table["status"] == "done") & ~table["identity"].isin(local)]
    rows = ((str(row["identity"]), row.dropna()) for _, row in done.iterrows())
    return {identity: {str(name): value for name, value in row.items()} for identity, row in rows}


def has_all_results(cell: Cell, row: dict[str, object] | None) -> bool:
    """True if a row of runs.csv has all results that a cell asks for."""
    if row is None:
        return False
    cfg = composed_once(tuple(o for o in cell.overrides if not o.startswith("seed=")))  # the seed changes no option
    record = {"eval": json.loads(str(row.get("eval", "{}"))), "result": row}
    return has_eval_results(record, cfg) and has_analysis(record, cfg)


composed_once = functools.cache(composed)
