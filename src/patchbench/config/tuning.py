"""The same number of trials for every arm, over learning rate and weight decay: one seed, judged on validation."""

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
    """Trials of an arm as overrides, as in `optim.lr=0.001 optim.weight_decay=0.05`."""
    grid = study.grids.get(arm, study.grid)
    return [
        " ".join(f"{knob}={value:g}" for knob, value in zip(grid, values, strict=True))
        for values in product(*grid.values())
    ]


def grid(study: Study, scale: str) -> Study:
    """Each arm at each of its settings, called `arm | setting`, at the first budget of a ladder, with a seed apart."""

    def widened(part: Part) -> Part:
        arms = {
            f"{arm} | {setting}": (*given, *setting.split())
            for arm, given in part.arms.items()
            for setting in settings(study, arm)
        }
        return replace(part, arms=arms, statements=(), effects=(), seeds={})

    scales = {scale: Scale((TUNING_SEED,), study.scales[scale].overrides, rungs=1)}
    return replace(study, scales=scales, parts=tuple(map(widened, study.parts)))


def choose(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of FILE, from those of the grid: part, arm as `grid` names it, val/acc.

    Of equals the first is chosen; a run without a result counts as the worst.
    """
    named = table["arm"].str.split(" | ", n=1, expand=True, regex=False)
    tuned = table[["part"]].assign(arm=named[0], setting=named[1])
    tuned["val/acc"] = pd.to_numeric(table.get("val/acc", pd.Series(index=table.index))).fillna(-1.0)
    best = tuned.groupby(["part", "arm"])["val/acc"].transform("idxmax")
    return tuned.assign(chosen=tuned.index == best)


def best(study: Study, scale: str, folder: Path, *, whole: bool = True) -> Study:
    """Each arm at its chosen setting. FileNotFoundError or ValueError where an arm has none.

    whole=False: a part whose arms are not tuned yet stays as it is.
    """
    path = folder / FILE
    if not path.exists():
        raise FileNotFoundError(f"study {study.name}: there is no {path}: run the study with tune=true first")
    rows = read_tuned(path)
    chosen = {(row.part, row.arm): row.setting for row in rows[rows["chosen"]].itertuples()}

    def tuned(part: Part) -> Part:
        if missing := [arm for arm in part.arms if scale in part.only and (part.name, arm) not in chosen]:
            if not whole:
                return part
            raise ValueError(
                f"study {study.name}: {path} has no setting for part {part.name}, arm {missing[0]} at scale={scale}: "
                "run the study with tune=true first"
            )
        arms = {arm: (*given, *chosen.get((part.name, arm), "").split()) for arm, given in part.arms.items()}
        return replace(part, arms=arms)

    return replace(study, parts=tuple(map(tuned, study.parts)))


def tune(name: str, scale: str, runs_dir: Path, part: str | None = None, experiments: Path = EXPERIMENTS) -> Path:
    """Choose by the runs of the grid, and write FILE; of one part, if it is named. ValueError where none is done."""
    study = only_part(read_study(name, experiments), part)
    one_of_its_own(study, scale)
    table = plan_of(grid(study, scale), scale, load(runs_dir), experiments)
    if not (table["status"] == "done").any():
        raise ValueError(f"runs_dir={runs_dir} holds no finished run of the grid of study {name} at scale={scale}")
    path = folder_of(name, scale, runs_dir, experiments) / FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    chosen = choose(table)
    if part is not None and path.exists():
        before = read_tuned(path)
        chosen = pd.concat([before[before["part"] != part], chosen])
    write_whole(path, chosen.to_csv(index=False))
    write_sums(path.parent, [FILE])
    return path


def one_of_its_own(study: Study, scale: str) -> None:
    """ValueError for a scale that takes the settings of another."""
    if like := study.scales[scale].like:
        raise ValueError(
            f"study {study.name}: scale={scale} is run at the settings that scale={like} chose, and these are not all "
            f"there: python scripts/study.py {study.name} scale={like}"
        )


def is_tuned(study: Study, scale: str, folder: Path) -> bool:
    """True if FILE has a setting for every arm, as where the trials were made on another machine."""
    if not (folder / FILE).exists():
        return False
    rows = read_tuned(folder / FILE)
    chosen = {(row.part, row.arm) for row in rows[rows["chosen"]].itertuples()}
    return all((part.name, arm) in chosen for part in study.parts if scale in part.only for arm in part.arms)


def read_tuned(path: Path) -> pd.DataFrame:
    """Read FILE. ValueError where it is not the one that was written."""
    with verified_file(path):
        return pd.read_csv(path, dtype={"part": str, "arm": str, "setting": str}, keep_default_na=False)[COLUMNS]


def study_as(
    name: str, scale: str, tuning: str, runs_dir: Path, part: str | None = None, experiments: Path = EXPERIMENTS
) -> Study:
    """The study, or a part of it, as it is, widened by the grid, or at the best of the grid; see TUNINGS."""
    study = only_part(read_study(name, experiments), part)
    if tuning == "grid":
        return grid(study, scale)
    return best(study, scale, settings_folder(study, scale, runs_dir, experiments)) if tuning == "best" else study
