"""Digits with the labels of some training images replaced: an effect whose cause is known."""

import torch
from torch import Tensor

from patchbench.data.sets.digits import Digits
from patchbench.data.source import InMemory

SHARE = 0.05


class Mislabelled:
    """Digits but for the labels of SHARE of the training split, each raised by one."""

    def __init__(self, digits: Digits) -> None:
        self.digits = digits

    def __getattr__(self, name: str) -> object:
        return getattr(self.digits, name)

    def splits(self) -> dict[str, InMemory]:
        splits = self.digits.splits()
        train = splits["train"]
        wrong: Tensor = torch.arange(len(train)) % round(1 / SHARE) == 0
        splits["train"] = InMemory(train.images, torch.where(wrong, (train.labels + 1) % 10, train.labels))
        return splits


def mislabelled(**knobs: object) -> Mislabelled:
    return Mislabelled(Digits(**knobs))  # type: ignore[arg-type]
