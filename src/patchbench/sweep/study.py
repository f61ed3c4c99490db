"""The runs of a study that a sweep has to make: all but those that were finished on another machine."""

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
    """Overrides of each run that is planned, and is not finished elsewhere with all figures that are asked for.

    A run that was finished elsewhere has a row in the committed runs.csv, and no record in `runs_dir`. arguments: of
    the command line, for every run; rerun=true leaves nothing out. ValueError where the study cannot be.
    """
    study = tuned_study(name, scale, tuning, runs_dir, part, experiments)
    planned = [replace(cell, overrides=(*cell.overrides, *arguments)) for cell in cells(study, scale, experiments)]
    path = folder_of(name, scale, runs_dir, experiments) / RUNS
    elsewhere = finished_elsewhere(path, runs_dir) if "rerun=true" not in arguments else {}
    if elsewhere:
        known = dict(zip(planned, identities(study, planned), strict=True))
        missing = [cell for cell in planned if not is_answered(cell, elsewhere.get(known[cell]))]
        if left_out := len(planned) - len(missing):
            print(f"{left_out} of {len(planned)} runs were finished elsewhere, see {path}: rerun=true makes them here")
        planned = missing
    return [list(cell.overrides) for cell in planned]


def finished_elsewhere(path: Path, runs_dir: Path) -> dict[str, dict[str, object]]:
    """Rows of finished runs by identity, without those that have a record here. path: of runs.csv."""
    if not path.exists():
        return {}
    table = read_runs(path)
    here = {record.parent.name.rpartition("_")[2] for record in runs_dir.glob("*/run.json")}
    done = table[(table["status"] == "done") & ~table["identity"].isin(here)]
    rows = ((str(row["identity"]), row.dropna()) for _, row in done.iterrows())
    return {identity: {str(name): value for name, value in row.items()} for identity, row in rows}


def is_answered(cell: Cell, row: dict[str, object] | None) -> bool:
    """True if a row of runs.csv has all figures that a run is asked for."""
    if row is None:
        return False
    cfg = composed_once(tuple(o for o in cell.overrides if not o.startswith("seed=")))  # which no question depends on
    record = {"eval": json.loads(str(row.get("eval", "{}"))), "result": row}
    return has_eval_results(record, cfg) and has_analysis(record, cfg)


composed_once = functools.cache(composed)
