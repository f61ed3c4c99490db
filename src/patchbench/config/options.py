"""The options of each command outside of the groups, with their types, in classes by their effect on a run.

The defaults are in conf/<command>.yaml. Hydra refuses a key that is not listed here.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import MISSING

CONF = (Path(__file__).parents[1] / "conf").resolve()  # a link to conf/ of the checkout, a copy where it is installed
EXPERIMENTS = CONF.parent / "experiments"  # of the checkout
GROUPS = ("embed", "pos", "model", "data", "augment", "optim", "budget")  # groups that are part of the identity


@dataclass
class Compared:
    """Options that change the result: they, and no others, are the identity of a run."""

    embed: Any = MISSING
    patch: Any = MISSING  # P or [h,w]
    pos: dict[str, Any] = field(default_factory=dict)
    model: Any = MISSING
    data: Any = MISSING
    augment: Any = MISSING
    optim: Any = MISSING
    budget: Any = MISSING
    epochs: int = MISSING
    batch_size: int = MISSING
    limit_batches: int | None = MISSING
    tested: str = MISSING
    freeze: str | None = MISSING
    seed: int = MISSING


@dataclass
class Execution:
    """Options for how a run is executed; they must not change the result."""

    trainer: Any = MISSING
    logger: Any = MISSING
    ckpt: str | None = MISSING
    rerun: bool = MISSING
    keep_checkpoints: str = MISSING
    workers: Any = MISSING  # auto, or a number
    resident: float = MISSING
    compile: Any = MISSING  # auto, true, false
    cuda_graphs: Any = MISSING  # auto, true, false
    residual: str = MISSING
    log_every: int = MISSING
    allow_cost: bool = MISSING
    max_gmacs: float = MISSING
    data_dir: str = MISSING
    runs_dir: str = MISSING


@dataclass
class Evaluation:
    """Options that add results to the record, at the end of training or later; the identity stays the same."""

    eval: Any = MISSING
    analyze: bool = MISSING


@dataclass
class Options(Execution, Evaluation, Compared):  # a dataclass lists the fields of its last base first
    pass


@dataclass
class Machine:
    """Options of commands that test a checkpoint again: the machine, and the present folder of the data."""

    ckpt: str = MISSING
    trainer: Any = MISSING
    workers: Any = MISSING  # auto, or a number
    resident: float = MISSING
    data_root: str | None = MISSING


@dataclass
class EvaluateOptions(Machine):
    """Options of evaluate.py."""

    eval: Any = MISSING
    max_skipped: float | None = MISSING


@dataclass
class AnalyzeOptions(Machine):
    """Options of scripts/analyze.py."""

    out: str | None = MISSING
    images: int | None = MISSING


@dataclass
class ExportOptions:
    """Options of scripts/export.py."""

    ckpt: str = MISSING
    out: str = MISSING
    data_root: str | None = MISSING


@dataclass
class PrepareOptions:
    """Options of scripts/prepare_data.py."""

    data: Any = MISSING
    out: str = MISSING
    seed: int = MISSING
    size: Any = MISSING  # S or [h,w]
    workers: Any = MISSING  # auto, or a number
    verify: bool = MISSING
    data_dir: str = MISSING


@dataclass
class ExplainOptions(Options):
    """Options of scripts/explain.py in addition to those of train.py."""

    image: str | None = MISSING  # the number of a test image, or a file
    data_root: str | None = MISSING
