"""Batches of a source, read by loaders and brought to the device."""

from typing import Literal, NamedTuple

import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.environments import ClusterEnvironment, SLURMEnvironment
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, get_worker_info

from patchbench.data.augment.chain import Augment
from patchbench.data.hand_over import PREFETCH, end_with_lost_batches, refuse_small_shared_memory, share
from patchbench.data.order import Chosen, EvalOrder, TrainOrder
from patchbench.data.source import Batch, Checkable, Crop, InMemory, Source, Split, Whole
from patchbench.machine import cores


class Reader(Dataset):
    """Dataset of a loader: reads the chosen images in the loader's process.

    A batch is uint8 images, labels and, in training, draws.
    """

    def __init__(self, split: Split, crop: Crop | None) -> None:
        self.split, self.crop = split, crop if split.crops else None

    def __getitem__(self, chosen: Chosen) -> Batch:
        if chosen.draws is None:
            batch: Batch = self.split.read(chosen.indices)
        else:
            batch = *self.split.read(chosen.indices, chosen.draws, self.crop), chosen.draws
        if get_worker_info() is not None:
            share(batch)
        return batch


class Picked(NamedTuple):
    """Indices and draws of a batch whose split lives on the device; the images are gathered there."""

    split: str
    indices: Tensor
    draws: list[Tensor]


class Picker(Dataset):
    """Dataset of a loader for a split that lives on the device: passes the indices on and reads nothing."""

    def __init__(self, split: str) -> None:
        self.split = split

    def __getitem__(self, chosen: Chosen) -> Picked:
        return Picked(self.split, torch.tensor(chosen.indices), [] if chosen.draws is None else [chosen.draws])


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """Move a tensor to a device; the host waits for the copy only where Lightning lets it wait too."""
    return tensor.to(device, non_blocking=device.type not in ("cpu", "mps"))


def as_it_is(batch: Batch | Picked) -> Batch | Picked:
    """The batch of a reader: it consists of tensors, so that a loader need not look for something to convert."""
    return batch


class Batches(pl.LightningDataModule):
    """Batches of (images, labels): uint8 up to the device, there as floats of mean 0 and standard deviation 1.

    batch_size: images per optimizer step, over all devices and micro-batches together.
    workers: processes per rank that load images; "auto" gives none to a set in memory, else one per core of this rank,
    at most 8.
    room: bytes of the device. A set in memory that takes no more lives there as uint8, whole on each rank, and loaders
    only say which images come next.
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
        """Download, on one process per node, so that `setup` has all files."""
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
        """Number of optimizer steps in an epoch."""
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
        """Splits that are tensors, moved once, if there is room for all of them together; else none."""
        if self.resident is None:
            device = self.attached().strategy.root_device
            whole = {n: split for n, split in self.splits.items() if not split.crops and isinstance(split, Whole)}
            if sum(split.images.nbytes + split.labels.nbytes for split in whole.values()) > self.room:
                whole = {}
            for split in whole.values():
                if isinstance(split, Checkable):
                    split.check_all()
            self.resident = {
                n: InMemory(split.images.to(device), split.labels.to(device)) for n, split in whole.items()
            }
        return self.resident

    def workers_for(self, split: Split) -> int:
        """Number of processes that load the images of a split, for each rank."""
        if any(self.splits[name] is split for name in self.on_device()):
            return 0
        if isinstance(self.workers, int):
            return self.workers
        trainer = self.attached()
        shared = 1 if isinstance(environment_of(trainer), SLURMEnvironment) else trainer.num_devices
        return min(8, max(1, cores() // shared)) if split.slow else 0

    def check_shared_memory(self) -> None:
        """ValueError if the batches of the loaders do not fit into the shared memory of this machine."""
        trainer = self.attached()
        images = self.batch_size // (trainer.world_size * trainer.accumulate_grad_batches)
        shape = (self.source.in_chans, *self.source.img_size)
        workers = max(map(self.workers_for, self.splits.values()))
        refuse_small_shared_memory(workers, images, shape, trainer.num_devices)

    def loader(self, split: Split, order: Sampler[Chosen]) -> DataLoader:
        trainer = self.attached()
        picked = next((name for name in self.on_device() if self.splits[name] is split), None)
        workers = self.workers_for(split)
        return DataLoader(
            Picker(picked) if picked else Reader(split, self.augment.crop),
            batch_size=None,  # the sampler gives whole batches of indices
            sampler=order,
            num_workers=workers,
            persistent_workers=workers > 0,
            prefetch_factor=PREFETCH if workers else None,
            collate_fn=as_it_is,
            worker_init_fn=end_with_lost_batches,
            pin_memory=trainer.strategy.root_device.type == "cuda",
        )

    def transfer_batch_to_device(self, batch: Batch | Picked, device: torch.device, dataloader_idx: int) -> Batch:
        """Move images and labels. Draws stay on the host: it decides all randomness, without a wait for the device."""
        if isinstance(batch, Picked):
            return *self.on_device()[batch.split].read(sent(batch.indices, device)), *batch.draws
        images, labels, *draws = batch
        return sent(images, device), sent(labels, device), *draws

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
        return images.to(torch.float32, copy=True).sub_(mean).div_(std)  # in place: fresh memory costs more than sums

    def sample(self, count: int) -> Tensor:
        """`count` training images, evenly spaced over the split (all of a smaller split), normalised."""
        split = self.splits["train"]
        count = min(count, len(split))
        images, _ = split.read([i * len(split) // count for i in range(count)])
        return self.normalised(images)


def environment_of(trainer: pl.Trainer) -> ClusterEnvironment | None:
    """The starter of the ranks. The tasks of srun have cores of their own; other ranks of a node share its cores."""
    return getattr(trainer.strategy, "cluster_environment", None)


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
