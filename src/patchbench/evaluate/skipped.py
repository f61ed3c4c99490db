"""Images that do not decode: the check of their number, and their names."""

from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl
from jaxtyping import Bool
from torch import Tensor

from patchbench.data.batches import Batches
from patchbench.data.pictures import BadImage, Pictures
from patchbench.data.source import unreadable


class CheckSkipped(pl.Callback):
    """Callback that ends a run after a pass over a split if all ranks together skip more images than allowed.

    Each rank reads a part of the images, and ends the run earlier if its own part has too many bad images.
    """

    def on_train_epoch_end(self, trainer: pl.Trainer, *_: object) -> None:
        self.check(trainer, "train")

    def on_validation_epoch_end(self, trainer: pl.Trainer, *_: object) -> None:
        self.check(trainer, "val")

    def on_test_epoch_end(self, trainer: pl.Trainer, *_: object) -> None:
        self.check(trainer, "test")

    def check(self, trainer: pl.Trainer, name: str) -> None:
        """Raise BadImage on the first rank if there are too many bad images; other ranks exit without a message."""
        data: Any = trainer
        split = data.datamodule.splits[name]
        if trainer.world_size == 1 or not isinstance(split, Pictures) or split.settings.on_error != "skip":
            return
        try:
            split.check_skipped(any_rank(trainer, split.bad))
        except BadImage:
            if trainer.is_global_zero:
                raise
            raise SystemExit(2) from None


def any_rank(trainer: pl.Trainer, mask: Bool[Tensor, " n"]) -> Bool[Tensor, " n"]:
    """Return the union of the masks of all ranks."""
    if trainer.world_size == 1:
        return mask
    return trainer.strategy.reduce(mask.int().to(trainer.strategy.root_device), reduce_op="max").cpu().bool()


def bad_images(trainer: pl.Trainer, data: Batches) -> dict[str, Bool[Tensor, " n"]]:
    """Return for each split the mask of the images that did not decode on some rank."""
    return {name: any_rank(trainer, unreadable(split)) for name, split in data.splits.items()}


def skipped_names(data: Batches, bad: Mapping[str, Tensor]) -> list[str]:
    """List the names of the images that did not decode, of all splits. bad: see `bad_images`."""
    splits: dict[str, Any] = data.splits
    return [splits[name].name(i) for name, mask in bad.items() for i in mask.nonzero().flatten().tolist()]
