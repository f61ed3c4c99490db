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
        return self.composed.setting, work(self.composed.cfg.budget, self.facts.gmacs)


def work(budget: Mapping[Any, Any], gmacs: float) -> float:
    """Multiply-accumulates up to a factor, or the seconds that were given."""
    return budget["value"] * (gmacs if unit(budget) in ("epochs", "steps") else 1)


def unit(budget: Mapping[Any, Any]) -> str:
    return budget["_target_"].rpartition(".")[2]


def setting(config: dict[Any, Any], machine: dict[str, Any]) -> str:
    """Of a resolved configuration and the `machine` of a record."""
    read = [config[key] for key in ("data", "augment", "batch_size", "limit_batches", "trainer", "compile")]
    return repr((read, unit(config["budget"]), machine["cpu"], machine["gpus"][:1]))
