"""Conditions of training that do not identify a run, such as the device: they change its results by rounding.

An interrupted run may continue under other conditions. A remark reports this, and the record of the run lists all
conditions in their order.
"""

from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl
from omegaconf import DictConfig, OmegaConf

from patchbench.commands.build import compiles
from patchbench.train.memory import accumulation

ASKED = {"trainer.precision": "precision", "residual": "residual", "compile": "compile"}  # option: its condition


def conditions(cfg: DictConfig, trainer: pl.Trainer) -> dict[str, Any]:
    """Return the conditions of a training that is about to start."""
    return {
        "device": trainer.strategy.root_device.type,
        "ranks": trainer.world_size,
        "precision": str(trainer.precision),
        "residual": cfg.residual,
        "compile": compiles(cfg, trainer),
    }


def listed(
    cfg: DictConfig, trainer: pl.Trainer, before: Mapping[str, Any] | None
) -> tuple[list[dict[str, Any]], list[str]]:
    """Return all conditions of a run, the present ones last, and remarks on changes.

    before: origin in the checkpoint from which the run resumes, or None.
    """
    now = conditions(cfg, trainer)
    then = list((before or {}).get("conditions", []))
    remarks = []
    if before is not None and cfg.trainer.micro_batch != "auto":
        asked = accumulation(
            accumulate=cfg.trainer.accumulate,
            micro_batch=cfg.trainer.micro_batch,
            batch_size=cfg.batch_size,
            world_size=trainer.world_size,
        )
        if asked != (kept := trainer.accumulate_grad_batches):
            remarks.append(
                f"micro-batches per step: {kept}, as this run began, not {asked}: its position in the data is a number "
                "of micro-batches"
            )
    if not then or then[-1] == now:
        return then or [now], remarks
    last = then[-1]
    changed = [f"{name}={last.get(name)} until here, {x} now" for name, x in now.items() if last.get(name) != x]
    remarks.append(f"{', '.join(changed)}: figures may differ by rounding from those of an uninterrupted run")
    return [*then, now], remarks


def not_of(cfg: DictConfig, done: Mapping[str, Any]) -> list[str]:
    """List the options that ask for conditions under which a finished run was not trained. done: its record."""
    under = done.get("conditions", [])
    differing = []
    for option, name in ASKED.items():
        wanted, then = OmegaConf.select(cfg, option), {str(each.get(name)) for each in under}
        if under and wanted != "auto" and {str(wanted)} != then:
            differing.append(f"{option}={str(wanted).lower() if isinstance(wanted, bool) else wanted}")
    return differing
