"""Tuning of all arms over a grid of learning rate and weight decay: one seed, chosen by validation accuracy."""

from dataclasses import replace
from itertools import product
from pathlib import Path

import pandas as pd

from patchbench.config.options import EXPERIMENTS
from patchbench.config.plan import folder_of, only_part, plan_of, read_study, settings_folder
from patchbench.machine import write_whole
from patchbench.runs.records import load
from patchbench.runs.sums import verified_file, write_sums
from patchbench.study.design import TUNING_SEED, Part, Scale, Study

FILE = "tuned.csv"
COLUMNS = ["part", "arm", "setting", "val/acc", "chosen"]
TUNINGS = ("none", "grid", "best")


def settings(study: Study, arm: str) -> list[str]:
    """List the settings of the grid of an arm as overrides: `optim.lr=0.001 optim.weight_decay=0.05`."""
    grid = study.grids.get(arm, study.grid)
    return [
        " ".join(f"{knob}={value:g}" for knob, value in zip(grid, values, strict=True))
        for values in product(*grid.values())
    ]


def grid(study: Study, scale: str) -> Study:
    """Return the study with an arm `arm | setting` for each setting of each arm.

    The seed is TUNING_SEED alone, and the budget the first of a ladder.
    """

    def widened(part: Part) -> Part:
        arms = {
            f"{arm} | {setting}": (*given, *setting.split())
            for arm, given in part.arms.items()
            for setting in settings(study, arm)
        }
        return replace(part, arms=arms, statements=(), effects=(), seeds={})

    scales = {scale: Scale((TUNING_SEED,), study.scales[scale].overrides, rungs=1)}
    return replace(study, scales=scales, parts=tuple(map(widened, study.parts)))


def choose_best(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of FILE. Of equal accuracies the first is chosen; a run without a result is the worst.

    table: rows of the runs of the grid, with part, arm as `grid` names it, and val/acc.
    """
    named = table["arm"].str.split(" | ", n=1, expand=True, regex=False)
    tuned = table[["part"]].assign(arm=named[0], setting=named[1])
    tuned["val/acc"] = pd.to_numeric(table.get("val/acc", pd.Series(index=table.index))).fillna(-1.0)
    best = tuned.groupby(["part", "arm"])["val/acc"].transform("idxmax")
    return tuned.assign(chosen=tuned.index == best)


def best(study: Study, scale: str, folder: Path, *, complete: bool = True) -> Study:
    """Return the study with each arm at its chosen setting. FileNotFoundError or ValueError if an arm has none.

    complete: false leaves a part as it is if one of its arms is not tuned yet.
    """
    path = folder / FILE
    if not path.exists():
        raise FileNotFoundError(f"study {study.name}: there is no {path}: run the study with tune=true first")
    rows = read_tuned(path)
    chosen = {(row.part, row.arm): row.setting for row in rows[rows["chosen"]].itertuples()}

    def tuned(part: Part) -> Part:
        if missing := [arm for arm in part.arms if scale in part.only and (part.name, arm) not in chosen]:
            if not complete:
                return part
            raise ValueError(
                f"study {study.name}: {path} has no setting for part {part.name}, arm {missing[0]} at scale={scale}: "
                "run the study with tune=true first"
            )
        arms = {arm: (*given, *chosen.get((part.name, arm), "").split()) for arm, given in part.arms.items()}
        return replace(part, arms=arms)

    return replace(study, parts=tuple(map(tuned, study.parts)))


def tune(name: str, scale: str, runs_dir: Path, part: str | None = None, experiments: Path = EXPERIMENTS) -> Path:
    """Choose the best settings from the runs of the grid, write FILE, and return its path.

    part: choose for this part only. ValueError if no run of the grid is finished.
    """
    study = only_part(read_study(name, experiments), part)
    refuse_borrowed_settings(study, scale)
    table = plan_of(grid(study, scale), scale, load(runs_dir), experiments)
    if not (table["status"] == "done").any():
        raise ValueError(f"runs_dir={runs_dir} holds no finished run of the grid of study {name} at scale={scale}")
    path = folder_of(name, scale, runs_dir, experiments) / FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    chosen = choose_best(table)
    if part is not None and path.exists():
        old = read_tuned(path)
        chosen = pd.concat([old[old["part"] != part], chosen])
    write_whole(path, chosen.to_csv(index=False))
    write_sums(path.parent, [FILE])
    return path


def refuse_borrowed_settings(study: Study, scale: str) -> None:
    """Raise ValueError for a scale that uses the settings of another scale."""
    if like := study.scales[scale].like:
        raise ValueError(
            f"study {study.name}: scale={scale} uses the settings of scale={like}, which are not complete: "
            f"python scripts/study.py {study.name} scale={like}"
        )


def is_tuned(study: Study, scale: str, folder: Path) -> bool:
    """True if FILE has a setting for every arm, also if the grid was run on another machine."""
    if not (folder / FILE).exists():
        return False
    rows = read_tuned(folder / FILE)
    chosen = {(row.part, row.arm) for row in rows[rows["chosen"]].itertuples()}
    return all((part.name, arm) in chosen for part in study.parts if scale in part.only for arm in part.arms)


def read_tuned(path: Path) -> pd.DataFrame:
    """Read FILE. ValueError if it was altered."""
    with verified_file(path):
        return pd.read_csv(path, dtype={"part": str, "arm": str, "setting": str}, keep_default_na=False)[COLUMNS]


def tuned_study(
    name: str, scale: str, tuning: str, runs_dir: Path, part: str | None = None, experiments: Path = EXPERIMENTS
) -> Study:
    """Return the study, or one part, by `tuning`: none, as it is; grid, see `grid`; best, see `best`."""
    study = only_part(read_study(name, experiments), part)
    if tuning == "grid":
        return grid(study, scale)
    return best(study, scale, settings_folder(study, scale, runs_dir, experiments)) if tuning == "best" else study
