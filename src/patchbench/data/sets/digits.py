"""Handwritten digits that come with scikit-learn (Alpaydin & Kaynak, 1998): real images without a download."""

from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
from jaxtyping import Int, UInt8
from torch import Tensor

from patchbench.checks import size
from patchbench.data.source import InMemory, resize
from patchbench.data.splits import make_splits


class Digits:
    """1,797 images of 8x8 pixels with 17 levels of grey, scaled to `img_size` and repeated over the channels.

    channels: 1 or 3. With three equal channels a patch has 3 P^2 values but rank P^2; with one channel any basis of k
    coefficients keeps k independent numbers.
    """

    mirrors = False
    num_classes = 10

    def __init__(
        self,
        *,
        img_size: int | Sequence[int],
        channels: int,
        val_size: int,
        test_size: int,
        train_fraction: float | None,
        train_size: int | None,
    ) -> None:
        if channels not in (1, 3):
            raise ValueError(f"channels={channels} must be 1, or 3 for equal red, green and blue")
        self.img_size, self.in_chans, self.channels = size("img_size", img_size), channels, channels
        self.mean, self.std = [0.309] * channels, [0.350] * channels  # of the training images at 64 pixels
        self.split_indices = make_splits(
            {"train": digits()[1].tolist()},
            val_size=val_size,
            test_size=test_size,
            train_fraction=train_fraction,
            train_size=train_size,
        )

    def splits(self) -> dict[str, InMemory]:
        grey, labels = digits()
        images = resize(grey, self.img_size).repeat(1, self.in_chans, 1, 1)
        return {name: InMemory(images[indices], labels[indices]) for name, (_, indices) in self.split_indices.items()}


@cache
def digits() -> tuple[UInt8[Tensor, "n 1 8 8"], Int[Tensor, " n"]]:
    """Return images and labels; each process reads them once."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = np.rint(bunch.images * (255 / 16)).astype(np.uint8)
    return torch.from_numpy(images)[:, None], torch.from_numpy(bunch.target)
