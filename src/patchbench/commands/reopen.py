"""A trained network again, from its checkpoint alone: its configuration, its data, its weights."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from patchbench.commands.build import build_net, build_task, check_workers, prepare_data
from patchbench.commands.draft import Draft, build_duration, draft
from patchbench.commands.values import check_values
from patchbench.config.origin import differences, restored
from patchbench.data.batches import Batches
from patchbench.evaluate.skipped import CheckSkipped
from patchbench.train.checkpoint import read_checkpoint
from patchbench.train.shard import load_weights
from patchbench.train.task import Classify

OWN = {"data.root": "data_root", "data.max_skipped": "max_skipped"}  # as commands that take ckpt call these knobs


@contextmanager
def naming_own_options() -> Iterator[None]:
    """Name the options of commands that take ckpt in refusals of a data set, which say data.root and the like."""
    try:
        yield
    except (ValueError, OSError) as error:
        text = str(error.args[0]) if len(error.args) == 1 else ""
        named = text
        for knob, option in OWN.items():
            named = named.replace(knob, option)
        if named == text:
            raise
        raise type(error)(named) from error


@dataclass(frozen=True)
class Machine:
    """Settings for the evaluation of a checkpoint: trainer, loaders, memory for data, and where the data lie.

    max_skipped: of the data set; None for that of training.
    """

    trainer: DictConfig
    workers: int | str
    resident: float
    data_root: str | None = None
    max_skipped: int | float | None = None


@dataclass(frozen=True)
class Reopened:
    """A trained network, attached to a trainer and to its data. origin: see config/origin.py."""

    origin: dict[str, Any]
    draft: Draft
    trainer: pl.Trainer
    task: Classify
    data: Batches


def own_checkpoint(path: Path, origin: Mapping[str, Any]) -> dict[str, Any]:
    """The checkpoint of this run. ValueError for one of another run, which somebody laid there."""
    try:
        checkpoint = read_checkpoint(path)
    except (OSError, ValueError) as error:
        raise ValueError(f"{error}; rerun=true trains the run again") from error
    if checkpoint["patchbench"]["identity"] != origin["identity"]:
        raise ValueError(
            f"{path} is of another run ({differences(origin, checkpoint['patchbench'])}): rerun=true trains this one "
            "again"
        )
    return checkpoint


def reopen(
    ckpt: Path, machine: Machine, views: DictConfig | None = None, of: Mapping[str, Any] | None = None
) -> Reopened:
    """Build everything that a checkpoint describes and load its weights.

    views: options `eval.*` in place of those that the run was trained with. of: the origin of the run whose checkpoint
    it has to be. ValueError, OSError and the like where the
    checkpoint or its data cannot be read, or the views cannot be taken of its network.
    """
    asked = {"trainer": machine.trainer} | ({} if views is None else {"eval": views})
    check_values(OmegaConf.create(asked))
    check_workers(machine.workers)
    checkpoint = read_checkpoint(ckpt) if of is None else own_checkpoint(ckpt, of)
    origin = checkpoint["patchbench"]
    own = {"workers": machine.workers, "resident": machine.resident, "trainer": machine.trainer}
    cfg: Any = OmegaConf.merge(restored(origin, machine.data_root), own if views is None else own | {"eval": views})
    if machine.max_skipped is not None and "max_skipped" in cfg.data:
        cfg.data.max_skipped = machine.max_skipped
    with naming_own_options():
        plan = draft(cfg)
    if views is not None:
        plan.views()
    trainer = instantiate(machine.trainer)(max_epochs=0, out_dir=ckpt.parent, callbacks=[CheckSkipped()])
    with naming_own_options():
        data = prepare_data(cfg, plan.source, trainer)
    task = build_task(cfg, build_net(cfg, plan.source), data, build_duration(plan, data))
    check_fit(ckpt, checkpoint["state_dict"], task.state_dict())
    try:
        load_weights(task, checkpoint["state_dict"])
    except ValueError as error:
        raise ValueError(f"ckpt={ckpt}: {error}") from None
    return Reopened(origin, plan, trainer, task, data)


def check_fit(ckpt: Path, there: Mapping[str, Tensor], here: Mapping[str, Tensor]) -> None:
    """ValueError if weights have other shapes than the network that fits the data."""
    for name, weight in here.items():
        if name in there and there[name].shape != weight.shape:
            raise ValueError(
                f"ckpt={ckpt} does not fit these data: {name} is {list(there[name].shape)} there and "
                f"{list(weight.shape)} for them: evaluate it on data with as many channels and classes"
            )
