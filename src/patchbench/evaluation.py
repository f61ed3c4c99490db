"""From a checkpoint to figures: of its test split, of further questions, of its input stage."""

from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from scipy.stats import binomtest

from patchbench import schema
from patchbench.ask import ask
from patchbench.build import (
    asked,
    build_duration,
    build_net,
    build_task,
    check_asked,
    network_cost,
    prepare_data,
    restore,
    split_at_size,
)
from patchbench.checkpoint import read_checkpoint
from patchbench.data.batches import Batches
from patchbench.data.pictures import BadImage
from patchbench.data.source import unreadable
from patchbench.errors import refusing
from patchbench.shard import load_weights
from patchbench.task import Classify
from patchbench.track.record import write_record
from patchbench.track.table import print_result


def evaluate(
    ckpt: Path,
    trainer_cfg: DictConfig,
    eval_cfg: DictConfig,
    *,
    workers: int | str,
    resident: float,
    data_root: str | None,
    silent: bool = False,
) -> dict[str, Any]:
    """The figures of the test split, from the checkpoint alone. Refused where it or its data cannot be read."""
    with refusing():
        checkpoint = read_checkpoint(ckpt)
        origin = checkpoint["patchbench"]
        cfg, source = restore(checkpoint, data_root)
        cfg.workers, cfg.resident, cfg.eval = workers, resident, eval_cfg
        check_asked(cfg, source)
        trainer = instantiate(trainer_cfg)(max_epochs=0, out_dir=ckpt.parent, callbacks=[])
        data = prepare_data(cfg, source, trainer)
        costs = network_cost(cfg, source)
        task = build_task(cfg, build_net(cfg, source), data, build_duration(cfg, data, costs))
    with refusing(BadImage):
        result = test(trainer, task, data, ckpt) | ask(trainer, task, data, asked(cfg), split_at_size(cfg))
    result |= costs.facts()
    if not silent:
        print_result(schema.name(origin["factors"]), result)
    return origin | {"result": result}


def ask_again(cfg: DictConfig, done: dict[str, Any], out_dir: Path) -> dict[str, Any]:
    """Put the questions of `cfg.eval` to a run that was done with others, and add the answers to its record."""
    how: dict[str, Any] = {"workers": cfg.workers, "resident": cfg.resident}
    more = evaluate(out_dir / "best.ckpt", cfg.trainer, cfg.eval, **how, data_root=None, silent=True)
    done |= {"asked": OmegaConf.to_container(cfg.eval, resolve=True), "result": done["result"] | more["result"]}
    write_record(out_dir / "run.json", done)
    return done


def analyze_again(cfg: DictConfig, done: dict[str, Any], out_dir: Path) -> dict[str, Any]:
    """Of a run that was done without."""
    from patchbench.analysis import analyze

    how: dict[str, Any] = {"workers": cfg.workers, "resident": cfg.resident}
    found = analyze(out_dir / "best.ckpt", out_dir, cfg.trainer, **how, images=None, data_root=None)
    done |= {"result": done["result"] | found.numbers}
    write_record(out_dir / "run.json", done)
    return done


def test(trainer: pl.Trainer, task: Classify, data: Batches, ckpt: Path) -> dict[str, Any]:
    """The figures of the test split at `ckpt`, with the 95 % Wilson interval of the accuracy."""
    load_weights(task, read_checkpoint(ckpt)["state_dict"])
    trainer.test(task, data, verbose=False)
    metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
    bad = unreadable(data.splits["test"])
    images = sum(len(batch.indices) - int(bad[batch.indices].sum()) for batch in data.test_dataloader().sampler)
    if trainer.world_size > 1:
        count = torch.tensor(images, device=trainer.strategy.root_device)  # NCCL knows no other
        images = int(trainer.strategy.reduce(count, reduce_op="sum"))
    interval = binomtest(round(metrics["test/acc"] * images), images).proportion_ci(method="wilson")
    return metrics | {"test/images": images, "test/acc_low": float(interval.low), "test/acc_high": float(interval.high)}


def skipped(trainer: pl.Trainer, data: Batches) -> list[str]:
    """The names of the images that do not decode, of all splits, seen by any rank."""
    names: list[str] = []
    for split in data.splits.values():
        bad = unreadable(split)
        if trainer.world_size > 1:
            bad = trainer.strategy.reduce(bad.int().to(trainer.strategy.root_device), reduce_op="max").cpu()
        names += [split.name(i) for i in bad.nonzero().flatten().tolist()]  # type: ignore[attr-defined]
    return names
