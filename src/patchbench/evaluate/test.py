"""Metrics of the test split, and the hits: which test images are classified correctly."""

from typing import Any

import pytorch_lightning as pl
import torch
from scipy.stats import binomtest

from patchbench.data.batches import Batches
from patchbench.data.source import Source, unreadable
from patchbench.runs.hits import Hits
from patchbench.track.finite import check_losses
from patchbench.train.task import Classify


def test(trainer: pl.Trainer, task: Classify, data: Batches) -> tuple[dict[str, Any], Hits]:
    """Test the weights of `task`; return the metrics of the test split and the hits of all ranks.

    test/acc is exactly test/right / test/images; test/acc_low and test/acc_high are its 95 % Wilson interval.
    """
    trainer.test(task, data, verbose=False)
    metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
    check_losses(metrics, "at the weights that are tested")
    hits = collect_hits(trainer, task, data)
    correct, images = int(hits.right.sum()), int(hits.asked.sum())
    interval = binomtest(correct, images).proportion_ci(method="wilson")
    return metrics | {
        "test/acc": correct / images,
        "test/right": correct,
        "test/images": images,
        "test/acc_low": float(interval.low),
        "test/acc_high": float(interval.high),
    }, hits


def collect_hits(trainer: pl.Trainer, task: Classify, data: Batches) -> Hits:
    """Collect the hits of all ranks; each image belongs to one rank."""
    split = data.splits["test"]
    bad = unreadable(split)  # reading has left these images out
    order: Any = data.test_dataloader().sampler
    indices = [i for batch in order for i in batch.indices if not bad[i]]
    counts = torch.zeros(len(split), dtype=torch.int32)  # 0: not tested, 1: wrong, 2: right
    counts[indices] = 1 + torch.cat(task.hits).cpu().int()
    if trainer.world_size > 1:
        counts = trainer.strategy.reduce(counts.to(trainer.strategy.root_device), reduce_op="sum").cpu()
    return Hits((counts == 2).numpy(), (counts > 0).numpy())


def test_is_shared(source: Source, seed: int) -> bool:
    """True if runs with other seeds have the same test images, because the set does not draw them by this seed."""
    return getattr(source, "eval_seed", None) != seed
