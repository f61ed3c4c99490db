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
from patchbench.data.splits import number_labels

# Sets of letters, digits and road signs: a mirror image may have another label.
MIRROR_SENSITIVE = (
    "EMNIST",
    "GTSRB",
    "KMNIST",
    "MNIST",
    "Omniglot",
    "QMNIST",
    "RenderedSST2",
    "SEMEION",
    "SVHN",
    "USPS",
)
OWN_ARGUMENTS = ("root", "loader", "train", "split")  # arguments that this module sets, not the knob `options`
# Names of splits in torchvision; the first that exists is used. `val` without `test` is the test split, as in ImageNet.
SPLITS = {"train": ("train", "trainval", "train-standard"), "val": ("val", "valid"), "test": ("test",)}


@dataclass(kw_only=True, eq=False)
class TorchVision(FileSet):
    """A data set of torchvision, downloaded into `root` unless it is there.

    Sets that torchvision reads into memory stay in memory; others are read picture by picture.

    options: further arguments of the class in torchvision, see its documentation. mirrors: "auto" is false for sets of
    letters, digits and signs, else true. OSError, ValueError: there is no such set, it cannot be downloaded, or its
    images do not have one class each.
    """

    name: str
    options: Mapping[str, Any] | None
    root: str

    def open(self) -> Contents:
        kind = find_class(self.name)
        self.mirrors = kind.__name__ not in MIRROR_SENSITIVE if self.mirrors == "auto" else self.mirrors
        sets = open_splits(kind, Path(self.root), dict(self.options or {}))
        given = {split: read_labels(dataset, kind.__name__) for split, dataset in sets.items()}
        classes, labels = number_labels(
            given, self.classes, lambda split, i: f"name={kind.__name__}: {split} image {i}"
        )
        albums: dict[str, Any] = {}
        for split in labels:
            array = pixel_array(sets[split])
            albums[split] = Items(sets[split], f"{kind.__name__}, {split}") if array is None else array
        return Contents(albums, labels, classes)


class Items:
    """Album of a data set that reads its pictures one by one. prefix: of the picture names."""

    def __init__(self, dataset: Any, prefix: str) -> None:
        self.dataset, self.prefix = dataset, prefix

    def __len__(self) -> int:
        return len(self.dataset)

    def open(self, index: int) -> Image.Image:
        item = self.dataset[index][0]
        return item if isinstance(item, Image.Image) else Image.open(item)

    def name(self, index: int) -> str:
        try:
            item = self.dataset[index][0]
        except Exception:  # names are used in errors about pictures that cannot be read
            item = None
        return str(item) if isinstance(item, Path) else f"{self.prefix} image {index}"


def find_class(name: str) -> Any:
    """Return the class of torchvision with this name, in upper or lower case. ValueError names the nearest name."""
    known = {kind.lower(): kind for kind in datasets.__all__}
    if exact := known.get(str(name).lower()):
        return getattr(datasets, exact)
    close = nearest(str(name).lower(), known)
    hint = f"did you mean {known[close[0]]}?" if close else "its documentation lists them, such as SVHN or Flowers102"
    raise ValueError(f"name={name} is no data set of torchvision: {hint}")


def open_splits(kind: Any, root: Path, options: dict[str, Any]) -> dict[str, Any]:
    """Open the splits `train`, `val` and `test` of a set, in one process of the machine at a time."""
    parameters = arguments_of(kind)
    fixed = {name: value for name, value in {"root": str(root), "loader": Path}.items() if name in parameters} | options
    key = f"{root.expanduser().resolve()} {os.getuid() if hasattr(os, 'getuid') else ''}"  # each user has own locks
    lock = Path(tempfile.gettempdir()) / f"patchbench-{hashlib.sha256(key.encode()).hexdigest()[:16]}.lock"
    with FileLock(lock), redirect_stdout(sys.stderr):
        if "train" in parameters:
            arguments = {name: {**fixed, "train": name == "train"} for name in ("train", "test")}
            return {name: open_or_download(kind, root, given, parameters) for name, given in arguments.items()}
        if "split" not in parameters or "split" in options:
            return {"train": open_or_download(kind, root, fixed, parameters)}
        sets = {}
        for split, names in SPLITS.items():
            for name in names:
                try:
                    sets[split] = open_or_download(kind, root, {**fixed, "split": name}, parameters)
                except NoSuchSplit:
                    continue
                break
        if "train" not in sets:
            raise ValueError(f"name={kind.__name__} has no split to train on: use another set")
        return sets


def arguments_of(kind: Any) -> set[str]:
    """Return the argument names of the constructor, and of the base class if the constructor forwards **kwargs."""
    own = inspect.signature(kind.__init__).parameters
    forwards = any(parameter.kind == parameter.VAR_KEYWORD for parameter in own.values())
    return {*own, *(arguments_of(kind.__mro__[1]) if forwards else ())}


class NoSuchSplit(Exception):
    pass


def open_or_download(kind: Any, root: Path, arguments: dict[str, Any], parameters: set[str]) -> Any:
    """Open a set from the disk, and download it only if that fails: some sets refuse to be downloaded twice.

    parameters: argument names of the constructor. NoSuchSplit if the set has no such split; otherwise ValueError or
    OSError with a message of one line.
    """
    for download in (False, True) if "download" in parameters else (None,):
        try:
            return kind(**arguments, **({} if download is None else {"download": download}))
        except (TypeError, ValueError) as error:
            if "argument split" in str(error):
                raise NoSuchSplit from error
            given = {name: value for name, value in arguments.items() if name not in OWN_ARGUMENTS}
            raise ValueError(
                f"name={kind.__name__} with options={given} "
                f"is refused by torchvision ({error}): see its documentation for the arguments that it takes"
            ) from error
        except (OSError, RuntimeError, ImportError) as error:  # files are missing or fail their checksum
            missing = error
    why = " ".join(str(missing).split())
    files = files_of(kind, root)
    if damaged := [path for path, md5 in files if path.is_file() and not check_md5(str(path), md5)]:
        unpack = "unpack it there, since torchvision does not check unpacked files, or " * (damaged[0].suffix == ".gz")
        raise OSError(
            f"name={kind.__name__}: {damaged[0]} exists, but its checksum is not the one that torchvision expects, "
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
    """List the files of a set with their MD5 sums, if torchvision has such a list; else empty."""
    if kind.__name__ in ("MNIST", "FashionMNIST", "KMNIST"):
        return [(root / kind.__name__ / "raw" / name, md5) for name, md5 in kind.resources]
    if hasattr(kind, "train_list"):
        return [(root / kind.base_folder / name, md5) for name, md5 in [*kind.train_list, *kind.test_list]]
    lists = getattr(kind, "split_list", {})
    return [(root / name, md5) for split, (_, name, md5) in lists.items() if split != "extra"]


def pixel_array(dataset: Any) -> UInt8[Tensor, "n c h w"] | None:
    """Return all images of a set that holds them in one array, else None."""
    data = getattr(dataset, "data", None)
    array = torch.from_numpy(data) if isinstance(data, np.ndarray) and data.dtype == np.uint8 else data
    if not isinstance(array, Tensor) or array.dtype != torch.uint8 or len(array) != len(dataset):
        return None
    if array.ndim == 3:
        return array[:, None]
    return array if array.shape[1] in (1, 3) else array.movedim(3, 1)


def read_labels(dataset: Any, name: str) -> list[Any]:
    """Return the labels of all images. ValueError unless each image has one whole number or None."""
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
                f"name={name} does not have one class for each image ({type(label).__name__} for the first): use "
                "another set"
            )
        labels.append(label)
    return labels
