"""Train a network, test it, and write the record of the run."""

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from omegaconf import DictConfig
from pytorch_lightning.callbacks import LambdaCallback

from patchbench.commands.build import (
    build_net,
    build_task,
    build_trainer,
    check_options,
    compile_blocks,
    compiles,
    fit_embedding,
    prepare_data,
    share_batch_norms,
)
from patchbench.commands.conditions import listed
from patchbench.commands.draft import Draft, build_duration, draft, images_at_once, split_batch
from patchbench.commands.folder import (
    alone_in,
    checkpoint_to_resume,
    drop_checkpoints,
    drop_earlier,
    finished,
    record_in,
    set_aside,
    starts_anew,
)
from patchbench.commands.loading import loading
from patchbench.commands.loggers import log_analysis, log_checkpoint, log_predictions, start_loggers
from patchbench.commands.reopen import own_checkpoint
from patchbench.commands.values import check_values
from patchbench.config.errors import refusing
from patchbench.config.identity import eval_options
from patchbench.config.names import SWEEP, title
from patchbench.config.origin import origin_of, with_measured
from patchbench.data.batches import Batches
from patchbench.data.statistics import check_variety
from patchbench.evaluate.robustness import Views, evaluate_views
from patchbench.evaluate.skipped import CheckSkipped, bad_images, skipped_names
from patchbench.evaluate.test import test, test_is_shared
from patchbench.runs.provenance import environment, execution
from patchbench.runs.record import validation_accuracy, write_record
from patchbench.track.device import GIB
from patchbench.track.meter import Meter
from patchbench.track.progress import ProgressBar
from patchbench.track.terminal import print_result, say, spell_size
from patchbench.train.checkpoint import write_checkpoints
from patchbench.train.graphs import Graphed, uses_graphs
from patchbench.train.same_start import SameStart
from patchbench.train.shard import load_weights
from patchbench.train.signals import StopOnSignal
from patchbench.train.task import Classify
from patchbench.weights.load import load
from patchbench.words import count


def train(
    cfg: DictConfig,
    choices: Mapping[str, str],
    out_dir: Path,
    *,
    remarks: Sequence[str] = (),
    in_sweep: bool = False,
) -> float:
    """Train, test the checkpoint `tested`, and write record, checkpoints and metrics into `out_dir`.

    Return the validation accuracy of the tested weights, for sweepers.
    choices: the option chosen in each group. remarks: lines to print before all others. in_sweep: the run is a cell of
    a sweep. A finished run is not repeated; an interrupted run resumes from its last checkpoint. Refused, before
    training starts and before an earlier run is set aside, if the configuration is impossible.
    """
    for remark in remarks:
        say(remark)
    with alone_in(out_dir), loading():
        with refusing():
            check_values(cfg)
            check_options(cfg)
            origin = origin_of(cfg, choices)
        anew = starts_anew(cfg)
        done = record_in(out_dir, origin, anew=anew)
        if done and not anew:
            return finished(cfg, origin, out_dir, done)
        with refusing():
            ready = prepare(cfg, origin, out_dir, anew=anew, in_sweep=in_sweep)
        say(f"{title(origin['factors'])}: {ready.headline}")
        for remark in ready.remarks:
            say(remark)
        with set_aside(out_dir, anew=anew):
            return run(cfg, ready, out_dir)


@dataclass(frozen=True)
class Ready:
    """The parts of a training, built and checked."""

    origin: dict[str, Any]
    trainer: pl.Trainer
    task: Classify
    data: Batches
    meter: Meter
    stop: StopOnSignal
    draft: Draft
    views: Views  # of the test images, in addition to the unchanged images
    ckpt: Path | None  # to resume from
    headline: str
    remarks: list[str]


def run(cfg: DictConfig, ready: Ready, out_dir: Path) -> float:
    """Train, test, write the record, and return the validation accuracy; see `train`."""
    trainer, task, data, meter, costs = ready.trainer, ready.task, ready.data, ready.meter, ready.draft.cost
    name, record, ckpt = ready.origin["name"], out_dir / "run.json", out_dir / f"{cfg.tested}.ckpt"
    with ready.stop.watching(), ExitStack() as stack:
        with refusing():
            trainer.loggers = start_loggers(cfg, ready.origin, costs, out_dir, stack, resume=ready.ckpt is not None)
        with loading():
            ready.stop.exit_if_signalled()
            trainer.fit(task, data, ckpt_path=ready.ckpt)
            result: dict[str, Any] = dict(meter.validated)
            with refusing():
                load_weights(task, own_checkpoint(ckpt, ready.origin)["state_dict"])
            tested, hits = test(trainer, task, data)
            shared = test_is_shared(data.source, cfg.seed)
            result |= tested | {"test/own_images": float(not shared)}
            result |= evaluate_views(trainer, task, data, ready.views, ready.draft.test_at)
        ready.stop.exit_if_signalled()
        left_out = skipped_names(data, bad_images(trainer, data))
        result |= meter.summary() | costs.facts() | {"data/skipped": len(left_out)}
        meter.write(trainer, {metric: value for metric, value in result.items() if isinstance(value, int | float)})
        done = ready.origin | {
            "eval": eval_options(cfg),
            "skipped": left_out,
            "result": result,
            "hits": hits.packed() if shared else None,
            "environment": environment(),
            "execution": execution(),
        }
        write_record(record, done)  # before anything that may still fail
        drop_earlier(out_dir)
        needed = "all" if cfg.keep_checkpoints == "all" else "tested"  # a run that has its record is not resumed
        drop_checkpoints(out_dir, needed, cfg.tested)
        ready.stop.exit_if_signalled()
        if cfg.logger.tables:
            log_predictions(trainer, task, data, out_dir)
        if cfg.analyze:
            result |= log_analysis(ready.draft, trainer, task, data, meter, ckpt)
            write_record(record, done)
        if cfg.logger.checkpoints:
            log_checkpoint(trainer, ckpt, ready.origin["factors"] | result)
        drop_checkpoints(out_dir, cfg.keep_checkpoints, cfg.tested)
    if left_out:
        do, were = ("does", "was") if len(left_out) == 1 else ("do", "were")
        counted = f"{count(len(left_out), 'image')} {do} not decode and {were} skipped"
        say(f"{counted}; run.json names all: {', '.join(left_out[:3])}")
    print_result(name, result, out_dir, tested=cfg.tested)
    return validation_accuracy(done)


def prepare(cfg: DictConfig, origin: dict[str, Any], out_dir: Path, *, anew: bool, in_sweep: bool) -> Ready:
    """Build all parts of a training, the most expensive last.

    ValueError, TypeError, OSError or an error of Hydra if a part cannot be built or does not fit into memory.
    """
    plan = draft(cfg)
    views = plan.views()
    ckpt, before, remarks = checkpoint_to_resume(cfg, origin, out_dir, anew=anew)
    meter = Meter(cfg.log_every, plan.cost)
    stop = StopOnSignal(out_dir / "last.ckpt", cfg.log_every, cfg.trainer.timeout_s)
    progress = ProgressBar(meter, out_dir / "progress.json" if SWEEP in os.environ else None)
    checkpoints = write_checkpoints(out_dir, cfg.keep_checkpoints)
    callbacks = [meter, progress, *checkpoints, CheckSkipped(), stop, LambdaCallback(setup=fit_embedding)]
    trainer: Any = build_trainer(cfg, out_dir, callbacks, epochs=cfg.epochs)
    if in_sweep and trainer.world_size > 1 and "SUBMITIT_EXECUTOR" not in os.environ:
        raise ValueError(
            f"trainer.devices={cfg.trainer.devices} in a sweep: with this launcher the cells share one process, which "
            "can start its ranks once only; use hydra/launcher=processes, or trainer.devices=1"
        )
    split, needed = split_batch(plan, trainer, ckpt)
    origin["conditions"], changed = listed(cfg, trainer, before)
    remarks += changed
    torch.manual_seed(cfg.seed)
    net = build_net(cfg, plan.source)
    if cfg.model.get("init_from") and not ckpt:
        remarks = [load(net, cfg.model.init_from), *remarks]
    if still := sum(p.numel() for p in net.parameters() if not p.requires_grad):
        remarks = [f"freeze={cfg.freeze}: {still:,} of {plan.cost.params:,} parameters are not trained", *remarks]
    remarks = [*share_batch_norms(cfg, net, trainer), *remarks]
    data = prepare_data(cfg, plan.source, trainer)
    if data.splits:  # on the first rank, which writes the checkpoints
        noted = getattr(plan.source, "remarks", [])
        remarks = [*noted, *check_variety(data.splits["train"], noted), *remarks]
        origin = with_measured(origin, plan.source)
    duration = build_duration(plan, data)
    trainer.callbacks[:0] = [SameStart(ckpt), duration, split]
    if uses_graphs(cfg.cuda_graphs, net, trainer.strategy, plan.cost.train_flops(cfg.batch_size)):
        trainer.callbacks.append(Graphed(cfg.batch_size, plan.source.in_chans, plan.source.img_size))
    task = build_task(cfg, net, data, duration, origin)
    if compiles(cfg, trainer):
        compile_blocks(net)
    images, costs = images_at_once(cfg, trainer), plan.cost
    per_step = f" and {costs.macs_per_step / 1e9:.3g} a step" if costs.macs_per_step else ""
    tokens = f", {spell_size(costs.grid_size)} patches, {costs.num_tokens:,} tokens" if costs.grid_size else ""
    headline = (
        f"{spell_size(plan.source.img_size)} pixels{tokens}; "
        f"{costs.params:,} parameters, {costs.macs / 1e9:.3g} GMACs an image{per_step}, "
        f"about {needed.step(images) / GIB:.2g} GiB for {images} images at a time"
    )
    return Ready(origin, trainer, task, data, meter, stop, plan, views, ckpt, headline, remarks)
