"""From a source to batches on the device: the order is a function of (seed, epoch), never of history."""

import math
from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from patchbench.data.augment.chain import Augment
from patchbench.data.draws import train_draws
from patchbench.data.source import Batch, Crop, InMemory, Source, Split, Whole
from patchbench.machine import cores


class Chosen(NamedTuple):
    """The images of one batch; for training, each with its draw."""

    indices: list[int]
    draws: Tensor | None = None


class TrainOrder(Sampler[Chosen]):
    """The batches of one rank, epoch after epoch.

    Epoch e visits the images in the permutation drawn from (seed, e), in steps of `batch_size` images; each step is cut
    into `accumulate` micro-batches, and each of those among the ranks. The last images that do not fill a step are left
    to other epochs. With `repeats`, as many showings of one image follow each other, of fewer images (Hoffer et al.,
    2020). `position()` is the number of micro-batches taken since the start of training: from it alone follow
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
        repeats: int,
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
        self.repeats = repeats
        steps = num_images // batch_size
        self.length = accumulate * (steps if limit is None else min(steps, limit))

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[Chosen]:
        epoch, start = divmod(self.position(), self.length)
        generator = torch.Generator().manual_seed(hash((self.seed, epoch)) % 2**63)
        order = torch.randperm(self.num_images, generator=generator)
        for batch in range(start, self.length):
            first = (batch * self.world_size + self.rank) * self.micro
            places = torch.arange(first, first + self.micro)
            yield Chosen(order[places // self.repeats].tolist(), train_draws(self.seed, epoch, places))


class EvalOrder(Sampler[Chosen]):
    """Every image once, in order, strided over the ranks: none is padded, none counted twice.

    Shares differ by one image at most, and all ranks have as many batches, since those of a sharded network wait for
    each other in every batch. So where one rank needs a batch more, the others halve their last.
    """

    def __init__(self, num_images: int, *, batch_size: int, rank: int, world_size: int, limit: int | None) -> None:
        mine = list(range(rank, num_images, world_size))
        if world_size > 1:
            batch_size = max(2, batch_size)  # one image cannot be halved
        batches = [mine[i : i + batch_size] for i in range(0, len(mine), batch_size)]
        if len(batches) < math.ceil(math.ceil(num_images / world_size) / batch_size):
            batches[-1:] = [batches[-1][: batch_size // 2], batches[-1][batch_size // 2 :]]
        self.batches = [Chosen(batch) for batch in batches[:limit]]

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Chosen]:
        return iter(self.batches)


class Reader(Dataset):
    """What a loader, in its process, makes of the images chosen: uint8 images, labels and, for training, draws."""

    def __init__(self, split: Split, crop: Crop | None) -> None:
        self.split, self.crop = split, crop if split.crops else None

    def __getitem__(self, chosen: Chosen) -> Batch:
        if chosen.draws is None:
            return self.split.read(chosen.indices)
        return *self.split.read(chosen.indices, chosen.draws, self.crop), chosen.draws


class Picked(NamedTuple):
    """A batch of a split that lives on the device, where it is still to be gathered."""

    split: str
    indices: Tensor
    draws: list[Tensor]


class Picker(Dataset):
    """What a loader has to do for a split that lives on the device."""

    def __init__(self, split: str) -> None:
        self.split = split

    def __getitem__(self, chosen: Chosen) -> Picked:
        return Picked(self.split, torch.tensor(chosen.indices), [] if chosen.draws is None else [chosen.draws])


class Batches(pl.LightningDataModule):
    """Batches of (images, labels): uint8 up to the device, there as floats of mean 0 and standard deviation 1.

    batch_size: images per optimizer step, over all devices and micro-batches together. workers: processes per rank that
    load images; "auto" gives none to a set in memory, else one per core of this rank, at most 8. room: bytes of the
    device; a set in memory that takes no more lives there as uint8, each rank has all of it, and loaders only say which
    images come next.
    """

    def __init__(
        self,
        source: Source,
        augment: Augment,
        *,
        batch_size: int,
        seed: int,
        workers: int | Literal["auto"],
        limit: int | None,
        room: int,
    ) -> None:
        super().__init__()
        self.source, self.augment, self.batch_size, self.seed = source, augment, batch_size, seed
        self.workers, self.limit, self.room = workers, limit, room
        self.splits: dict[str, Split] = {}
        self.resident: dict[str, InMemory] | None = None
        self.scale: Tensor | None = None

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
            repeats=self.augment.repeats,
            limit=self.limit,
            position=lambda: trainer.fit_loop.epoch_loop.batch_progress.total.ready,
        )

    def steps_per_epoch(self) -> int:
        """Optimizer steps."""
        return len(self.train_order()) // self.attached().accumulate_grad_batches

    def train_dataloader(self) -> DataLoader:
        return self.loader(self.splits["train"], self.train_order())

    def val_dataloader(self) -> DataLoader:
        return self.eval_dataloader(self.splits["val"])

    def test_dataloader(self) -> DataLoader:
        return self.eval_dataloader(self.splits["test"])

    def eval_dataloader(self, split: Split) -> DataLoader:
        rank, world_size = self.attached().global_rank, self.attached().world_size
        count = len(split)
        if count < world_size:
            raise ValueError(f"{count} images to evaluate cannot be shared among {world_size} devices")
        splits = self.attached().accumulate_grad_batches  # what is cut to fit in training is cut here too
        batch_size = max(1, self.batch_size // (world_size * splits))
        limit = None if self.limit is None else self.limit * splits
        order = EvalOrder(count, batch_size=batch_size, rank=rank, world_size=world_size, limit=limit)
        return self.loader(split, order)

    def on_device(self) -> dict[str, InMemory]:
        """The splits that are tensors, moved once, where there is room for all of them together; else none."""
        if self.resident is None:
            device = self.attached().strategy.root_device
            whole = {n: split for n, split in self.splits.items() if not split.crops and isinstance(split, Whole)}
            if sum(split.images.nbytes + split.labels.nbytes for split in whole.values()) > self.room:
                whole = {}
            self.resident = {
                n: InMemory(split.images.to(device), split.labels.to(device)) for n, split in whole.items()
            }
        return self.resident

    def loader(self, split: Split, order: Sampler[Chosen]) -> DataLoader:
        trainer = self.attached()
        picked = next((name for name in self.on_device() if self.splits[name] is split), None)
        if picked:
            workers = 0
        elif isinstance(self.workers, int):
            workers = self.workers
        else:
            workers = min(8, max(1, cores() // trainer.num_devices)) if split.slow else 0
        return DataLoader(
            Picker(picked) if picked else Reader(split, self.augment.crop),
            batch_size=None,  # the sampler gives whole batches of indices
            sampler=order,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=trainer.strategy.root_device.type == "cuda",
        )

    def transfer_batch_to_device(self, batch: Batch | Picked, device: torch.device, dataloader_idx: int) -> Batch:
        """Draws stay: what follows from them is decided on the host, without a wait for the device."""
        if isinstance(batch, Picked):
            indices = super().transfer_batch_to_device(batch.indices, device, dataloader_idx)
            return *self.on_device()[batch.split].read(indices), *batch.draws
        images, labels, *draws = batch
        return *super().transfer_batch_to_device((images, labels), device, dataloader_idx), *draws

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        images, labels, *draws = batch
        if not draws:
            return self.normalised(images), labels
        images = self.augment.images(images, *draws, cropped=self.splits["train"].crops)
        return self.augment.mixed(self.normalised(images), labels, *draws)

    def normalised(self, images: Tensor) -> Tensor:
        if self.scale is None or self.scale.device != images.device:  # once: a copy to the device would make it wait
            self.scale = torch.tensor([self.source.mean, self.source.std], device=images.device)[..., None, None] * 255
        mean, std = self.scale
        return (images - mean) / std

    def sample(self, count: int) -> Tensor:
        """`count` training images, evenly spaced over the split, or all of a smaller one, as the network sees them."""
        split = self.splits["train"]
        count = min(count, len(split))
        images, _ = split.read([i * len(split) // count for i in range(count)])
        return self.normalised(images)


class OneSplit(pl.LightningDataModule):
    """Any split to predict, read and scaled as by `data`, which is attached to a trainer."""

    def __init__(self, data: Batches, split: Split) -> None:
        super().__init__()
        self.data, self.split = data, split

    def predict_dataloader(self) -> DataLoader:
        return self.data.eval_dataloader(self.split)

    def transfer_batch_to_device(self, batch: Batch | Picked, device: torch.device, dataloader_idx: int) -> Batch:
        return self.data.transfer_batch_to_device(batch, device, dataloader_idx)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        return self.data.on_after_batch_transfer(batch, dataloader_idx)
