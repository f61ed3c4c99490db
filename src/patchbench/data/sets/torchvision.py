"""The classification sets of torchvision (Maintainers of TorchVision, 2016), by name."""

import hashlib
import inspect
import os
import sys
import tempfile
from collections.abc import Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor
from torchvision import datasets
from torchvision.datasets.utils import check_md5

from patchbench.checks import nearest
from patchbench.data.files import Contents, FileSet
from patchbench.data.splits import numbered

# Sets whose labels a mirror image may change: of letters, digits and road signs.
HANDED = ("EMNIST", "GTSRB", "KMNIST", "MNIST", "Omniglot", "QMNIST", "RenderedSST2", "SEMEION", "SVHN", "USPS")
OURS = ("root", "loader", "train", "split")  # arguments that are set here and not by options
# Names that the sets give to their splits; the first that exists is taken. `val` alone judges, as in ImageNet.
SPLITS = {"train": ("train", "trainval", "train-standard"), "val": ("val", "valid"), "test": ("test",)}


@dataclass(kw_only=True, eq=False)
class TorchVision(FileSet):
    """A set in `root`, downloaded if it is not there. Sets that torchvision reads into memory stay in memory.

    options: further arguments of the set, as its documentation names them. mirrors: "auto" is false for sets of
    letters, digits and signs.
    OSError, ValueError: there is no such set, it cannot be downloaded, or it has no class for each image.
    """

    name: str
    options: Mapping[str, Any] | None
    root: str

    def open(self) -> Contents:
        kind = by_name(self.name)
        self.mirrors = kind.__name__ not in HANDED if self.mirrors == "auto" else self.mirrors
        sets = opened(kind, Path(self.root), dict(self.options or {}))
        given = {split: labels_of(dataset, kind.__name__) for split, dataset in sets.items()}
        classes, labels = numbered(given, self.classes, lambda split, i: f"name={kind.__name__}: {split} image {i}")
        albums: dict[str, Any] = {}
        for split in labels:
            array = pixels(sets[split])
            albums[split] = Items(sets[split], f"{kind.__name__}, {split}") if array is None else array
        return Contents(albums, labels, classes)


class Items:
    """Pictures of a set that reads them one by one."""

    def __init__(self, dataset: Any, what: str) -> None:
        self.dataset, self.what = dataset, what

    def __len__(self) -> int:
        return len(self.dataset)

    def open(self, index: int) -> Image.Image:
        item = self.dataset[index][0]
        return item if isinstance(item, Image.Image) else Image.open(item)

    def name(self, index: int) -> str:
        try:
            item = self.dataset[index][0]
        except Exception:  # a name is asked for because the picture cannot be read
            item = None
        return str(item) if isinstance(item, Path) else f"{self.what} image {index}"


def by_name(name: str) -> Any:
    """Class of torchvision by its name, in any case. ValueError names the nearest."""
    known = {kind.lower(): kind for kind in datasets.__all__}
    if exact := known.get(str(name).lower()):
        return getattr(datasets, exact)
    close = nearest(str(name).lower(), known)
    hint = f"did you mean {known[close[0]]}?" if close else "its documentation lists them, such as SVHN or Flowers102"
    raise ValueError(f"name={name} is no data set of torchvision: {hint}")


def opened(kind: Any, root: Path, options: dict[str, Any]) -> dict[str, Any]:
    """Splits of the set, by `train`, `val` and `test`; opened by one process of a machine at a time."""
    takes = arguments_of(kind)
    fixed = {name: value for name, value in {"root": str(root), "loader": Path}.items() if name in takes} | options
    mine = f"{root.expanduser().resolve()} {os.getuid() if hasattr(os, 'getuid') else ''}"  # and writable by me
    lock = Path(tempfile.gettempdir()) / f"patchbench-{hashlib.sha256(mine.encode()).hexdigest()[:16]}.lock"
    with FileLock(lock), redirect_stdout(sys.stderr):
        if "train" in takes:
            either = {name: {**fixed, "train": name == "train"} for name in ("train", "test")}
            return {name: open_or_download(kind, root, arguments, takes) for name, arguments in either.items()}
        if "split" not in takes or "split" in options:
            return {"train": open_or_download(kind, root, fixed, takes)}
        sets = {}
        for ours, theirs in SPLITS.items():
            for name in theirs:
                try:
                    sets[ours] = open_or_download(kind, root, {**fixed, "split": name}, takes)
                except NoSuchSplit:
                    continue
                break
        if "train" not in sets:
            raise ValueError(f"name={kind.__name__} has no split to train on: name another set")
        return sets


def arguments_of(kind: Any) -> set[str]:
    """Names of the constructor's arguments, and of its base's if it forwards **kwargs."""
    own = inspect.signature(kind.__init__).parameters
    passes_on = any(parameter.kind == parameter.VAR_KEYWORD for parameter in own.values())
    return {*own, *(arguments_of(kind.__mro__[1]) if passes_on else ())}


class NoSuchSplit(Exception):
    pass


def open_or_download(kind: Any, root: Path, arguments: dict[str, Any], takes: set[str]) -> Any:
    """Open a set from the disk, and download it only if that fails: some sets refuse to be downloaded twice."""
    for download in (False, True) if "download" in takes else (None,):
        try:
            return kind(**arguments, **({} if download is None else {"download": download}))
        except (TypeError, ValueError) as error:
            if "argument split" in str(error):
                raise NoSuchSplit from error
            given = {name: value for name, value in arguments.items() if name not in OURS}
            raise ValueError(
                f"name={kind.__name__} with options={given} "
                f"is refused by torchvision ({error}): see its documentation for what it takes"
            ) from error
        except (OSError, RuntimeError, ImportError) as error:  # not there, or files that fail their checksum
            missing = error
    why = " ".join(str(missing).split())
    files = files_of(kind, root)
    if spoilt := [path for path, md5 in files if path.is_file() and not check_md5(str(path), md5)]:
        unpack = "unpack it there, since torchvision takes unpacked files as they are, or " * (
            spoilt[0].suffix == ".gz"
        )
        raise OSError(
            f"name={kind.__name__}: {spoilt[0]} is there, but its checksum is not the one that torchvision expects, "
            f"and no other could be downloaded ({why}): {unpack}replace it"
        ) from missing
    by_hand = "put its files there by hand, as the documentation of torchvision says"
    if files:
        by_hand = f"put {', '.join(path.name for path, _ in files[:8])} into {files[0][0].parent} by hand"
    raise OSError(
        f"name={kind.__name__} is not in data_dir={root} and could not be downloaded ({why}): connect to the network "
        f"once, {by_hand}, or use data=digits"
    ) from missing


def files_of(kind: Any, root: Path) -> list[tuple[Path, str]]:
    """Files that a set is read from, with their MD5, where torchvision tells them before they are there."""
    if kind.__name__ in ("MNIST", "FashionMNIST", "KMNIST"):
        return [(root / kind.__name__ / "raw" / name, md5) for name, md5 in kind.resources]
    if hasattr(kind, "train_list"):
        return [(root / kind.base_folder / name, md5) for name, md5 in [*kind.train_list, *kind.test_list]]
    lists = getattr(kind, "split_list", {})
    return [(root / name, md5) for split, (_, name, md5) in lists.items() if split != "extra"]


def pixels(dataset: Any) -> UInt8[Tensor, "n c h w"] | None:
    """All images of a set that holds them in one array, else None."""
    data = getattr(dataset, "data", None)
    array = torch.from_numpy(data) if isinstance(data, np.ndarray) and data.dtype == np.uint8 else data
    if not isinstance(array, Tensor) or array.dtype != torch.uint8 or len(array) != len(dataset):
        return None
    if array.ndim == 3:
        return array[:, None]
    return array if array.shape[1] in (1, 3) else array.movedim(3, 1)


def labels_of(dataset: Any, name: str) -> list[Any]:
    """Labels of all images. ValueError unless they are one whole number for each."""
    lists = (getattr(dataset, attribute, None) for attribute in ("targets", "labels", "_labels", "y"))
    given: Any = next((labels for labels in lists if labels is not None and len(labels) == len(dataset)), None)
    if given is not None:
        given = given.tolist() if isinstance(given, Tensor | np.ndarray) else list(given)
    if not given or not (given[0] is None or isinstance(given[0], int | np.integer)):
        given = (dataset[i][1] for i in range(len(dataset)))  # some sets compute labels when they are read
    labels = []
    for label in given:
        label = label.item() if isinstance(label, Tensor | np.generic) and np.ndim(label) == 0 else label
        if not (label is None or isinstance(label, int)):
            raise ValueError(
                f"name={name} does not have one class for each image ({type(label).__name__} for the first): name "
                "another set"
            )
        labels.append(label)
    return labels
