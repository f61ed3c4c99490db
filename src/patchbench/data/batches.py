"""From a source to batches on the device: the order is a function of (seed, epoch), never of history."""

import os
from collections.abc import Callable, Iterator
from typing import Literal

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from patchbench.data.source import Source, Split
from patchbench.task import Batch


class TrainOrder(Sampler[list[int]]):
    """The batches of one rank, epoch after epoch.

    Epoch e visits the images in the permutation drawn from (seed, e), in steps of `batch_size` images; each step is cut
    into `accumulate` micro-batches, and each of those among the ranks. The last images that do not fill a step are left
    to other epochs. `position()` is the number of micro-batches taken since the start of training: from it alone follow
    epoch and place, so that training resumes in the middle of an epoch with no other state, and any number of ranks,
    micro-batches and workers sees the same steps.
    """

    def __init__(
        self,
        num_images: int,
        *,
        batch_size: int,
        seed: int,
        rank: int,
        world_size: int,
        accumulate: int,
        limit: int | None,
        position: Callable[[], int],
    ) -> None:
        parts = world_size * accumulate
        if batch_size % parts:
            raise ValueError(
                f"batch_size={batch_size} does not divide among {world_size} devices times "
                f"trainer.accumulate={accumulate}: use a multiple of {parts}"
            )
        if batch_size > num_images:
            raise ValueError(
                f"batch_size={batch_size} exceeds the {num_images} training images: use no more than these"
            )
        self.num_images, self.batch_size, self.seed, self.position = num_images, batch_size, seed, position
        self.rank, self.world_size, self.micro = rank, world_size, batch_size // parts
        steps = num_images // batch_size
        self.length = accumulate * (steps if limit is None else min(steps, limit))

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[list[int]]:
        epoch, start = divmod(self.position(), self.length)
        generator = torch.Generator().manual_seed(hash((self.seed, epoch)) % 2**63)
        order = torch.randperm(self.num_images, generator=generator)
        for batch in range(start, self.length):
            first = (batch * self.world_size + self.rank) * self.micro
            yield order[first : first + self.micro].tolist()


class EvalOrder(Sampler[list[int]]):
    """Every image once, in order, strided over the ranks: none is padded, none counted twice."""

    def __init__(self, num_images: int, *, batch_size: int, rank: int, world_size: int, limit: int | None) -> None:
        mine = range(rank, num_images, world_size)
        batches = [list(mine[i : i + batch_size]) for i in range(0, len(mine), batch_size)]
        self.batches = batches[:limit]

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.batches)


class Batches(pl.LightningDataModule):
    """Batches of (images, labels): uint8 up to the device, there as floats of mean 0 and standard deviation 1.

    batch_size: images per optimizer step, over all devices and micro-batches together. workers: processes per rank that
    load images; "auto" gives none to a set in memory, else one per core of this rank, at most 8.
    """

    def __init__(
        self, source: Source, *, batch_size: int, seed: int, workers: int | Literal["auto"], limit: int | None
    ) -> None:
        super().__init__()
        self.source, self.batch_size, self.seed, self.workers, self.limit = source, batch_size, seed, workers, limit
        shape = (1, source.in_chans, 1, 1)
        self.mean, self.std = (
            torch.tensor(v, dtype=torch.float32).mul(255).view(shape) for v in (source.mean, source.std)
        )
        self.splits: dict[str, Split] = {}

    def prepare_data(self) -> None:
        """On one process per node: downloads, so that `setup` finds everything."""
        self.setup("")

    def setup(self, stage: str) -> None:
        if not self.splits:
            self.splits = self.source.splits()

    def attached(self) -> pl.Trainer:
        assert self.trainer is not None, "loaders depend on the devices: give the module to a Trainer first"
        return self.trainer

    def train_order(self) -> TrainOrder:
        trainer = self.attached()
        return TrainOrder(
            len(self.splits["train"]),
            batch_size=self.batch_size,
            seed=self.seed,
            rank=trainer.global_rank,
            world_size=trainer.world_size,
            accumulate=trainer.accumulate_grad_batches,
            limit=self.limit,
            position=lambda: trainer.fit_loop.epoch_loop.batch_progress.total.ready,
        )

    def steps_per_epoch(self) -> int:
        """Optimizer steps."""
        return len(self.train_order()) // self.attached().accumulate_grad_batches

    def train_dataloader(self) -> DataLoader:
        return self.loader("train", self.train_order())

    def val_dataloader(self) -> DataLoader:
        return self.eval_dataloader("val")

    def test_dataloader(self) -> DataLoader:
        return self.eval_dataloader("test")

    def eval_dataloader(self, split: str) -> DataLoader:
        rank, world_size = self.attached().global_rank, self.attached().world_size
        count = len(self.splits[split])
        if count < world_size:
            raise ValueError(f"the {split} split of {count} images cannot be shared among {world_size} devices")
        splits = self.attached().accumulate_grad_batches  # what is cut to fit in training is cut here too
        batch_size = max(1, self.batch_size // (world_size * splits))
        limit = None if self.limit is None else self.limit * splits
        order = EvalOrder(count, batch_size=batch_size, rank=rank, world_size=world_size, limit=limit)
        return self.loader(split, order)

    def loader(self, split: str, order: Sampler[list[int]]) -> DataLoader:
        dataset, trainer = self.splits[split], self.attached()
        if isinstance(self.workers, int):
            workers = self.workers
        else:
            cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
            workers = 0 if dataset.in_memory else min(8, max(1, cores // trainer.num_devices))
        return DataLoader(
            dataset,  # type: ignore[arg-type]
            batch_size=None,  # the sampler gives whole batches of indices
            sampler=order,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=trainer.strategy.root_device.type == "cuda",
        )

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        images, labels = batch
        return self.normalised(images), labels

    def normalised(self, images: Tensor) -> Tensor:
        mean, std = self.mean.to(images.device), self.std.to(images.device)
        return (images - mean) / std

    def sample(self, count: int) -> Tensor:
        """`count` training images, evenly spaced over the split, or all of a smaller one, as the network sees them."""
        split = self.splits["train"]
        count = min(count, len(split))
        images, _ = split[[i * len(split) // count for i in range(count)]]
        return self.normalised(images)
