"""Sets of pictures of any size: the common part of `hf`, `imagefolder`, `shards` and `torchvision`."""

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
from patchbench.data.pictures import MAX_DECODED, ON_ERROR, Album, Pictures, ReadSettings
from patchbench.data.source import InMemory, Split, resize
from patchbench.data.splits import make_splits
from patchbench.data.statistics import check_statistics, statistics
from patchbench.data.survey import Survey, measure_ranges, survey
from patchbench.machine import printable

OTHER_HEADERS = 32  # number of headers read from each other split, to compare with the training split
FEW_LEVELS = 64  # of 256: 16-bit pictures that use fewer levels of the upper 8 bits have lost too much


class Contents(NamedTuple):
    """Images, labels and classes of a data set. Keys are its splits: `train`, and perhaps `val` and `test`.

    albums: pictures, or all pixels as one array. labels: the number of the class of each image.
    """

    albums: Mapping[str, Album | UInt8[Tensor, "n c h w"]]
    labels: Mapping[str, Sequence[int]]
    classes: Sequence[Any]


@dataclass(kw_only=True, eq=False)
class FileSet(ABC):
    """A source made of pictures. A subclass adds its own knobs and `open`; this class does the rest.

    crop_pct, on_error, max_skipped, max_decoded: see `ReadSettings`; max_decoded=None means MAX_DECODED. val_size,
    test_size, train_fraction, train_size: see `make_splits`; a set that always has a test split needs no test_size.
    mirrors: an image and its mirror image have the same label; "auto" leaves the decision to `open`.
    channels: 1 makes pictures grey and 3 makes them RGB; another number is the number of their bands. "auto" takes the
    channels of the pictures. range: values that become black and white in pictures of more than 8 bits, one pair for
    all bands or one for each band. mean, std: per channel, of pixels in 0 ... 1. If range, mean or std is None,
    `splits` measures it on training images.
    classes: names of the classes in the order of their numbers; the set may lack some. None takes the classes of the
    training images. remarks: sentences about the set, printed before training.
    OSError, ValueError: there is no such set, or its contents do not fit the knobs.
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
        """Find the images and read their labels, but not their pixels."""

    def __post_init__(self) -> None:
        self.img_size = img_size = size("img_size", self.img_size)
        positive("crop_pct", self.crop_pct)
        one_of("on_error", self.on_error, ON_ERROR)
        if isinstance(self.max_skipped, bool) or not 0 < self.max_skipped <= 1:
            raise ValueError(
                f"max_skipped={self.max_skipped} must be above 0 and at most 1, the share of a split that may be "
                "skipped: use on_error=raise to skip nothing"
            )
        self.max_decoded = max_decoded = MAX_DECODED if self.max_decoded is None else self.max_decoded
        positive("max_decoded", max_decoded, otherwise=f"null for {MAX_DECODED} MiB")
        wanted = check_channels(self.channels)
        self.ranges = check_range(self.range)
        self.remarks: list[str] = []
        given = self.classes
        self.albums, self.labels, self.classes = self.open()
        self.num_classes = len(self.classes)
        if self.num_classes == 1:
            self.remarks.append(
                f"there is only one class, {printable(str(self.classes[0]))}: every prediction is right"
            )
        if given is not None and (present := len({*self.labels["train"]})) < len(given):
            self.remarks.append(
                f"{present} of the {len(given)} classes are in these images; the network still predicts any of all"
            )
        train = self.albums["train"]
        self.survey = (
            array_survey(train, wanted)
            if isinstance(train, Tensor)
            else self.survey_pictures(train, wanted, max_decoded)
        )
        self.in_chans = self.channels = self.survey.channels
        if self.mirrors == "auto":
            raise ValueError("mirrors=auto works for sets of torchvision only: use true or false")
        check_statistics(self.mean, self.std, self.in_chans)
        self.settings = ReadSettings(
            img_size,
            self.in_chans,
            self.crop_pct,
            self.on_error,
            self.max_skipped,
            max_decoded,
            grey=wanted is None and self.in_chans == 1,
        )
        self.split_indices = make_splits(
            self.labels,
            val_size=self.val_size,
            test_size=self.test_size,
            train_fraction=self.train_fraction,
            train_size=self.train_size,
            classes=self.classes,
        )

    def survey_pictures(self, train: Album, wanted: int | None, max_decoded: int | float) -> Survey:
        """Survey some pictures of each split, and add remarks on the ones that need care.

        max_decoded: MiB that a picture may take once it is decoded. ValueError if the splits do not fit together.
        """
        has_range = self.ranges is not None
        train_survey = survey(train, wanted, has_range=has_range, max_decoded=max_decoded)
        for name in self.labels.keys() - {"train"}:
            album: Any = self.albums[name]
            other_survey = survey(
                album, train_survey.channels, has_range=has_range, max_decoded=max_decoded, headers=OTHER_HEADERS
            )
            if {other_survey.high_depth, train_survey.high_depth} == {True, False} and not has_range:
                raise ValueError(
                    f"pictures of {'train' if train_survey.high_depth else name} have more than 8 bits, those of "
                    f"{name if train_survey.high_depth else 'train'} have 8: save all alike, or set "
                    "data.range=[low,high], the values of the former that become black and white"
                )
        if self.ranges and not train_survey.high_depth:
            self.remarks.append("data.range is not used: these pictures have 8 bits, where 0 is black and 255 is white")
        if train_survey.animated:
            self.remarks.append("some pictures are animated: only their first frame is read")
        if train_survey.transparent:
            self.remarks.append(
                "some pictures have an alpha channel: transparent parts become white; alpha that is the same "
                "everywhere is ignored"
            )
        return train_survey

    def splits(self) -> dict[str, Split]:
        _, images = self.split_indices["train"]
        if self.survey.high_depth and self.ranges is None:
            train: Any = self.albums["train"]
            self.ranges, doubt = measure_ranges(train, images, self.in_chans, self.settings.max_decoded)
            self.range = [list(each) for each in self.ranges]
            spans = ", ".join(f"{low:g} to {high:g}" for low, high in self.ranges[:3])
            more = f", ... ({len(self.ranges)} bands)" if len(self.ranges) > 3 else ""
            self.remarks.append(f"values from {spans}{more} become black to white: data.range as measured")
            self.remarks += [doubt] if doubt else []
        self.settings = replace(self.settings, ranges=self.ranges)
        splits = {name: self.split(name, stored, images) for name, (stored, images) in self.split_indices.items()}
        if self.survey.truncated or not (self.mean and self.std):
            mean, std, highest = statistics(splits["train"], self.in_chans)
            if self.survey.truncated and highest < FEW_LEVELS:
                raise ValueError(
                    f"of colour pictures with 16 bits only the upper 8 bits are read, and these reach {highest} of 255 "
                    "only: save the pictures with 8 bits, or as arrays (.npy, H x W x C), whose range is measured"
                )
            self.mean, self.std = self.mean or mean, self.std or std
        return splits

    def split(self, name: str, stored: str, images: Sequence[int]) -> Split:
        """Make the split `name` of some images of `stored`, a split that the data set itself has."""
        album, labels = self.albums[stored], self.labels[stored]
        if isinstance(album, Tensor):
            pixels = resize(album[images], self.settings.img_size)
            if pixels.shape[1] != self.in_chans:
                grey = self.in_chans == 1
                pixels = v2.functional.rgb_to_grayscale(pixels) if grey else pixels.expand(-1, self.in_chans, -1, -1)
            return InMemory(pixels.contiguous(), torch.tensor(labels)[images])
        return Pictures(album, labels, images, self.settings, split=name, classes=self.classes or ())


def check_channels(channels: Any) -> int | None:
    """Return the number of channels, or None for auto. ValueError for any other value."""
    if channels == "auto":
        return None
    if isinstance(channels, bool) or not isinstance(channels, int) or channels < 1:
        raise ValueError(f"channels={channels} must be auto or a number of channels: 1 for grey, 3 for RGB")
    return channels


def check_range(given: Any) -> Ranges | None:
    """Return pairs of values, one for all bands or one for each, or None to measure them. ValueError otherwise."""
    if given is None:
        return None
    try:
        pairs = [(float(low), float(high)) for low, high in ([given] if isinstance(given[0], int | float) else given)]
        if pairs and all(low <= high for low, high in pairs):
            return pairs
    except (TypeError, ValueError, IndexError, KeyError):
        pass
    raise ValueError(f"range={given} must be [low,high], or such a pair for each band, or null to measure it")


def array_survey(images: UInt8[Tensor, "n c h w"], wanted: int | None) -> Survey:
    """Return the survey of a set that is one array. ValueError if its channels cannot become `wanted` channels."""
    channels = images.shape[1]
    if wanted not in (None, channels) and {wanted, channels} != {1, 3}:
        raise ValueError(f"channels={wanted}: these images have {channels} channels: leave the option out")
    return Survey(wanted or channels, high_depth=False, transparent=False, truncated=False, animated=False)
