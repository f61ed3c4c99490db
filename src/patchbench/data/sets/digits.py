"""Handwritten digits that come with scikit-learn (Alpaydin & Kaynak, 1998): real images without a download."""

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch

from patchbench.checks import size
from patchbench.data.source import InMemory, resize
from patchbench.data.splits import parts


class Digits:
    """1,797 images of 8x8 pixels, 17 levels of grey, scaled to `img_size` and repeated over three channels."""

    in_chans = 3
    mirrors = False
    num_classes = 10
    mean = (0.309, 0.309, 0.309)  # of the training images at 64 pixels
    std = (0.350, 0.350, 0.350)

    def __init__(
        self,
        *,
        img_size: int | Sequence[int],
        val_size: int,
        test_size: int,
        train_fraction: float | None,
        train_size: int | None,
    ) -> None:
        self.img_size = size("data.img_size", img_size)
        self.choose = partial(
            parts, val_size=val_size, test_size=test_size, train_fraction=train_fraction, train_size=train_size
        )

    def splits(self) -> dict[str, InMemory]:
        from sklearn.datasets import load_digits

        digits = load_digits()
        grey = torch.from_numpy(np.rint(digits.images * (255 / 16)).astype(np.uint8))
        images = resize(grey[:, None], self.img_size).repeat(1, self.in_chans, 1, 1)
        labels = torch.from_numpy(digits.target)
        chosen = self.choose({"train": labels.tolist()})
        return {name: InMemory(images[indices], labels[indices]) for name, (_, indices) in chosen.items()}
