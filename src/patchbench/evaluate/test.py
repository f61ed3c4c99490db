"""Metrics of the test split."""

from typing import Any

import pytorch_lightning as pl
import torch
from scipy.stats import binomtest

from patchbench.data.batches import Batches
from patchbench.data.source import unreadable
from patchbench.train.task import Classify


def test(trainer: pl.Trainer, task: Classify, data: Batches) -> dict[str, Any]:
    """Metrics of the test split at the weights that `task` has, with the 95 % Wilson interval of the accuracy."""
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
    """Names of the images that do not decode, of all splits, seen by any rank."""
    names: list[str] = []
    for split in data.splits.values():
        bad = unreadable(split)
        if trainer.world_size > 1:
            bad = trainer.strategy.reduce(bad.int().to(trainer.strategy.root_device), reduce_op="max").cpu()
        names += [split.name(i) for i in bad.nonzero().flatten().tolist()]  # type: ignore[attr-defined]
    return names
