"""Batches of a data set, read by DataLoaders and moved to the device."""

from typing import Any, Literal, NamedTuple

import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.environments import ClusterEnvironment, SLURMEnvironment
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, get_worker_info

from patchbench.data.augment.chain import Augment
from patchbench.data.hand_over import PREFETCH, exit_on_lost_batch, require_shared_memory, share
from patchbench.data.order import BatchIndices, EvalOrder, TrainOrder
from patchbench.data.source import Batch, Checkable, Crop, InMemory, Source, Split, TensorSplit
from patchbench.machine import cores


class Reader(Dataset):
    """Dataset of a DataLoader that reads whole batches in the worker process.

    A batch is uint8 images, labels and, in training, draws.
    """

    def __init__(self, split: Split, crop: Crop | None) -> None:
        self.split, self.crop = split, crop if split.crops else None

    def __getitem__(self, chosen: BatchIndices) -> Batch:
        if chosen.draws is None:
            batch: Batch = self.split.read(chosen.indices)
        else:
            batch = *self.split.read(chosen.indices, chosen.draws, self.crop), chosen.draws
        if get_worker_info() is not None:
            share(batch)
        return batch


class ResidentBatch(NamedTuple):
    """Indices and draws of a batch of a split that is stored on the device; the images are selected on the device."""

    split: str
    indices: Tensor
    draws: list[Tensor]


class IndexReader(Dataset):
    """Dataset of a DataLoader for a split that is stored on the device: it returns indices and reads no images."""

    def __init__(self, split: str) -> None:
        self.split = split

    def __getitem__(self, chosen: BatchIndices) -> ResidentBatch:
        return ResidentBatch(self.split, torch.tensor(chosen.indices), [] if chosen.draws is None else [chosen.draws])


def moved(tensor: Tensor, device: torch.device) -> Tensor:
    """Move a tensor to a device; the host waits for the copy only on devices for which Lightning lets it wait."""
    return tensor.to(device, non_blocking=device.type not in ("cpu", "mps"))


def as_it_is(batch: Any) -> Any:
    """Return the batch of a reader: it consists of tensors, so the loader need not look for values to convert."""
    return batch


class Batches(pl.LightningDataModule):
    """Data module of batches (images, labels), uint8 until they are on the device, then normalised floats.

    batch_size: images per optimizer step, summed over all devices and micro-batches.
    workers: worker processes per rank; "auto" means none for a set in memory, else one per core of this rank, at most
    8. limit: optimizer steps per epoch, and as many batches in evaluation; None for all.
    resident_bytes: bytes of device memory for a set in memory. A set that fits is stored on each device as uint8, and
    the DataLoaders return indices only.
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
        resident_bytes: int,
    ) -> None:
        super().__init__()
        self.source, self.augment, self.batch_size, self.seed = source, augment, batch_size, seed
        self.workers, self.limit, self.resident_bytes = workers, limit, resident_bytes
        self.splits: dict[str, Split] = {}
        self.resident: dict[str, InMemory] | None = None
        self.scale: Tensor | None = None

    def prepare_data(self) -> None:
        """Download the data set in one process per node, before `setup` in all processes."""
        self.setup("")

    def setup(self, stage: str) -> None:
        if not self.splits:
            self.splits = self.source.splits()

    def attached_trainer(self) -> pl.Trainer:
        assert self.trainer is not None, "DataLoaders depend on the devices: attach the data module to a Trainer first"
        return self.trainer

    def train_order(self) -> TrainOrder:
        trainer = self.attached_trainer()
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
        """Return the number of optimizer steps in an epoch."""
        return len(self.train_order()) // self.attached_trainer().accumulate_grad_batches

    def train_dataloader(self) -> DataLoader:
        return self.loader(self.splits["train"], self.train_order())

    def val_dataloader(self) -> DataLoader:
        return self.eval_dataloader(self.splits["val"])

    def test_dataloader(self) -> DataLoader:
        return self.eval_dataloader(self.splits["test"])

    def eval_dataloader(self, split: Split) -> DataLoader:
        rank, world_size = self.attached_trainer().global_rank, self.attached_trainer().world_size
        count = len(split)
        if count < world_size:
            raise ValueError(f"{count} images to evaluate cannot be shared among {world_size} devices")
        accumulate = self.attached_trainer().accumulate_grad_batches  # evaluation uses the micro-batches of training
        batch_size = max(1, self.batch_size // (world_size * accumulate))
        limit = None if self.limit is None else self.limit * accumulate
        order = EvalOrder(count, batch_size=batch_size, rank=rank, world_size=world_size, limit=limit)
        return self.loader(split, order)

    def resident_splits(self) -> dict[str, InMemory]:
        """Return the splits stored on the device: all splits in memory if they fit together, otherwise none.

        They are moved to the device at the first call.
        """
        if self.resident is None:
            device = self.attached_trainer().strategy.root_device
            tensors = {
                n: split for n, split in self.splits.items() if not split.crops and isinstance(split, TensorSplit)
            }
            if sum(split.images.nbytes + split.labels.nbytes for split in tensors.values()) > self.resident_bytes:
                tensors = {}
            for split in tensors.values():
                if isinstance(split, Checkable):
                    split.check_all()
            self.resident = {
                n: InMemory(split.images.to(device), split.labels.to(device)) for n, split in tensors.items()
            }
        return self.resident

    def workers_for(self, split: Split) -> int:
        """Return the number of worker processes per rank for a split."""
        if any(self.splits[name] is split for name in self.resident_splits()):
            return 0
        if isinstance(self.workers, int):
            return self.workers
        trainer = self.attached_trainer()
        shared = 1 if isinstance(environment_of(trainer), SLURMEnvironment) else trainer.num_devices
        return min(8, max(1, cores() // shared)) if split.slow else 0

    def check_shared_memory(self) -> None:
        """Raise ValueError if the batches of the workers do not fit into the shared memory of this machine."""
        trainer = self.attached_trainer()
        images = self.batch_size // (trainer.world_size * trainer.accumulate_grad_batches)
        shape = (self.source.in_chans, *self.source.img_size)
        workers = max(map(self.workers_for, self.splits.values()))
        require_shared_memory(workers, images, shape, trainer.num_devices)

    def loader(self, split: Split, order: Sampler[BatchIndices]) -> DataLoader:
        trainer = self.attached_trainer()
        resident = next((name for name in self.resident_splits() if self.splits[name] is split), None)
        workers = self.workers_for(split)
        return DataLoader(
            IndexReader(resident) if resident else Reader(split, self.augment.crop),
            batch_size=None,  # the sampler gives whole batches of indices
            sampler=order,
            num_workers=workers,
            persistent_workers=workers > 0,
            prefetch_factor=PREFETCH if workers else None,
            collate_fn=as_it_is,
            worker_init_fn=exit_on_lost_batch,
            pin_memory=trainer.strategy.root_device.type == "cuda",
        )

    def transfer_batch_to_device(
        self, batch: Batch | ResidentBatch, device: torch.device, dataloader_idx: int
    ) -> Batch:
        """Move images and labels. Draws stay on the host, which computes all random numbers without a device sync."""
        if isinstance(batch, ResidentBatch):
            return *self.resident_splits()[batch.split].read(moved(batch.indices, device)), *batch.draws
        images, labels, *draws = batch
        return moved(images, device), moved(labels, device), *draws

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        images, labels, *draws = batch
        if not draws:
            return self.normalised(images), labels
        images = self.augment.images(images, *draws, cropped=self.splits["train"].crops)
        return self.augment.mixed(self.normalised(images), labels, *draws)

    def normalised(self, images: Tensor) -> Tensor:
        if self.scale is None or self.scale.device != images.device:  # copied once, as each copy waits for the device
            self.scale = torch.tensor([self.source.mean, self.source.std], device=images.device)[..., None, None] * 255
        mean, std = self.scale
        return (images - mean).div_(std)  # in place: fresh memory costs more than the division

    def sample(self, count: int) -> Tensor:
        """Return at most `count` training images, evenly spaced over the split, normalised."""
        split = self.splits["train"]
        count = min(count, len(split))
        images, _ = split.read([i * len(split) // count for i in range(count)])
        return self.normalised(images)


def environment_of(trainer: pl.Trainer) -> ClusterEnvironment | None:
    """Return the cluster environment that started the ranks, or None.

    Tasks of srun have their own cores; ranks that are started in another way share the cores of the node.
    """
    return getattr(trainer.strategy, "cluster_environment", None)


class OneSplit(pl.LightningDataModule):
    """Data module to predict one split, read and normalised by `data`, which is attached to a trainer."""

    def __init__(self, data: Batches, split: Split) -> None:
        super().__init__()
        self.data, self.split = data, split

    def predict_dataloader(self) -> DataLoader:
        return self.data.eval_dataloader(self.split)

    def transfer_batch_to_device(
        self, batch: Batch | ResidentBatch, device: torch.device, dataloader_idx: int
    ) -> Batch:
        return self.data.transfer_batch_to_device(batch, device, dataloader_idx)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        return self.data.on_after_batch_transfer(batch, dataloader_idx)
