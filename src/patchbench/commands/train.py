"""From a configuration to a finished run."""

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.callbacks import LambdaCallback
from pytorch_lightning.loggers import Logger, WandbLogger
from pytorch_lightning.utilities import rank_zero_only

from patchbench.commands.build import (
    asked,
    build_duration,
    build_net,
    build_source,
    build_task,
    check_asked,
    check_options,
    compile_blocks,
    fit_embedding,
    network_cost,
    prepare_data,
    share_batch_norms,
    split_at_size,
    split_batch,
)
from patchbench.commands.evaluate import analyze_again, ask_again
from patchbench.config.errors import Refused, refusing
from patchbench.config.identity import analysed, answered, compared, display_name, factors_of, identity_of
from patchbench.data.batches import Batches
from patchbench.data.pictures import BadImage
from patchbench.evaluate.robustness import answers, ask
from patchbench.evaluate.test import skipped, test
from patchbench.nets.cost import Cost
from patchbench.runs.lock import locked
from patchbench.runs.record import environment, write_record
from patchbench.track.device import GIB
from patchbench.track.meter import Meter
from patchbench.track.metrics_csv import MetricsCsv
from patchbench.track.predictions import confusion, predictions
from patchbench.track.progress import ProgressBar
from patchbench.track.terminal import print_result, say, spell_size
from patchbench.track.wandb_run import ID_FILE, RunLogger
from patchbench.train.checkpoint import Origin, keep_checkpoints, read_checkpoint
from patchbench.train.signals import StopOnSignal
from patchbench.train.task import Classify
from patchbench.weights.load import load

FILES = (
    "run.json",
    "metrics.csv",
    "predictions.csv",
    "confusion.csv",
    "last.ckpt",
    "best.ckpt",
    "analysis.html",
    ID_FILE,
)


def train(cfg: DictConfig, choices: Mapping[str, str], out_dir: Path, *, in_sweep: bool = False) -> float:
    """Train, test the best checkpoint, and leave the record, the checkpoints and the metrics in `out_dir`.

    choices: the option taken in each group, for names. Returns the best validation accuracy, for sweepers.
    A run that has its record is not repeated, one that was cut off goes on from its last checkpoint. Refused before
    anything is trained or written where the configuration cannot run.
    """
    with alone_in(out_dir):
        return train_here(cfg, choices, out_dir, in_sweep=in_sweep)


def train_here(cfg: DictConfig, choices: Mapping[str, str], out_dir: Path, *, in_sweep: bool) -> float:
    """`train`, in a directory that no other process trains in."""
    if cfg.rerun and "SLURM_RESTART_COUNT" not in os.environ:  # a job that was queued again goes on
        clear(out_dir)
    record = out_dir / "run.json"
    if record.exists():
        done = json.loads(record.read_text())
        if not answered(done, cfg):
            done = ask_again(cfg, done, out_dir)
        if not analysed(done, cfg):
            done = analyze_again(cfg, done, out_dir)
        print_result(display_name(done["factors"]), done["result"], out_dir)
        say("This run was done before; rerun=true trains it again.")
        return done["result"]["val/acc_best"]

    levels = factors_of(cfg, choices)
    origin = {
        "identity": identity_of(cfg),
        "factors": levels,
        "compared": compared(cfg),
        "config": OmegaConf.to_container(cfg, resolve=True),
    }
    with refusing():
        ready = prepare(cfg, origin, out_dir, in_sweep=in_sweep)
    say(f"{display_name(levels)}: {levels['model']}, {ready.headline}")
    for remark in ready.remarks:
        say(remark)

    trainer, task, data, meter, costs = ready.trainer, ready.task, ready.data, ready.meter, ready.costs
    with ready.stop.watching(), ExitStack() as stack:
        with refusing():
            trainer.loggers = list(start_loggers(cfg, origin, costs, out_dir, stack, resume=ready.ckpt is not None))
        with refusing(BadImage):
            trainer.fit(task, data, ckpt_path=ready.ckpt)
            validated = {name: float(value) for name, value in trainer.callback_metrics.items()}
            tested = test(trainer, task, data, out_dir / "best.ckpt")
            tested |= ask(trainer, task, data, asked(cfg), split_at_size(cfg))
        if cfg.logger.tables:
            log_predictions(trainer, task, data, out_dir)
        left_out = skipped(trainer, data)
        result = validated | tested | meter.summary() | costs.facts() | {"data/skipped": len(left_out)}
        meter.write(trainer, {name: value for name, value in result.items() if isinstance(value, int | float)})
        questions = {"asked": OmegaConf.to_container(cfg.eval, resolve=True), "skipped": left_out}
        done = origin | questions | {"result": result, "environment": environment()}
        write_record(record, done)
        if cfg.analyze:
            result |= analyze_now(cfg, ready, out_dir)
            write_record(record, done)
        if cfg.logger.checkpoints:
            log_checkpoint(trainer, out_dir, levels | result)
    if left_out:
        say(f"{len(left_out)} images do not decode and were skipped; run.json names all: {', '.join(left_out[:3])}")
    print_result(display_name(levels), result, out_dir)
    return result["val/acc_best"]


def alone_in(out_dir: Path) -> AbstractContextManager[None]:
    """Two processes that train the same run: the second waits, then finds the record. Ranks follow their first."""
    if rank_zero_only.rank != 0:  # type: ignore[attr-defined]
        return nullcontext()

    def wait() -> None:
        tasks = os.environ.get("WORLD_SIZE") or os.environ.get("SLURM_NTASKS") or 1
        if int(tasks) > 1:  # its other ranks, started from outside, would not wait
            raise Refused(f"another process trains {out_dir}: start this one again when that is done")
        say(f"another process trains {out_dir}: waiting for it")

    return locked(out_dir, wait)


@dataclass
class Ready:
    """All that a training needs, built and checked."""

    trainer: pl.Trainer
    task: Classify
    data: Batches
    meter: Meter
    stop: StopOnSignal
    costs: Cost
    ckpt: Path | None  # to resume from
    headline: str
    remarks: list[str]


def prepare(cfg: DictConfig, origin: dict[str, Any], out_dir: Path, *, in_sweep: bool) -> Ready:
    """Build every part, the dearest last; ValueError, OSError and the like where one cannot be or does not fit."""
    check_options(cfg)
    source = build_source(cfg)
    costs = network_cost(cfg, source)
    check_asked(cfg, source)
    ckpt = checkpoint_to_resume(cfg, origin, out_dir)
    meter = Meter(cfg.log_every, costs)
    stop = StopOnSignal(out_dir / "last.ckpt", cfg.log_every)
    fit = LambdaCallback(setup=fit_embedding)
    progress = out_dir / "progress.json" if "PATCHBENCH_SWEEP" in os.environ else None
    callbacks = [meter, ProgressBar(meter, progress), Origin(origin), *keep_checkpoints(out_dir), stop, fit]
    trainer = instantiate(cfg.trainer)(max_epochs=cfg.epochs, out_dir=out_dir, callbacks=callbacks)
    if in_sweep and trainer.world_size > 1 and "SUBMITIT_EXECUTOR" not in os.environ:
        raise ValueError(
            f"trainer.devices={cfg.trainer.devices} in a sweep: with this launcher the cells share one process, which "
            "can start its ranks once only; use hydra/launcher=processes, or trainer.devices=1"
        )
    split, held = split_batch(cfg, source, costs, trainer, ckpt)
    trainer.callbacks.insert(0, split)
    torch.manual_seed(cfg.seed)
    net, remarks = build_net(cfg, source), []
    if cfg.model.get("init_from") and not ckpt:
        remarks.append(load(net, cfg.model.init_from))
    remarks += share_batch_norms(cfg, net, trainer)
    data = prepare_data(cfg, source, trainer)
    if data.splits:  # on the first rank, which writes the checkpoints: there they hold for other images too
        origin["config"]["data"] |= {name: list(getattr(source, name)) for name in ("mean", "std") if name in cfg.data}
    duration = build_duration(cfg, data, costs)
    trainer.callbacks.insert(0, duration)
    task = build_task(cfg, net, data, duration)
    if cfg.compile is True or (cfg.compile == "auto" and trainer.strategy.root_device.type == "cuda"):
        compile_blocks(net)
    if ckpt:
        remarks.append(f"resuming from {ckpt} (rerun=true starts afresh)")
    images = max(1, cfg.batch_size // (trainer.world_size * trainer.accumulate_grad_batches))
    tokens = f", {spell_size(costs.grid_size)} patches, {costs.num_tokens:,} tokens" if costs.grid_size else ""
    headline = (
        f"{spell_size(source.img_size)} pixels{tokens}; "
        f"{costs.params:,} parameters, {costs.macs / 1e9:.3g} GMACs an image, "
        f"about {held.step(images) / GIB:.2g} GiB for {images} images at a time"
    )
    return Ready(trainer, task, data, meter, stop, costs, ckpt, headline, remarks)


def start_loggers(
    cfg: DictConfig, origin: dict[str, Any], costs: Cost, out_dir: Path, stack: ExitStack, *, resume: bool
) -> Iterator[Logger]:
    """The loggers of the configuration; what they open is closed with `stack`."""
    if cfg.logger.csv:
        yield MetricsCsv(out_dir / "metrics.csv")
    if cfg.logger.wandb:
        levels = origin["factors"]
        run = instantiate(cfg.logger.wandb)(
            name=display_name(levels),
            tags=[f"{factor}={level}" for factor, level in levels.items() if level is not None],
            config=flat_config(origin, costs),
            out_dir=out_dir,
            runs_dir=Path(cfg.runs_dir),
            resume=resume,
        )
        yield stack.enter_context(run)


def flat_config(origin: dict[str, Any], costs: Cost) -> dict[str, Any]:
    """What W&B groups and filters by: levels, figures of the network, plain settings; the rest below `config`."""
    plain = {name: value for name, value in origin["compared"].items() if isinstance(value, int | float | str)}
    told: dict[str, Any] = {"identity": origin["identity"], "config": origin["config"], "environment": environment()}
    return plain | origin["factors"] | costs.facts() | told


def log_predictions(trainer: pl.Trainer, task: Classify, data: Batches, out_dir: Path) -> None:
    """What was said of each test image, into predictions.csv, confusion.csv and the tables of W&B."""
    test = data.splits["test"]
    said = answers(trainer, task, data, test)
    if not trainer.is_global_zero:
        return
    names = getattr(data.source, "classes", None)
    predicted = predictions(said.indices, said.labels, said.classes, said.sure, said.right, names)
    confused = confusion(predicted)
    predicted.to_csv(out_dir / "predictions.csv", index=False)
    confused.to_csv(out_dir / "confusion.csv", index=False)
    for logger in trainer.loggers:
        if isinstance(logger, RunLogger):
            logger.log_predictions(predicted, confused, lambda numbers: test.read(numbers)[0])


def log_checkpoint(trainer: pl.Trainer, out_dir: Path, about: dict[str, Any]) -> None:
    for logger in trainer.loggers:
        if isinstance(logger, RunLogger):
            logger.log_checkpoint(out_dir / "best.ckpt", out_dir.name, about)


def analyze_now(cfg: DictConfig, ready: Ready, out_dir: Path) -> dict[str, float]:
    """Of the network that was just tested; the pictures go to the loggers that show any."""
    from patchbench.commands.analyze import analysis  # with what draws and fits, which few runs need

    with refusing(BadImage):
        found = analysis(cfg, ready.trainer, ready.task, ready.data, out_dir / "best.ckpt", out_dir)
    ready.meter.write(ready.trainer, found.numbers)
    for logger in ready.trainer.loggers:
        if isinstance(logger, WandbLogger):
            for name, path in found.pictures.items():
                logger.log_image(f"analysis/{name}", [str(path)], step=ready.trainer.global_step)
    return found.numbers


@rank_zero_only
def clear(out_dir: Path) -> None:
    """Remove what an earlier run left."""
    for file in FILES:
        (out_dir / file).unlink(missing_ok=True)
    shutil.rmtree(out_dir / "analysis", ignore_errors=True)


def checkpoint_to_resume(cfg: DictConfig, origin: dict[str, Any], out_dir: Path) -> Path | None:
    """The checkpoint asked for, or the run's own if it was cut off. ValueError if it belongs to another comparison."""
    own = out_dir / "last.ckpt"
    path = Path(cfg.ckpt) if cfg.ckpt else own if own.exists() else None
    if path is None:
        return None
    there = read_checkpoint(path)["patchbench"]
    if there["identity"] != origin["identity"]:
        here, there = flat(origin["compared"]), flat(there["compared"])
        odd = [k for k in {**there, **here} if here.get(k) != there.get(k)]
        changes = ", ".join(f"{k}={there.get(k)} there, {here.get(k)} here" for k in odd[:4])
        raise ValueError(
            f"ckpt={path} is of another run ({changes}{', ...' if len(odd) > 4 else ''}): give the options it was "
            "trained with, or leave ckpt out to train anew"
        )
    return path


def flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested keys joined by dots."""
    leaves: dict[str, Any] = {}
    for key, value in tree.items():
        leaves |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return leaves
