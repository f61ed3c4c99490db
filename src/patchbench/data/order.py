"""The order of images in training and evaluation: a function of (seed, epoch), never of history."""

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Sampler

from patchbench.data.draws import train_draws


class BatchIndices(NamedTuple):
    """Numbers of the images of one batch; in training, with the draw of each image (see draws.py)."""

    indices: list[int]
    draws: Tensor | None = None


class TrainOrder(Sampler[BatchIndices]):
    """Sampler of the training batches of one rank, epoch after epoch.

    Epoch e visits the images in the permutation drawn from (seed, e), in steps of `batch_size` images. Each step is
    divided into `accumulate` micro-batches, and each micro-batch among the ranks. Images at the end that do not fill a
    step are left out of the epoch. With `repeats`, each image is shown that many times in a row, and an epoch has fewer
    different images (Hoffer et al., 2020). limit: maximum of steps per epoch. `position()` returns the number of
    micro-batches since the start of training. The epoch and the position in the epoch follow from this number: training
    resumes in the middle of an epoch without other state, and the steps are the same for any number of ranks,
    micro-batches and workers. ValueError if batch_size does not divide by the ranks times `accumulate`, or exceeds the
    number of images.
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
            raise ValueError(f"batch_size={batch_size} exceeds the {num_images} training images: use a smaller one")
        self.num_images, self.batch_size, self.seed, self.position = num_images, batch_size, seed, position
        self.rank, self.world_size, self.micro = rank, world_size, batch_size // shares
        self.repeats = repeats
        steps = num_images // batch_size
        self.length = accumulate * (steps if limit is None else min(steps, limit))

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[BatchIndices]:
        epoch, start = divmod(self.position(), self.length)
        generator = torch.Generator().manual_seed(hash((self.seed, epoch)) % 2**63)
        order = torch.randperm(self.num_images, generator=generator)
        firsts = (torch.arange(start, self.length) * self.world_size + self.rank) * self.micro
        places = firsts[:, None] + torch.arange(self.micro)  # of the whole epoch at once, which is faster
        images, draws = order[places // self.repeats], train_draws(self.seed, epoch, places)
        for batch in range(len(places)):
            yield BatchIndices(images[batch].tolist(), draws[batch])


class EvalOrder(Sampler[BatchIndices]):
    """Sampler of the evaluation batches of one rank: image i goes to rank i % world_size, and no image comes twice.

    The numbers of images per rank differ by one at most. All ranks have the same number of batches, because the ranks
    of a sharded network wait for each other in every batch: if one rank needs one more batch, the others halve their
    last batch. limit: maximum number of batches.
    """

    def __init__(self, num_images: int, *, batch_size: int, rank: int, world_size: int, limit: int | None) -> None:
        indices = list(range(rank, num_images, world_size))
        if world_size > 1:
            batch_size = max(2, batch_size)  # one image cannot be halved
        batches = [indices[i : i + batch_size] for i in range(0, len(indices), batch_size)]
        if len(batches) < math.ceil(math.ceil(num_images / world_size) / batch_size):
            batches[-1:] = [batches[-1][: batch_size // 2], batches[-1][batch_size // 2 :]]
        self.batches = [BatchIndices(batch) for batch in batches[:limit]]

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[BatchIndices]:
        return iter(self.batches)
