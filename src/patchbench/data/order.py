"""The order in which images come: a function of (seed, epoch), never of history."""

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Sampler

from patchbench.data.draws import train_draws


class Chosen(NamedTuple):
    """Images of one batch; in training, each with its draw."""

    indices: list[int]
    draws: Tensor | None = None


class TrainOrder(Sampler[Chosen]):
    """Batches of one rank, epoch after epoch.

    Epoch e visits the images in the permutation drawn from (seed, e), in steps of `batch_size` images. Each step is cut
    into `accumulate` micro-batches, and each micro-batch among the ranks. The last images, fewer than a step, are left
    to other epochs. With `repeats`, one image is shown so many times in a row, and an epoch has fewer images (Hoffer et
    al., 2020). `position()` is the number of micro-batches taken since the start of training. Epoch and place follow
    from that number alone: training resumes in the middle of an epoch with no other state, and any number of ranks,
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
        shares = world_size * accumulate
        if batch_size % shares:
            raise ValueError(
                f"batch_size={batch_size} does not divide among {world_size} devices times "
                f"trainer.accumulate={accumulate}: use a multiple of {shares}"
            )
        if batch_size > num_images:
            raise ValueError(f"batch_size={batch_size} exceeds the {num_images} training images: use no more than that")
        self.num_images, self.batch_size, self.seed, self.position = num_images, batch_size, seed, position
        self.rank, self.world_size, self.micro = rank, world_size, batch_size // shares
        self.repeats = repeats
        steps = num_images // batch_size
        self.length = accumulate * (steps if limit is None else min(steps, limit))

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[Chosen]:
        epoch, start = divmod(self.position(), self.length)
        generator = torch.Generator().manual_seed(hash((self.seed, epoch)) % 2**63)
        order = torch.randperm(self.num_images, generator=generator)
        firsts = (torch.arange(start, self.length) * self.world_size + self.rank) * self.micro
        places = firsts[:, None] + torch.arange(self.micro)  # of the whole epoch: it takes less time
        images, draws = order[places // self.repeats], train_draws(self.seed, epoch, places)
        for batch in range(len(places)):
            yield Chosen(images[batch].tolist(), draws[batch])


class EvalOrder(Sampler[Chosen]):
    """Every image once, in order, strided over the ranks: no image is padded, none counted twice.

    Shares differ by one image at most. All ranks have equally many batches, because the ranks of a sharded network wait
    for each other in every batch: if one rank needs a batch more, the others halve their last batch.
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
