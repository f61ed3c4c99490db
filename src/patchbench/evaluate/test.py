"""Metrics of the test split, and the answer to each of its images."""

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
    """Metrics of the test split at the weights that `task` has, and the answers they are made of, of all ranks.

    test/acc is test/right / test/images to the bit, and has a 95 % Wilson interval.
    """
    trainer.test(task, data, verbose=False)
    metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
    check_losses(metrics, "at the weights that are tested")
    hits = answers(trainer, task, data)
    right, images = int(hits.right.sum()), int(hits.asked.sum())
    interval = binomtest(right, images).proportion_ci(method="wilson")
    return metrics | {
        "test/acc": right / images,
        "test/right": right,
        "test/images": images,
        "test/acc_low": float(interval.low),
        "test/acc_high": float(interval.high),
    }, hits


def answers(trainer: pl.Trainer, task: Classify, data: Batches) -> Hits:
    """Answers of all ranks together; each image is the share of one rank."""
    split = data.splits["test"]
    bad = unreadable(split)  # left out when it was read
    order: Any = data.test_dataloader().sampler
    mine = [i for chosen in order for i in chosen.indices if not bad[i]]
    counts = torch.zeros(len(split), dtype=torch.int32)  # 1 for an answer, 2 for a right one
    counts[mine] = 1 + torch.cat(task.hits).cpu().int()
    if trainer.world_size > 1:
        counts = trainer.strategy.reduce(counts.to(trainer.strategy.root_device), reduce_op="sum").cpu()
    return Hits((counts == 2).numpy(), (counts > 0).numpy())


def test_is_shared(source: Source, seed: int) -> bool:
    """True if runs of other seeds are tested on the same images: the set does not draw them by the seed of the run."""
    return getattr(source, "eval_seed", None) != seed
