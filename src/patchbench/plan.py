"""A study at a scale: every run that it consists of, and the command lines that make them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import CompactHydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from patchbench import schema
from patchbench.command import register
from patchbench.errors import CONF, explain
from patchbench.study.claim import Part, Study, one_of, parse

EXPERIMENTS = CONF.parent / "experiments"


@dataclass(frozen=True)
class Cell:
    """One run of a study: an arm with a seed. identity: of the record that the overrides leave."""

    part: str
    arm: str
    seed: int
    overrides: tuple[str, ...]
    identity: str


def read_study(name: str, experiments: Path = EXPERIMENTS) -> Study:
    """experiments/<name>/study.yaml. FileNotFoundError or ValueError in one line."""
    path = experiments / name / "study.yaml"
    if not path.exists():
        there = ", ".join(studies(experiments)) or "none"
        raise FileNotFoundError(f"study {name}: there is no {path}; studies are {there}")
    try:
        tree = OmegaConf.to_container(OmegaConf.load(path))
    except OmegaConfBaseException as error:
        raise ValueError(f"{path}: {' '.join(str(error).split())}") from error
    if not isinstance(tree, dict):
        raise ValueError(f"{path} must be a mapping: question, quote, ..., parts")
    return parse(name, {str(key): value for key, value in tree.items()})


def studies(experiments: Path = EXPERIMENTS) -> list[str]:
    return sorted(path.parent.name for path in experiments.glob("*/study.yaml"))


def parts_at(study: Study, scale: str) -> list[Part]:
    """The parts that are run at this scale. ValueError if there is no such scale."""
    one_of(scale, tuple(study.scales), f"study {study.name}: scale")
    return [part for part in study.parts if scale in part.only]


def overrides(study: Study, scale: str, part: Part, arm: str) -> tuple[str, ...]:
    """Of an arm, the later ones winning: of the study, the scale, the part, the part at this scale, the arm."""
    at_scale = study.scales[scale].overrides, part.overrides, part.scales.get(scale, ())
    return (*study.overrides, *(o for some in at_scale for o in some), *part.arms[arm])


def cells(study: Study, scale: str, *, arms: int | None = None) -> list[Cell]:
    """Every planned run, or those of the first `arms` of each part.

    Each arm is composed once, which takes 0.1 s: its seeds differ in nothing else.
    """
    register()
    planned = []
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        for part in parts_at(study, scale):
            for arm in list(part.arms)[:arms]:
                given = overrides(study, scale, part, arm)
                where = f"study {study.name}: part {part.name}, arm {arm}"
                planned += [
                    Cell(part.name, arm, seed, (*given, f"seed={seed}"), identity)
                    for seed, identity in identities(where, given, study.scales[scale].seeds)
                ]
    return planned


def identities(where: str, given: Sequence[str], seeds: Sequence[int]) -> Iterator[tuple[int, str]]:
    """Seed and identity of each cell of an arm. ValueError if Hydra does not take the overrides."""
    try:
        cfg: DictConfig = compose("train", overrides=list(given))
    except (CompactHydraException, OmegaConfBaseException) as error:
        raise ValueError(f"{where}: {explain(error)}") from error
    for seed in seeds:
        cfg.seed = seed
        yield seed, schema.identity(cfg)


def command_lines(study: Study, scale: str) -> list[list[str]]:
    """Arguments of train.py that make every run, as few sweeps as there are ways to spell them."""
    seeds = ",".join(map(str, study.scales[scale].seeds))
    lines = []
    for part in parts_at(study, scale):
        grouped: dict[tuple[str, ...], list[str]] = {}  # arms that differ in the level of one option alone
        for arm in part.arms:
            *rest, last = overrides(study, scale, part, arm)
            option, level = last.split("=", 1)
            grouped.setdefault((*rest, option), []).append(level)
        for (*rest, option), levels in grouped.items():
            lines.append(["-m", *rest, f"{option}={','.join(levels)}", f"seed={seeds}"])
    return lines
