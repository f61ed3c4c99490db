"""The plan of a study at a scale: all its runs, and the record of each if it exists."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from patchbench.config.compose import composed
from patchbench.config.equal_time import at_equal_time, read_costs
from patchbench.config.identity import compared, identify
from patchbench.config.mistakes import HYDRA_ERRORS, explain
from patchbench.config.options import EXPERIMENTS
from patchbench.study.design import Part, Scale, Study
from patchbench.study.reading import one_of, parse

PLANNED = ["scale", "part", "arm", "rung", "seed"]
# Overrides of every run of every study: the weights at the end of training are tested.
COMMON_OVERRIDES = ("tested=last",)


@dataclass(frozen=True)
class Cell:
    """A run of a study: an arm with a seed, and a budget of the ladder if its part has a ladder.

    overrides: arguments of train.py.
    """

    part: str
    arm: str
    rung: str
    seed: int
    overrides: tuple[str, ...]


def read_study(name: str, experiments: Path = EXPERIMENTS) -> Study:
    """Read experiments/<name>/study.yaml. FileNotFoundError or ValueError, in one line, if that is not possible."""
    path = experiments / name / "study.yaml"
    if not path.exists():
        available = ", ".join(studies(experiments)) or "none"
        raise FileNotFoundError(f"study {name}: there is no {path}; studies are {available}")
    try:
        tree = OmegaConf.to_container(OmegaConf.load(path))
    except (OmegaConfBaseException, YAMLError) as error:
        raise ValueError(f"{path}: {' '.join(str(error).split())}") from error
    if not isinstance(tree, dict):
        raise ValueError(f"{path} must be a mapping: question, decides, ..., parts")
    return parse(name, {str(key): value for key, value in tree.items()})


def studies(experiments: Path = EXPERIMENTS) -> list[str]:
    """List the names of all studies."""
    return sorted(path.parent.name for path in experiments.glob("*/study.yaml"))


def folder_of(name: str, scale: str, runs_dir: Path, experiments: Path = EXPERIMENTS) -> Path:
    """Folder of the results of a study at a scale.

    cpu: experiments/<name>. smoke: a folder below runs_dir, since its results mean nothing. Others:
    experiments/<name>/<scale>.
    """
    places = {"cpu": experiments / name, "smoke": runs_dir / "reports" / f"{name}-smoke"}
    return places.get(scale, experiments / name / scale)


def parts_at(study: Study, scale: str) -> list[Part]:
    """List the parts that are run at this scale. ValueError if there is no such scale."""
    one_of(scale, tuple(study.scales), f"study {study.name}: scale")
    return [part for part in study.parts if scale in part.only]


def settings_folder(study: Study, scale: str, runs_dir: Path, experiments: Path = EXPERIMENTS) -> Path:
    """Folder of the tuned settings and speeds of a scale: its own, or that of the scale in its entry `like`."""
    return folder_of(study.name, study.scales[scale].like or scale, runs_dir, experiments)


def only_part(study: Study, name: str | None) -> Study:
    """Return the study with one of its parts, or with all if `name` is None. ValueError if there is no such part."""
    if name is None:
        return study
    one_of(name, tuple(part.name for part in study.parts), f"study {study.name}: part")
    return replace(study, parts=tuple(part for part in study.parts if part.name == name))


def rungs(part: Part, scale: Scale) -> tuple[str, ...]:
    """Budgets of the part at this scale; one budget without a name if it has no ladder."""
    return part.ladder.rungs[: scale.rungs or None] if part.ladder else ("",)


def overrides(study: Study, scale: str, part: Part, arm: str, rung: str) -> tuple[str, ...]:
    """Return the overrides of an arm.

    In this order, of which the last counts: study, scale, part, part at this scale, budget, arm.
    """
    at_scale = study.scales[scale].overrides, part.overrides, part.scales.get(scale, ())
    budget = (f"{part.ladder.knob}={rung}",) if part.ladder else ()
    return (*COMMON_OVERRIDES, *study.overrides, *(o for some in at_scale for o in some), *budget, *part.arms[arm])


def cells(study: Study, scale: str, experiments: Path = EXPERIMENTS) -> list[Cell]:
    """List all planned runs, seed by seed, so that an interrupted study has all arms of some seeds.

    experiments: folder of the studies, with the measured costs for arms of equal time. ValueError if an arm was not
    measured.
    """
    parts = parts_at(study, scale)
    costs = read_costs(settings_folder(study, scale, Path("runs"), experiments))
    arms = {
        (part.name, rung, arm): with_steps(study, scale, part, arm, overrides(study, scale, part, arm, rung), costs)
        for part in parts
        for rung in rungs(part, study.scales[scale])
        for arm in part.arms
    }
    return [
        Cell(part.name, arm, rung, seed, (*arms[part.name, rung, arm], f"seed={seed}"))
        for part in parts
        for seed in part.seeds.get(scale, study.scales[scale].seeds)
        for rung in rungs(part, study.scales[scale])
        for arm in part.arms
    ]


def with_steps(
    study: Study, scale: str, part: Part, arm: str, given: tuple[str, ...], costs: pd.DataFrame
) -> tuple[str, ...]:
    """Add the number of steps to the overrides if the part has `seconds`. ValueError for limits of time."""
    if timed := [override for override in given if override.startswith(("budget=seconds", "trainer.max_time="))]:
        raise ValueError(
            f"study {study.name}: part {part.name}: {timed[0]} depends on what else runs: give the part "
            "seconds: 4.0, which become steps by the speeds in costs.csv"
        )
    if part.seconds is None:
        return given
    return at_equal_time(given, part.seconds, costs, study=study.name, scale=scale, part=part.name, arm=arm)


def identities(study: Study, planned: Sequence[Cell]) -> list[str]:
    """Return the identities of the planned runs. Each arm is composed once, for all seeds, since that takes 0.1 s.

    ValueError if Hydra does not accept the overrides.
    """
    arms: dict[tuple[str, str, str], tuple[DictConfig, dict[str, Any]]] = {}
    result = []
    for cell in planned:
        arm = cell.part, cell.arm, cell.rung
        refers = any("${" in override for override in cell.overrides)  # perhaps to the seed
        if arm not in arms or refers:
            try:
                cfg = composed(cell.overrides)
            except HYDRA_ERRORS as error:
                where = f"study {study.name}: part {cell.part}, arm {cell.arm}"
                raise ValueError(f"{where}: {explain(error, cell.overrides)}") from error
            arms[arm] = cfg, compared(cfg, cfg.hydra.runtime.choices)
        cfg, knobs = arms[arm]
        result.append(identify({**knobs, "seed": cell.seed}, cfg, cfg.hydra.runtime.choices))
    return result


def plan_of(study: Study, scale: str, records: pd.DataFrame, experiments: Path = EXPERIMENTS) -> pd.DataFrame:
    """Return a row for each planned run, with the columns of its record; status `not run` if there is none."""
    planned = cells(study, scale, experiments)
    rows = [
        (scale, cell.part, cell.arm, cell.rung, cell.seed, identity)
        for cell, identity in zip(planned, identities(study, planned), strict=True)
    ]
    table = pd.DataFrame(rows, columns=[*PLANNED, "identity"])
    finished_last = records.sort_values("status", key=lambda status: status == "done", kind="stable")
    latest = finished_last.drop(columns="seed", errors="ignore").drop_duplicates("identity", keep="last")
    merged = table.merge(latest, on="identity", how="left")
    merged["status"] = merged["status"].fillna("not run")
    return merged.dropna(axis=1, how="all")
