"""A study at a scale: every run that it consists of, and which of the runs on disk each of them is."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from patchbench.config.compose import composed
from patchbench.config.equal_time import at_equal_time, read_costs
from patchbench.config.identity import identity_of
from patchbench.config.mistakes import OBJECTIONS, explain
from patchbench.config.options import EXPERIMENTS
from patchbench.study.design import Part, Scale, Study
from patchbench.study.reading import one_of, parse

PLANNED = ["scale", "part", "arm", "rung", "seed"]
EQUAL = ("tested=last",)  # overrides of every run of every study: what training ended with is tested, in every arm


@dataclass(frozen=True)
class Cell:
    """One run of a study: an arm with a seed, at a budget of the ladder if its part has one.

    overrides: the arguments of train.py that make it.
    """

    part: str
    arm: str
    rung: str
    seed: int
    overrides: tuple[str, ...]


def read_study(name: str, experiments: Path = EXPERIMENTS) -> Study:
    """experiments/<name>/study.yaml. FileNotFoundError or ValueError in one line."""
    path = experiments / name / "study.yaml"
    if not path.exists():
        there = ", ".join(studies(experiments)) or "none"
        raise FileNotFoundError(f"study {name}: there is no {path}; studies are {there}")
    try:
        tree = OmegaConf.to_container(OmegaConf.load(path))
    except (OmegaConfBaseException, YAMLError) as error:
        raise ValueError(f"{path}: {' '.join(str(error).split())}") from error
    if not isinstance(tree, dict):
        raise ValueError(f"{path} must be a mapping: question, decides, ..., parts")
    return parse(name, {str(key): value for key, value in tree.items()})


def studies(experiments: Path = EXPERIMENTS) -> list[str]:
    return sorted(path.parent.name for path in experiments.glob("*/study.yaml"))


def folder_of(name: str, scale: str, runs_dir: Path, experiments: Path = EXPERIMENTS) -> Path:
    """Folder of the results of a study: experiments/<name>; below runs_dir at scale smoke, which shows nothing."""
    places = {"cpu": experiments / name, "smoke": runs_dir / "reports" / f"{name}-smoke"}
    return places.get(scale, experiments / name / scale)


def parts_at(study: Study, scale: str) -> list[Part]:
    """The parts that are run at this scale. ValueError if there is no such scale."""
    one_of(scale, tuple(study.scales), f"study {study.name}: scale")
    return [part for part in study.parts if scale in part.only]


def settings_folder(study: Study, scale: str, runs_dir: Path, experiments: Path = EXPERIMENTS) -> Path:
    """Folder of the settings and speeds with which a scale is run: its own, or that of the scale that it is like."""
    return folder_of(study.name, study.scales[scale].like or scale, runs_dir, experiments)


def only_part(study: Study, name: str | None) -> Study:
    """The study with one of its parts; whole without a name. ValueError if there is no such part."""
    if name is None:
        return study
    one_of(name, tuple(part.name for part in study.parts), f"study {study.name}: part")
    return replace(study, parts=tuple(part for part in study.parts if part.name == name))


def rungs(part: Part, scale: Scale) -> tuple[str, ...]:
    """Budgets of the part at this scale: one without a name where it has no ladder."""
    return part.ladder.rungs[: scale.rungs or None] if part.ladder else ("",)


def overrides(study: Study, scale: str, part: Part, arm: str, rung: str) -> tuple[str, ...]:
    """Overrides of an arm: of the study, the scale, the part, the part at this scale, the arm; the last one wins."""
    at_scale = study.scales[scale].overrides, part.overrides, part.scales.get(scale, ())
    budget = (f"{part.ladder.knob}={rung}",) if part.ladder else ()
    return (*EQUAL, *study.overrides, *(o for some in at_scale for o in some), *budget, *part.arms[arm])


def cells(study: Study, scale: str, experiments: Path = EXPERIMENTS) -> list[Cell]:
    """Every planned run, seed by seed: what is cut off has all arms of some seeds, not some arms of all seeds.

    experiments: the folder that holds the measured costs, by which arms of equal time are planned. ValueError where
    these lack an arm.
    """
    parts = parts_at(study, scale)
    costs = read_costs(settings_folder(study, scale, Path("runs"), experiments))
    arms = {
        (part.name, rung, arm): timed(study, scale, part, arm, overrides(study, scale, part, arm, rung), costs)
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


def timed(
    study: Study, scale: str, part: Part, arm: str, given: tuple[str, ...], costs: pd.DataFrame
) -> tuple[str, ...]:
    """Overrides with as many steps as the part has seconds for; as they are, where it has none."""
    if timed := [override for override in given if override.startswith(("budget=seconds", "trainer.max_time="))]:
        raise ValueError(
            f"study {study.name}: part {part.name}: {timed[0]} depends on what else runs: give the part "
            "seconds: 4.0, which become steps by the speeds in costs.csv"
        )
    if part.seconds is None:
        return given
    return at_equal_time(given, part.seconds, costs, study=study.name, scale=scale, part=part.name, arm=arm)


def identities(study: Study, planned: Sequence[Cell]) -> list[str]:
    """Identities of the planned runs. Arms are composed once, which takes 0.1 s: seeds differ in nothing else.

    ValueError if Hydra does not take the overrides.
    """
    arms: dict[tuple[str, str, str], DictConfig] = {}
    found = []
    for cell in planned:
        arm = cell.part, cell.arm, cell.rung
        if arm not in arms:
            try:
                arms[arm] = composed(cell.overrides)
            except OBJECTIONS as error:
                where = f"study {study.name}: part {cell.part}, arm {cell.arm}"
                raise ValueError(f"{where}: {explain(error, cell.overrides)}") from error
        arms[arm].seed = cell.seed
        found.append(identity_of(arms[arm], arms[arm].hydra.runtime.choices))
    return found


def plan_of(study: Study, scale: str, records: pd.DataFrame, experiments: Path = EXPERIMENTS) -> pd.DataFrame:
    """A row for each planned run, with what its record says; status `not run` where there is none."""
    planned = cells(study, scale, experiments)
    rows = [
        (scale, cell.part, cell.arm, cell.rung, cell.seed, identity)
        for cell, identity in zip(planned, identities(study, planned), strict=True)
    ]
    table = pd.DataFrame(rows, columns=[*PLANNED, "identity"])
    finished_last = records.sort_values("status", key=lambda status: status == "done", kind="stable")
    known = finished_last.drop(columns="seed", errors="ignore").drop_duplicates("identity", keep="last")
    found = table.merge(known, on="identity", how="left")
    found["status"] = found["status"].fillna("not run")
    return found.dropna(axis=1, how="all")
