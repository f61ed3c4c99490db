"""What a sweep knows of a cell. Imports little, for the process that runs the sweep computes nothing."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from omegaconf import DictConfig

State = Literal["waiting", "running", "done", "skipped", "same", "failed", "stopped", "invalid"]


@dataclass(frozen=True)
class Composed:
    """What its configuration says of a cell."""

    cfg: DictConfig
    options: Mapping[str, str]  # the one taken in each group
    identity: str
    code: Mapping[str, str]  # digests of the modules that compute the run
    folder: Path
    rerun: bool
    accelerator: str
    devices: int | Literal["auto"]
    but_seed: str  # equal where cells differ in nothing but their seed and where they lie
    data: str  # equal where cells read the same data
    setting: str  # equal where the time of a cell grows with its multiply-accumulates


@dataclass(frozen=True)
class Facts:
    """What its network, built on the meta device, says of a cell."""

    grid: str  # empty where there are no tokens
    tokens: int | None
    params: int
    gmacs: float


@dataclass
class Cell:
    overrides: list[str]
    title: str
    state: State = "waiting"
    error: str = ""  # why it is invalid, or how it failed
    composed: Composed | None = None
    facts: Facts | None = None
    value: float | None = None  # best validation accuracy
    seconds: float = 0.0  # of all attempts in this sweep
    attempts: int = 0
    same_as: "Cell | None" = None  # an earlier cell that is the same run
    other_code: bool = False  # it was done before by other code than today's

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
        """Setting, and what its time grows with in it."""
        if not (self.composed and self.facts):
            return None
        budget = self.composed.cfg.budget.value
        return self.composed.setting, work(self.composed.options["budget"], budget, self.facts.gmacs)


def work(unit: str, budget: float, gmacs: float) -> float:
    """Multiply-accumulates up to a factor, or the seconds that were given. unit: of the budget."""
    return budget * (gmacs if unit in ("epochs", "steps") else 1)


def setting(config: Mapping[Any, Any], unit: str, machine: Mapping[str, Any]) -> str:
    """What the time of a cell depends on beside its multiply-accumulates.

    config: resolved. unit: of the budget. machine: as in a record.
    """
    read = [config[key] for key in ("data", "augment", "batch_size", "limit_batches", "trainer", "compile")]
    return repr((read, unit, machine["cpu"], machine["gpus"][:1]))
