"""The classification sets of torchvision (Maintainers of TorchVision, 2016), by name."""

import hashlib
import inspect
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from filelock import FileLock
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor
from torchvision import datasets

from patchbench.checks import size
from patchbench.data.pictures import Pictures, Reading, channels
from patchbench.data.source import InMemory, Split, resize
from patchbench.data.splits import numbered, parts
from patchbench.data.statistics import statistics

# The mirror image of a letter, a digit or a road sign is another one, or none.
HANDED = ("EMNIST", "GTSRB", "KMNIST", "MNIST", "Omniglot", "QMNIST", "RenderedSST2", "SEMEION", "SVHN", "USPS")
OURS = ("root", "loader", "train", "split")  # arguments that are set here and not by options
# What the sets call their splits; the first that there is. `val` alone judges, as ImageNet's does.
SPLITS = {"train": ("train", "trainval", "train-standard"), "val": ("val", "valid"), "test": ("test",)}


class TorchVision:
    """A set in `root`, downloaded if it is not there. Sets that torchvision holds in memory are held so here.

    options: further arguments of the set, as its documentation names them. mirrors: auto says no to sets of letters,
    digits and signs. OSError, ValueError: there is no such set, it cannot be had, or it has no class for each image.
    """

    def __init__(
        self,
        *,
        name: str,
        options: Mapping[str, Any] | None,
        img_size: int | Sequence[int],
        crop_pct: float,
        val_size: int | float,
        test_size: int | float,
        train_fraction: float | None,
        train_size: int | None,
        mirrors: bool | Literal["auto"],
        mean: Sequence[float] | None,
        std: Sequence[float] | None,
        on_error: str,
        root: str,
    ) -> None:
        kind = by_name(name)
        self.img_size = size("data.img_size", img_size)
        self.mirrors = kind.__name__ not in HANDED if mirrors == "auto" else mirrors
        self.choose = partial(
            parts, val_size=val_size, test_size=test_size, train_fraction=train_fraction, train_size=train_size
        )
        self.mean, self.std = mean or [], std or []  # what is not given is measured by `splits`
        sets = opened(kind, Path(root), dict(options or {}))
        labels = {split: labels_of(found, kind.__name__) for split, found in sets.items()}
        self.classes, self.labels = numbered(
            labels, None, lambda split, i: f"data.name={kind.__name__}: {split} image {i}"
        )
        self.num_classes = len(self.classes)
        self.sets = {split: sets[split] for split in self.labels}
        arrays = pixels(self.sets["train"])
        self.in_chans = channels(Items(self.sets["train"], "")) if arrays is None else arrays.shape[1]
        self.reading = Reading(self.img_size, self.in_chans, crop_pct, on_error)

    def splits(self) -> dict[str, Split]:
        chosen = self.choose(self.labels)
        splits = {name: self.split(given, images) for name, (given, images) in chosen.items()}
        self.mean, self.std = statistics(splits["train"], self.in_chans, self.mean, self.std)
        return splits

    def split(self, given: str, images: Sequence[int]) -> Split:
        found, labels = self.sets[given], self.labels[given]
        arrays = pixels(found)
        if arrays is None:
            return Pictures(Items(found, f"{type(found).__name__}, {given}"), labels, images, self.reading)
        return InMemory(resize(arrays[images], self.img_size).contiguous(), torch.tensor(labels)[images])


class Items:
    """Pictures of a set that is asked for them one by one."""

    def __init__(self, found: Any, what: str) -> None:
        self.found, self.what = found, what

    def __len__(self) -> int:
        return len(self.found)

    def open(self, index: int) -> Image.Image:
        item = self.found[index][0]
        return item if isinstance(item, Image.Image) else Image.open(item)

    def name(self, index: int) -> str:
        try:
            item = self.found[index][0]
        except Exception:  # that it cannot be read is why its name is asked for
            item = None
        return str(item) if isinstance(item, Path) else f"{self.what} image {index}"


def by_name(name: str) -> Any:
    """ValueError says what was meant."""
    known = {kind.lower(): kind for kind in datasets.__all__}
    if found := known.get(str(name).lower()):
        return getattr(datasets, found)
    close = get_close_matches(str(name).lower(), known, 1)
    hint = f"did you mean {known[close[0]]}?" if close else "its documentation lists them, such as SVHN or Flowers102"
    raise ValueError(f"data.name={name} is no data set of torchvision: {hint}")


def opened(kind: Any, root: Path, options: dict[str, Any]) -> dict[str, Any]:
    """The splits that the set has, by `train`, `val` and `test`; one process of a machine at a time."""
    takes = arguments_of(kind)
    fixed = {name: value for name, value in {"root": str(root), "loader": Path}.items() if name in takes} | options
    mine = f"{root.expanduser().resolve()} {os.getuid() if hasattr(os, 'getuid') else ''}"  # and writable by me
    lock = Path(tempfile.gettempdir()) / f"patchbench-{hashlib.sha256(mine.encode()).hexdigest()[:16]}.lock"
    with FileLock(lock), redirect_stdout(sys.stderr):
        if "train" in takes:
            return {name: had(kind, root, {**fixed, "train": name == "train"}, takes) for name in ("train", "test")}
        if "split" not in takes or "split" in options:
            return {"train": had(kind, root, fixed, takes)}
        found = {}
        for ours, theirs in SPLITS.items():
            for name in theirs:
                try:
                    found[ours] = had(kind, root, {**fixed, "split": name}, takes)
                except NoSuchSplit:
                    continue
                break
        if "train" not in found:
            raise ValueError(f"data.name={kind.__name__} has no split to train on: name another set")
        return found


def arguments_of(kind: Any) -> set[str]:
    """By name; of its base as well where it passes on what it does not know."""
    own = inspect.signature(kind.__init__).parameters
    passes_on = any(parameter.kind == parameter.VAR_KEYWORD for parameter in own.values())
    return {*own, *(arguments_of(kind.__mro__[1]) if passes_on else ())}


class NoSuchSplit(Exception):
    pass


def had(kind: Any, root: Path, arguments: dict[str, Any], takes: set[str]) -> Any:
    """What lies there, or else what comes: some sets refuse to be downloaded twice."""
    for download in (False, True) if "download" in takes else (None,):
        try:
            return kind(**arguments, **({} if download is None else {"download": download}))
        except (TypeError, ValueError) as error:
            if "argument split" in str(error):
                raise NoSuchSplit from error
            given = {name: value for name, value in arguments.items() if name not in OURS}
            raise ValueError(
                f"data.name={kind.__name__} with data.options={given} "
                f"is refused by torchvision ({error}): see its documentation for what it takes"
            ) from error
        except (OSError, RuntimeError, ImportError) as error:  # not there, or what is or came fails its checksum
            missing = error
    raise OSError(
        f"data.name={kind.__name__} is not in data_dir={root} and could not be downloaded "
        f"({' '.join(str(missing).split())}): connect to the network once, put its files there by hand, as the "
        "documentation of torchvision says, or use data=digits"
    ) from missing


def pixels(found: Any) -> UInt8[Tensor, "n c h w"] | None:
    """Of a set that holds its images in one array, else None."""
    data = getattr(found, "data", None)
    array = torch.from_numpy(data) if isinstance(data, np.ndarray) and data.dtype == np.uint8 else data
    if not isinstance(array, Tensor) or array.dtype != torch.uint8 or len(array) != len(found):
        return None
    if array.ndim == 3:
        return array[:, None]
    return array if array.shape[1] in (1, 3) else array.movedim(3, 1)


def labels_of(found: Any, name: str) -> list[Any]:
    """ValueError if they are anything but one whole number for each image."""
    lists = (getattr(found, attribute, None) for attribute in ("targets", "labels", "_labels", "y"))
    given: Any = next((labels for labels in lists if labels is not None and len(labels) == len(found)), None)
    if given is not None:
        given = given.tolist() if isinstance(given, Tensor | np.ndarray) else list(given)
    if not given or not (given[0] is None or isinstance(given[0], int | np.integer)):
        given = (found[i][1] for i in range(len(found)))  # some sets make them of what they hold
    labels = []
    for label in given:
        label = label.item() if isinstance(label, Tensor | np.generic) and np.ndim(label) == 0 else label
        if not (label is None or isinstance(label, int)):
            raise ValueError(
                f"data.name={name} does not have one class for each image ({type(label).__name__} for the first): name "
                "another set"
            )
        labels.append(label)
    return labels
