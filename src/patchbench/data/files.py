"""Sets of pictures of any size: what the sets of the hub, of class folders, of archives and of torchvision share."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import UInt8
from torch import Tensor
from torchvision.transforms import v2

from patchbench.checks import one_of, positive, size
from patchbench.data.bands import Ranges
from patchbench.data.pictures import MAX_DECODED, ON_ERROR, Album, Pictures, Reading
from patchbench.data.source import InMemory, Split, resize
from patchbench.data.splits import make_splits
from patchbench.data.statistics import check_statistics, statistics
from patchbench.data.survey import Survey, measured_ranges, survey
from patchbench.machine import printable

OTHERS = 32  # pictures of each other split whose headers are compared with those of training
FEW_LEVELS = 64  # of 256, in which pictures of 16 bits read by their upper 8 have lost too much


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

    crop_pct, on_error, max_skipped, max_decoded: see `Reading`; None allows MAX_DECODED. val_size, test_size,
    train_fraction, train_size: see `make_splits`; a set whose files always have a test split goes without test_size.
    mirrors: an image and its mirror image have the same label; "auto" is for `open` to decide.
    channels: 1 makes pictures grey and 3 makes them RGB; any other number is that of their bands. "auto" takes that of
    the pictures. range: values that become black and white in pictures of more than 8 bits, a pair for all bands or one
    for each. mean, std: per channel, of pixels in 0 ... 1. Those of these three that are None are measured on training
    images by `splits`.
    classes: names of the classes in the order of their numbers, which may be more than the set has; None takes those of
    the training images. remarks: what whoever trains on the set should know.
    OSError, ValueError: no such set, or contents that do not fit the knobs.
    """

    img_size: int | Sequence[int]
    crop_pct: float
    val_size: int | float
    test_size: int | float | None = None
    train_fraction: float | None
    train_size: int | None
    mirrors: bool | Literal["auto"]
    channels: object  # a number or auto
    range: object  # a pair of numbers, a list of pairs, or None
    classes: Sequence[Any] | None
    mean: Sequence[float] | None
    std: Sequence[float] | None
    on_error: str
    max_skipped: int | float
    max_decoded: int | float | None

    @abstractmethod
    def open(self) -> Contents:
        """Find the images and read their labels, not their pixels."""

    def __post_init__(self) -> None:
        self.img_size = img_size = size("img_size", self.img_size)
        positive("crop_pct", self.crop_pct)
        one_of("on_error", self.on_error, ON_ERROR)
        if isinstance(self.max_skipped, bool) or not 0 < self.max_skipped <= 1:
            raise ValueError(
                f"max_skipped={self.max_skipped} must be above 0 and at most 1, the share of a split that may be "
                "skipped: on_error=raise skips nothing"
            )
        self.max_decoded = most = MAX_DECODED if self.max_decoded is None else self.max_decoded
        positive("max_decoded", most, otherwise=f"null for {MAX_DECODED} MiB")
        wanted = check_channels(self.channels)
        self.ranges = check_range(self.range)
        self.remarks: list[str] = []
        given = self.classes
        self.albums, self.labels, self.classes = self.open()
        self.num_classes = len(self.classes)
        if self.num_classes == 1:
            self.remarks.append(f"there is one class only, {printable(str(self.classes[0]))}: every answer is right")
        if given is not None and (there := len({*self.labels["train"]})) < len(given):
            self.remarks.append(f"{there} of the {len(given)} classes are in these images; answers may be any of all")
        train = self.albums["train"]
        self.survey = in_memory(train, wanted) if isinstance(train, Tensor) else self.surveyed(train, wanted, most)
        self.in_chans = self.channels = self.survey.channels
        if self.mirrors == "auto":
            raise ValueError("mirrors=auto is known for sets of torchvision only: use true or false")
        check_statistics(self.mean, self.std, self.in_chans)
        self.reading = Reading(
            img_size,
            self.in_chans,
            self.crop_pct,
            self.on_error,
            self.max_skipped,
            most,
            grey=wanted is None and self.in_chans == 1,
        )
        self.chosen = make_splits(
            self.labels,
            val_size=self.val_size,
            test_size=self.test_size,
            train_fraction=self.train_fraction,
            train_size=self.train_size,
            classes=self.classes,
        )

    def surveyed(self, train: Album, wanted: int | None, most: int | float) -> Survey:
        """Look at some training pictures, and remark on those whose reading is not a matter of course.

        most: MiB that a picture may take once it is decoded.
        """
        ranged = self.ranges is not None
        found = survey(train, wanted, ranged=ranged, max_decoded=most)
        for name in self.labels.keys() - {"train"}:
            album: Any = self.albums[name]
            other = survey(album, found.channels, ranged=ranged, max_decoded=most, headers=OTHERS)
            if {other.deep, found.deep} == {True, False} and not ranged:
                raise ValueError(
                    f"pictures of {'train' if found.deep else name} have more than 8 bits, those of "
                    f"{name if found.deep else 'train'} have 8: save all alike, or set data.range=[low,high], the "
                    "values of the former that become black and white"
                )
        if self.ranges and not found.deep:
            self.remarks.append("data.range is not read: these pictures have 8 bits, of which 0 is black, 255 is white")
        if found.animated:
            self.remarks.append("some pictures are animated: the first of their frames is read, no other")
        if found.transparent:
            self.remarks.append(
                "some pictures have an alpha channel: what is transparent becomes white; alpha that is one value all "
                "over is left out"
            )
        return found

    def splits(self) -> dict[str, Split]:
        _, images = self.chosen["train"]
        if self.survey.deep and self.ranges is None:
            train: Any = self.albums["train"]
            self.ranges, doubt = measured_ranges(train, images, self.in_chans, self.reading.max_decoded)
            self.range = [list(each) for each in self.ranges]
            spans = ", ".join(f"{low:g} to {high:g}" for low, high in self.ranges[:3])
            more = f", ... ({len(self.ranges)} bands)" if len(self.ranges) > 3 else ""
            self.remarks.append(f"values from {spans}{more} become black to white: data.range, as measured")
            self.remarks += [doubt] if doubt else []
        self.reading = replace(self.reading, ranges=self.ranges)
        splits = {name: self.split(name, given, images) for name, (given, images) in self.chosen.items()}
        if self.survey.halved or not (self.mean and self.std):
            mean, std, highest = statistics(splits["train"], self.in_chans)
            if self.survey.halved and highest < FEW_LEVELS:
                raise ValueError(
                    f"pictures in colour of 16 bits are read by their upper 8, and these reach {highest} of 255 only: "
                    "save them with 8 bits, or as arrays (.npy, H x W x C), whose range is measured"
                )
            self.mean, self.std = self.mean or mean, self.std or std
        return splits

    def split(self, name: str, given: str, images: Sequence[int]) -> Split:
        """Some images of one of the set's own splits. name: of the split that they make."""
        album, labels = self.albums[given], self.labels[given]
        if isinstance(album, Tensor):
            pixels = resize(album[images], self.reading.img_size)
            if pixels.shape[1] != self.in_chans:
                grey = self.in_chans == 1
                pixels = v2.functional.rgb_to_grayscale(pixels) if grey else pixels.expand(-1, self.in_chans, -1, -1)
            return InMemory(pixels.contiguous(), torch.tensor(labels)[images])
        return Pictures(album, labels, images, self.reading, split=name, classes=self.classes or ())


def check_channels(channels: Any) -> int | None:
    """The number of channels asked for, None for that of the pictures. ValueError if it is no number."""
    if channels == "auto":
        return None
    if isinstance(channels, bool) or not isinstance(channels, int) or channels < 1:
        raise ValueError(f"channels={channels} must be auto or a number of channels: 1 for grey, 3 for RGB")
    return channels


def check_range(given: Any) -> Ranges | None:
    """Pairs of values, one for all bands or one for each; None where they are to be measured. ValueError if others."""
    if given is None:
        return None
    try:
        pairs = [(float(low), float(high)) for low, high in ([given] if isinstance(given[0], int | float) else given)]
        if pairs and all(low <= high for low, high in pairs):
            return pairs
    except (TypeError, ValueError, IndexError, KeyError):
        pass
    raise ValueError(f"range={given} must be [low,high], or such a pair for each band, or null to measure it")


def in_memory(images: UInt8[Tensor, "n c h w"], wanted: int | None) -> Survey:
    """Facts of a set that is one array. ValueError: it has other channels than are asked for."""
    there = images.shape[1]
    if wanted not in (None, there) and {wanted, there} != {1, 3}:
        raise ValueError(f"channels={wanted}: these images have {there}: leave it out")
    return Survey(wanted or there, deep=False, transparent=False, halved=False, animated=False)
