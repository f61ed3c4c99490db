"""Loggers of a run, and predictions, checkpoints and analyses that go to them in addition to the metrics."""

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from hydra.utils import instantiate
from omegaconf import DictConfig
from pytorch_lightning.loggers import Logger

from patchbench.commands.draft import Draft
from patchbench.commands.loading import loading
from patchbench.config.names import sweep_name
from patchbench.data.batches import Batches
from patchbench.evaluate.robustness import predict
from patchbench.machine import write_whole
from patchbench.nets.cost import Cost
from patchbench.runs.provenance import environment
from patchbench.track.meter import Meter
from patchbench.track.metrics_csv import MetricsCsv
from patchbench.track.predictions import confusion, predictions
from patchbench.track.wandb_run import RunLogger
from patchbench.train.task import Classify


def start_loggers(
    cfg: DictConfig, origin: dict[str, Any], costs: Cost, out_dir: Path, stack: ExitStack, *, resume: bool
) -> list[Logger]:
    """Start the loggers of the configuration; `stack` closes them."""
    loggers: list[Logger] = [MetricsCsv(out_dir / "metrics.csv")] if cfg.logger.csv else []
    if cfg.logger.wandb:
        run = instantiate(cfg.logger.wandb)(
            name=origin["name"],
            levels=[f"{factor}={level}" for factor, level in origin["factors"].items() if level is not None],
            config=flat_config(origin, costs),
            out_dir=out_dir,
            runs_dir=Path(cfg.runs_dir),
            resume=resume,
            in_sweep=sweep_name() is not None,
        )
        loggers.append(stack.enter_context(run))
    return loggers


def flat_config(origin: dict[str, Any], costs: Cost) -> dict[str, Any]:
    """Return the configuration for W&B, with the values to group and filter by, such as factors, at the top level."""
    compared = origin["compared"].items()
    plain = {name: value for name, value in compared if "." not in name and isinstance(value, int | float | str)}
    rest = {"identity": origin["identity"], "config": origin["config"], "environment": environment()}
    return plain | origin["factors"] | costs.facts() | rest


def log_predictions(trainer: pl.Trainer, task: Classify, data: Batches, out_dir: Path) -> None:
    """Write the predictions of all test images to predictions.csv, confusion.csv and the tables of W&B."""
    test = data.splits["test"]
    seen = predict(trainer, task, data, test)
    if not trainer.is_global_zero:
        return
    names = getattr(data.source, "classes", None)
    predicted = predictions(seen.indices, seen.labels, seen.classes, seen.confidence, seen.label_probability, names)
    confused = confusion(predicted)
    write_whole(out_dir / "predictions.csv", predicted.to_csv(index=False))
    write_whole(out_dir / "confusion.csv", confused.to_csv(index=False))
    for logger in trainer.loggers:
        if isinstance(logger, RunLogger):
            logger.log_predictions(predicted, confused, lambda numbers: test.read(numbers)[0])


def log_checkpoint(trainer: pl.Trainer, ckpt: Path, metadata: dict[str, Any]) -> None:
    """Upload the tested checkpoint to W&B as an artifact."""
    for logger in trainer.loggers:
        if isinstance(logger, RunLogger):
            logger.log_checkpoint(ckpt, ckpt.parent.name, metadata)


def log_analysis(
    draft: Draft, trainer: pl.Trainer, task: Classify, data: Batches, meter: Meter, ckpt: Path
) -> dict[str, float]:
    """Analyse the tested network, log the numbers to all loggers and the pictures to W&B, and return the numbers.

    ckpt: checkpoint with its weights; pictures and page are written into the folder of the checkpoint.
    """
    from patchbench.commands.analyze import analysis  # imports libraries for figures and fits, which few runs need

    with loading():
        result = analysis(draft, trainer, task, data, ckpt, ckpt.parent)
    meter.write(trainer, result.numbers)
    for logger in trainer.loggers:
        if isinstance(logger, RunLogger):
            pictures = {f"analysis/{name}": path for name, path in result.pictures.items()}
            logger.log_pictures(pictures, trainer.global_step)
    return result.numbers
