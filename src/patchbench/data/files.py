"""Sets of pictures of any size: what the sets of the hub, of class folders, of archives and of torchvision share."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import UInt8
from torch import Tensor

from patchbench.checks import one_of, positive, size
from patchbench.data.pictures import ON_ERROR, Album, Pictures, Reading, channels
from patchbench.data.source import InMemory, Split, resize
from patchbench.data.splits import make_splits
from patchbench.data.statistics import check_statistics, statistics


class Contents(NamedTuple):
    """Images, labels and classes of a set, by the splits that it has: `train`, and perhaps `val` and `test`.

    albums: pictures, or all pixels as one array. labels: numbers of classes, one for each image.
    """

    albums: Mapping[str, Album | UInt8[Tensor, "n c h w"]]
    labels: Mapping[str, Sequence[int]]
    classes: Sequence[Any]


@dataclass(kw_only=True, eq=False)
class FileSet(ABC):
    """A source made of pictures. A set adds its own knobs and `open`; all that follows from the contents is done here.

    crop_pct, on_error: see `Reading`. val_size, test_size, train_fraction, train_size: see `make_splits`; a set whose
    files always have a test split goes without test_size. mirrors: an image and its mirror image have the same label;
    "auto" is for `open` to decide.
    mean, std: per channel, of pixels in 0 ... 1; None is measured on training images by `splits`.
    OSError, ValueError: no such set, or contents that do not fit the knobs.
    """

    img_size: int | Sequence[int]
    crop_pct: float
    val_size: int | float
    test_size: int | float | None = None
    train_fraction: float | None
    train_size: int | None
    mirrors: bool | Literal["auto"]
    mean: Sequence[float] | None
    std: Sequence[float] | None
    on_error: str

    @abstractmethod
    def open(self) -> Contents:
        """Find the images and read their labels, not their pixels."""

    def __post_init__(self) -> None:
        self.img_size = img_size = size("img_size", self.img_size)
        positive("crop_pct", self.crop_pct)
        one_of("on_error", self.on_error, ON_ERROR)
        self.albums, self.labels, self.classes = self.open()
        self.num_classes = len(self.classes)
        train = self.albums["train"]
        self.in_chans = train.shape[1] if isinstance(train, Tensor) else channels(train)
        if self.mirrors == "auto":
            raise ValueError("mirrors=auto is known for sets of torchvision only: use true or false")
        check_statistics(self.mean, self.std, self.in_chans)
        self.reading = Reading(img_size, self.in_chans, self.crop_pct, self.on_error)
        self.chosen = make_splits(
            self.labels,
            val_size=self.val_size,
            test_size=self.test_size,
            train_fraction=self.train_fraction,
            train_size=self.train_size,
        )

    def splits(self) -> dict[str, Split]:
        splits = {name: self.split(given, images) for name, (given, images) in self.chosen.items()}
        if not (self.mean and self.std):
            mean, std = statistics(splits["train"], self.in_chans)
            self.mean, self.std = self.mean or mean, self.std or std
        return splits

    def split(self, given: str, images: Sequence[int]) -> Split:
        """Some images of one of the set's own splits."""
        album, labels = self.albums[given], self.labels[given]
        if isinstance(album, Tensor):
            return InMemory(resize(album[images], self.reading.img_size).contiguous(), torch.tensor(labels)[images])
        return Pictures(album, labels, images, self.reading)
