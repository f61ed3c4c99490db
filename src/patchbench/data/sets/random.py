"""Random pixels and labels, to run a network and its input pipeline without a data set."""

from collections.abc import Sequence

import torch

from patchbench.checks import at_least, size
from patchbench.data.source import InMemory


class Random:
    """Uniform pixels and labels, the same for every seed. Nothing can be learnt from them."""

    mirrors = True

    def __init__(
        self, *, img_size: int | Sequence[int], in_chans: int, num_classes: int, train_size: int, eval_size: int
    ) -> None:
        at_least(1, in_chans=in_chans, num_classes=num_classes, train_size=train_size, eval_size=eval_size)
        self.img_size, self.in_chans, self.num_classes = size("img_size", img_size), in_chans, num_classes
        self.mean, self.std = [0.5] * in_chans, [12**-0.5] * in_chans
        self.sizes = {"train": train_size, "val": eval_size, "test": eval_size}

    def splits(self) -> dict[str, InMemory]:
        generator = torch.Generator().manual_seed(0)
        return {
            name: InMemory(
                torch.randint(256, (n, self.in_chans, *self.img_size), dtype=torch.uint8, generator=generator),
                torch.randint(self.num_classes, (n,), generator=generator),
            )
            for name, n in self.sizes.items()
        }
