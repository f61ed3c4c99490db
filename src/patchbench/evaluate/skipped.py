"""Images that do not decode: how many a run may do without, and which it did without."""

from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl
from jaxtyping import Bool
from torch import Tensor

from patchbench.data.batches import Batches
from patchbench.data.pictures import BadImage, Pictures
from patchbench.data.source import unreadable


class CheckSkipped(pl.Callback):
    """End a run after the first pass over a split in which all ranks together skip more images than they may.

    Each rank reads a share of the images, and ends the run by itself where its share alone has too many.
    """

    def on_train_epoch_end(self, trainer: pl.Trainer, *_: object) -> None:
        self.check(trainer, "train")

    def on_validation_epoch_end(self, trainer: pl.Trainer, *_: object) -> None:
        self.check(trainer, "val")

    def on_test_epoch_end(self, trainer: pl.Trainer, *_: object) -> None:
        self.check(trainer, "test")

    def check(self, trainer: pl.Trainer, name: str) -> None:
        """BadImage on the first rank, and an exit without words on the others, which found the same."""
        data: Any = trainer
        split = data.datamodule.splits[name]
        if trainer.world_size == 1 or not isinstance(split, Pictures) or split.settings.on_error != "skip":
            return
        try:
            split.check_skipped(of_all_ranks(trainer, split.bad))
        except BadImage:
            if trainer.is_global_zero:
                raise
            raise SystemExit(2) from None


def of_all_ranks(trainer: pl.Trainer, mask: Bool[Tensor, " n"]) -> Bool[Tensor, " n"]:
    """Mask of what any rank has in its own."""
    if trainer.world_size == 1:
        return mask
    return trainer.strategy.reduce(mask.int().to(trainer.strategy.root_device), reduce_op="max").cpu().bool()


def bad_images(trainer: pl.Trainer, data: Batches) -> dict[str, Bool[Tensor, " n"]]:
    """Masks of the images that turned out not to decode, by split, seen by any rank."""
    return {name: of_all_ranks(trainer, unreadable(split)) for name, split in data.splits.items()}


def skipped(data: Batches, bad: Mapping[str, Tensor]) -> list[str]:
    """Names of the images that do not decode, of all splits. bad: see `bad_images`."""
    splits: dict[str, Any] = data.splits
    return [splits[name].name(i) for name, mask in bad.items() for i in mask.nonzero().flatten().tolist()]
