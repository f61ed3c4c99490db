"""CIFAR-10 and CIFAR-100 (Krizhevsky, 2009), read by torchvision."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torchvision.datasets import CIFAR10, CIFAR100

from patchbench.data.source import InMemory, held_out, resize
from patchbench.layout import size


class Cifar:
    """50,000 training images, of which `val_size` are held out, and 10,000 to test. OSError where there are none."""

    in_chans = 3
    mirrors = True

    def __init__(self, *, num_classes: int, img_size: int | Sequence[int], val_size: int, root: str) -> None:
        self.dataset = {10: CIFAR10, 100: CIFAR100}[num_classes]
        self.num_classes, self.img_size = num_classes, size("data.img_size", img_size)
        self.val_size, self.root = val_size, Path(root)
        self.mean, self.std = (0.491, 0.482, 0.447), (0.247, 0.243, 0.262)  # of CIFAR-10; CIFAR-100 is within 0.02

    def splits(self) -> dict[str, InMemory]:
        train, test = self.read(train=True), self.read(train=False)
        stay, out = held_out(train.labels.tolist(), self.val_size, "data.val_size")
        return {"train": InMemory(*train.read(stay)), "val": InMemory(*train.read(out)), "test": test}

    def read(self, *, train: bool) -> InMemory:
        try:
            cifar = self.dataset(str(self.root), train=train, download=True)
        except (OSError, RuntimeError) as error:  # no network; or what came, or lay there, fails its checksum
            archive = self.dataset.url.rsplit("/")[-1]
            raise OSError(
                f"data=cifar{self.num_classes} is not in data_dir={self.root} and could not be downloaded ({error}): "
                f"connect to the network once, put {archive} there by hand, or use data=digits"
            ) from error
        images = torch.from_numpy(cifar.data).permute(0, 3, 1, 2)
        return InMemory(resize(images, self.img_size).contiguous(), torch.tensor(cifar.targets))
