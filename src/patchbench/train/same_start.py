"""Check that all ranks start at the same step."""

from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from patchbench.train.checkpoint import read_checkpoint


class SameStart(pl.Callback):
    """Refuse ranks that start at different steps, instead of letting them wait for each other.

    Each rank looks for last.ckpt. Where nodes have folders of their own, or one sees a new file later, some ranks find
    the checkpoint and others begin anew. ckpt: the checkpoint that this rank found.
    """

    def __init__(self, ckpt: Path | None) -> None:
        self.ckpt = ckpt

    def setup(self, trainer: pl.Trainer, task: Any, stage: str) -> None:
        """Compare the steps of all ranks. RuntimeError on every rank where they differ."""
        if stage != "fit" or trainer.world_size == 1:
            return
        steps: list[Any] = [None] * trainer.world_size
        torch.distributed.all_gather_object(steps, read_checkpoint(self.ckpt)["global_step"] if self.ckpt else 0)
        if len(set(steps)) > 1:
            each = ", ".join(f"rank {rank} at step {step}" for rank, step in enumerate(steps))
            raise RuntimeError(
                f"the ranks start at different steps ({each}): give runs_dir=<folder>, one that all nodes share"
            )
