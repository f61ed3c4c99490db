"""Handwritten digits that come with scikit-learn (Alpaydin & Kaynak, 1998): real images without a download."""

from collections.abc import Sequence

import numpy as np
import torch

from patchbench.data.source import InMemory, held_out, resize
from patchbench.layout import size


class Digits:
    """1,797 images of 8x8 pixels, 17 levels of grey, scaled to `img_size` and repeated over three channels."""

    in_chans = 3
    mirrors = False
    num_classes = 10
    mean = (0.309, 0.309, 0.309)  # of the training images at 64 pixels
    std = (0.350, 0.350, 0.350)

    def __init__(self, *, img_size: int | Sequence[int], val_size: int, test_size: int) -> None:
        self.img_size = size("data.img_size", img_size)
        self.val_size, self.test_size = val_size, test_size

    def splits(self) -> dict[str, InMemory]:
        from sklearn.datasets import load_digits

        digits = load_digits()
        grey = torch.from_numpy(np.rint(digits.images * (255 / 16)).astype(np.uint8))
        images = resize(grey[:, None], self.img_size).repeat(1, self.in_chans, 1, 1)
        labels = torch.from_numpy(digits.target)
        rest, test = held_out(labels.tolist(), self.test_size, "data.test_size")
        train, val = held_out(labels[rest].tolist(), self.val_size, "data.val_size")
        chosen = {"train": [rest[i] for i in train], "val": [rest[i] for i in val], "test": test}
        return {name: InMemory(images[indices], labels[indices]) for name, indices in chosen.items()}
