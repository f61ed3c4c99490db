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
from patchbench.data.sets.torchvision import opened
from patchbench.data.source import InMemory, resize
from patchbench.data.splits import make_splits

PACKAGE = Path("/usr/share/datasets/fashion-mnist")  # of Debian's dataset-fashion-mnist
PREFIXES = {"train": ("train", 60_000), "test": ("t10k", 10_000)}  # of the names of the files; their images
SIDE = 28  # pixels


class FashionMNIST:
    """Photographs of 70,000 pieces of clothing, 28x28 grey, scaled to `img_size` and repeated over three channels.

    root: folder that holds the files, or FashionMNIST/raw with the files. If it does not, those of Debian's package are
    read; if there are none, torchvision downloads them into `root`.
    OSError: no files, or files that are damaged.
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
        self.files = found(Path(root).expanduser())
        self.chosen = make_splits(
            {name: labels(self.files[name][1], PREFIXES[name][1]).tolist() for name in PREFIXES},
            val_size=val_size,
            test_size=None,
            train_fraction=train_fraction,
            train_size=train_size,
        )

    def splits(self) -> dict[str, InMemory]:
        splits = {}
        for name, (part, indices) in self.chosen.items():
            (path, labels_path), (_, count) = self.files[part], PREFIXES[part]
            grey = resize(read_idx(path, (count, SIDE, SIDE))[indices, None], self.img_size)
            splits[name] = InMemory(grey.repeat(1, self.in_chans, 1, 1), labels(labels_path, count)[indices])
        return splits


def found(root: Path) -> dict[str, tuple[Path, Path]]:
    """Files of images and of labels, by split, downloaded into `root` if there are none."""
    folders = (root, root / "FashionMNIST" / "raw", PACKAGE)
    for folder in folders:
        if files := in_folder(folder):
            return files
    try:
        opened(datasets.FashionMNIST, root, {})
    except OSError as error:
        raise OSError(
            f"root={root} does not hold the files of Fashion-MNIST, nor does {PACKAGE}, and torchvision could not "
            "download them: install Debian's package (apt-get install dataset-fashion-mnist), or connect to the "
            "network once, or give root=<folder with train-images-idx3-ubyte.gz and the other three>"
        ) from error
    return in_folder(folders[1])


def in_folder(folder: Path) -> dict[str, tuple[Path, Path]]:
    """Files of images and of labels in a folder, by split, plain or .gz; none unless all four are there."""
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
    """Labels of a file, read once by each process."""
    return read_idx(path, (count,)).long()


def read_idx(path: Path, shape: tuple[int, ...]) -> UInt8[Tensor, "..."]:
    """Read unsigned bytes of this shape from a file in the IDX format (LeCun et al., 1998), plain or .gz.

    OSError in one line if the file is damaged, or does not hold such an array.
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
