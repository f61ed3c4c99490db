"""Fashion-MNIST (Xiao et al., 2017): 70,000 real grey images, from Debian's package or from torchvision's download."""

import gzip
import math
import struct
import zlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import torch
from jaxtyping import Int, UInt8
from torch import Tensor
from torchvision import datasets

from patchbench.checks import size
from patchbench.data.sets.torchvision import open_splits
from patchbench.data.source import InMemory, resize
from patchbench.data.splits import make_splits

PACKAGE = Path("/usr/share/datasets/fashion-mnist")  # folder of Debian's package dataset-fashion-mnist
PREFIXES = {"train": ("train", 60_000), "test": ("t10k", 10_000)}  # prefixes of the file names, numbers of images
SIDE = 28  # pixels


class FashionMNIST:
    """Photographs of 70,000 pieces of clothing, 28x28 grey, scaled to `img_size` and repeated over three channels.

    root: folder that holds the files or a folder FashionMNIST/raw with the files. Otherwise the files of Debian's
    package are read, and without the package torchvision downloads the files into `root`.
    OSError if the files cannot be found or downloaded, or are damaged.
    """

    in_chans = 3
    mirrors = True
    num_classes = 10
    classes = ("T-shirt", "trousers", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
    mean = (0.286, 0.286, 0.286)  # of the training images
    std = (0.353, 0.353, 0.353)

    def __init__(
        self,
        *,
        root: str,
        img_size: int | Sequence[int],
        val_size: int | float,
        train_fraction: float | None,
        train_size: int | None,
    ) -> None:
        self.img_size = size("img_size", img_size)
        self.files = find_files(Path(root).expanduser())
        self.split_indices = make_splits(
            {name: labels(self.files[name][1], PREFIXES[name][1]).tolist() for name in PREFIXES},
            val_size=val_size,
            test_size=None,
            train_fraction=train_fraction,
            train_size=train_size,
        )

    def splits(self) -> dict[str, InMemory]:
        splits = {}
        for name, (stored, indices) in self.split_indices.items():
            (path, labels_path), (_, count) = self.files[stored], PREFIXES[stored]
            grey = resize(read_idx(path, (count, SIDE, SIDE))[indices, None], self.img_size)
            splits[name] = InMemory(grey.repeat(1, self.in_chans, 1, 1), labels(labels_path, count)[indices])
        return splits


def find_files(root: Path) -> dict[str, tuple[Path, Path]]:
    """Find the files of images and labels of each split; download them into `root` if there are none."""
    folders = (root, root / "FashionMNIST" / "raw", PACKAGE)
    for folder in folders:
        if files := files_in(folder):
            return files
    try:
        open_splits(datasets.FashionMNIST, root, {})
    except OSError as error:
        raise OSError(
            f"root={root} does not hold the files of Fashion-MNIST, nor does {PACKAGE}, and torchvision could not "
            "download them: install Debian's package (apt-get install dataset-fashion-mnist), or connect to the "
            "network once, or give root=<folder with train-images-idx3-ubyte.gz and the other three>"
        ) from error
    return files_in(folders[1])


def files_in(folder: Path) -> dict[str, tuple[Path, Path]]:
    """Return the files of images and labels of each split, plain or .gz; empty unless all four are in the folder."""
    files = {}
    for split, (prefix, _) in PREFIXES.items():
        names = f"{prefix}-images-idx3-ubyte", f"{prefix}-labels-idx1-ubyte"
        images, labels = ([path for path in (folder / n, folder / f"{n}.gz") if path.is_file()] for n in names)
        if not images or not labels:
            return {}
        files[split] = images[0], labels[0]
    return files


@cache
def labels(path: Path, count: int) -> Int[Tensor, " n"]:
    """Read the labels of a file; each process reads them once."""
    return read_idx(path, (count,)).long()


def read_idx(path: Path, shape: tuple[int, ...]) -> UInt8[Tensor, "..."]:
    """Read unsigned bytes of this shape from a file in the IDX format (LeCun et al., 1998), plain or .gz.

    OSError with a message of one line if the file is damaged or holds another array.
    """
    header = struct.pack(f">BBBB{len(shape)}I", 0, 0, 8, len(shape), *shape)  # 8: unsigned bytes
    try:
        content = path.read_bytes()
        content = gzip.decompress(content) if path.suffix == ".gz" else content
        if not content.startswith(header) or len(content) != len(header) + math.prod(shape):
            raise EOFError(f"no {'x'.join(map(str, shape))} bytes in the IDX format")
    except (OSError, EOFError, zlib.error) as error:
        raise OSError(
            f"{path} is damaged ({error}): remove it and download it again, or reinstall the package that brought it"
        ) from error
    return torch.frombuffer(bytearray(content), dtype=torch.uint8, offset=len(header)).view(shape)
