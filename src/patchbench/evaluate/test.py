"""Metrics of the test split."""

from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl
import torch
from jaxtyping import Bool
from scipy.stats import binomtest
from torch import Tensor

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


def bad_images(trainer: pl.Trainer, data: Batches) -> dict[str, Bool[Tensor, " n"]]:
    """Masks of the images that turned out not to decode, by split, seen by any rank."""
    masks = {name: unreadable(split) for name, split in data.splits.items()}
    if trainer.world_size > 1:
        device = trainer.strategy.root_device
        masks = {n: trainer.strategy.reduce(m.int().to(device), reduce_op="max").cpu().bool() for n, m in masks.items()}
    return masks


def skipped(data: Batches, bad: Mapping[str, Tensor]) -> list[str]:
    """Names of the images that do not decode, of all splits. bad: see `bad_images`."""
    splits: dict[str, Any] = data.splits
    return [splits[name].name(i) for name, mask in bad.items() for i in mask.nonzero().flatten().tolist()]


def emptied(data: Batches, bad: Mapping[str, Tensor]) -> list[str]:
    """Remarks on classes of which no image of a split decodes. bad: see `bad_images`."""
    remarks = []
    names = getattr(data.source, "classes", None) or range(data.source.num_classes)
    for name, mask in bad.items():
        if mask.any():
            labels = data.splits[name].labels  # type: ignore[attr-defined]
            lost = sorted({*labels.tolist()} - {*labels[~mask].tolist()})
            few = ", ".join(str(names[i]) for i in lost[:5]) + ", ..." * (len(lost) > 5)
            remarks += [f"no image of {few} decodes in {name}: its figures say nothing about them"] if lost else []
    return remarks
