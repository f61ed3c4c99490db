"""A cell of a sweep: its configuration, its cost, its state.

This module imports little, since the process that runs the sweep computes nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from omegaconf import DictConfig

State = Literal["waiting", "running", "done", "skipped", "same", "failed", "stopped", "invalid"]


@dataclass(frozen=True)
class Composed:
    """The properties of a cell that follow from its configuration."""

    cfg: DictConfig
    origin: Mapping[str, Any]  # see config/origin.py
    folder: Path
    rerun: bool
    accelerator: str
    devices: int | Literal["auto"]
    unread: Mapping[str, str]  # arguments that the run does not read, see config/unread.py
    all_but_seed: str  # equal for cells that differ only in their seed and folder
    data: str  # equal for cells that read the same data
    setting: str  # for cells with equal settings, time is proportional to work


@dataclass(frozen=True)
class Facts:
    """The properties of a cell that follow from its network, built on the meta device."""

    grid: str  # empty for a network without tokens
    tokens: int | None
    params: int
    gmacs: float


@dataclass
class Cell:
    """One run of a sweep, with its state. number: its place among all cells of the sweep, from 0."""

    overrides: list[str]
    title: str
    number: int
    config_name: str = "train"  # of conf/<config_name>.yaml
    state: State = "waiting"
    error: str = ""  # the reason why the cell is invalid or has failed
    composed: Composed | None = None
    facts: Facts | None = None
    value: float | None = None  # validation accuracy of the weights that were tested
    seconds: float = 0.0  # of all attempts in this sweep
    attempts: int = 0
    same_as: "Cell | None" = None  # an earlier cell that is the same run
    other_code: bool = False  # the run was done before, with other code than the present code

    @property
    def folder(self) -> Path:
        assert self.composed
        return self.composed.folder

    @property
    def record(self) -> Path:
        return self.folder / "run.json"

    @property
    def log(self) -> Path:
        return self.folder / "log.txt"

    @property
    def progress(self) -> Path:
        return self.folder / "progress.json"

    @property
    def work(self) -> tuple[str, float] | None:
        """Setting and amount of work; for cells with equal settings, time is proportional to work. None if unknown."""
        if not (self.composed and self.facts):
            return None
        budget = self.composed.cfg.budget.value
        return self.composed.setting, work(self.composed.origin["options"]["budget"], budget, self.facts.gmacs)


def work(unit: str, budget: float, gmacs: float) -> float:
    """Return the amount of work, up to a constant factor: multiply-accumulates, or the FLOPs or seconds of the budget.

    unit: option of the budget. budget: its value. gmacs: per image.
    """
    return budget * (gmacs if unit in ("epochs", "steps") else 1)


def setting(config: Mapping[Any, Any], unit: str, machine: Mapping[str, Any]) -> str:
    """Return the settings on which the time of a cell depends, as text.

    config: resolved configuration. unit: option of the budget. machine: as in a record.
    """
    read = [config[key] for key in ("data", "augment", "batch_size", "limit_batches", "trainer", "compile")]
    return repr((read, unit, machine["cpu"], machine["gpus"][:1]))
