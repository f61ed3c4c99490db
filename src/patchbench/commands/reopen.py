"""A trained network, built from its checkpoint alone: its configuration, its data, its weights."""

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

OWN = {"data.root": "data_root", "data.max_skipped": "max_skipped"}  # options of commands with ckpt, by knob


@contextmanager
def naming_own_options() -> Iterator[None]:
    """Replace the names of knobs in errors of a data set by the options of commands with ckpt, such as data_root."""
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
    """Settings for the evaluation of a checkpoint: trainer, workers, memory for data, and location of the data.

    data_root, max_skipped: knobs of the data set; None: as in training.
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
    """Read the checkpoint of a run. ValueError if it cannot be read, or belongs to another run."""
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
    """Build everything that a checkpoint describes, and load its weights.

    views: options `eval.*` in place of those of the run. of: origin of the run to which the checkpoint must belong;
    None: any run. ValueError, TypeError, OSError or an error of Hydra if the checkpoint or its data cannot be read, or
    the network cannot process the views.
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


def check_fit(ckpt: Path, stored: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Raise ValueError if the weights of a checkpoint have other shapes than those of the network for the data.

    stored: weights of the checkpoint. expected: weights of the network.
    """
    for name, weight in expected.items():
        if name in stored and stored[name].shape != weight.shape:
            raise ValueError(
                f"ckpt={ckpt} does not fit these data: {name} is {list(stored[name].shape)} there and "
                f"{list(weight.shape)} for these data: use data with the same number of channels and classes"
            )
