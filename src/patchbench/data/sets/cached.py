"""A set kept as raw pixels: one memory-mapped array of uint8 a split, so that reading an image is copying it.

On the disk: <split>.images.npy (n c H W) and <split>.labels.npy (n), as numpy.load reads them, and meta.json,
written last.
"""

import json
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int, UInt8
from torch import Tensor
from torchvision.transforms import v2

from patchbench.checks import Size, one_of, size, spell
from patchbench.data.source import Crop
from patchbench.data.splits import few

FORMAT = 1  # of the folder; another one is refused
META, PLAN = "meta.json", "plan.json"  # of a finished cache, and of one that is being made
PREPARE = "python scripts/prepare_data.py"


class Cached:
    """The splits under `root`. FileNotFoundError, ValueError: none there, unfinished, of another format, or cut short.

    Of images that are larger than `img_size`, evaluation sees the centre.
    """

    def __init__(
        self,
        *,
        root: str,
        img_size: int | Sequence[int] | None,
        train_fraction: float | None,
        train_size: int | None,
        normalise: str,
    ) -> None:
        one_of("data.normalise", normalise, ("source", "measured"))
        self.root = Path(root).expanduser()
        meta = read_meta(self.root)
        kept: Size = tuple(meta["img_size"])
        self.img_size = kept if img_size is None else size("data.img_size", img_size)
        if self.img_size[0] > kept[0] or self.img_size[1] > kept[1]:
            raise ValueError(
                f"data.img_size={spell(self.img_size)} is larger than the images of data.root={root}: use "
                f"data.img_size={spell(kept)} or less, or prepare the set anew with a larger size"
            )
        self.in_chans, self.num_classes, self.mirrors = meta["in_chans"], meta["num_classes"], meta["mirrors"]
        self.classes = meta["classes"]
        self.mean, self.std = (meta[normalise][name] for name in ("mean", "std"))
        self.found = {
            name: Mapped(self.root, name, self.img_size, (split["rows"], self.in_chans, *kept), split["chunks"])
            for name, split in meta["splits"].items()
        }
        train = self.found["train"]
        train.keep(few(train.labels.tolist(), train_fraction, train_size))

    def splits(self) -> dict[str, "Mapped"]:
        return self.found


class Mapped:
    """A split as a file that each process maps for itself. ValueError unless its array has `shape`, n c H W.

    chunks: first and last row, exclusive, of each part of the file that holds images.
    """

    slow = True

    def __init__(
        self, folder: Path, name: str, img_size: Size, shape: tuple[int, ...], chunks: Sequence[Sequence[int]]
    ) -> None:
        self.path, self.img_size = images_file(folder, name), img_size
        self.mapped: np.ndarray | None = None
        labels = load(labels_file(folder, name))
        if self.pixels.shape != shape or self.pixels.dtype != np.uint8 or labels.shape != shape[:1]:
            raise ValueError(
                f"{self.path} holds {self.pixels.dtype} {list(self.pixels.shape)} and {len(labels)} labels, but {META} "
                f"says {list(shape)}: remove {folder} and run {PREPARE} again"
            )
        self.rows = np.concatenate([np.arange(start, stop) for start, stop, *_ in chunks])
        self.labels = torch.from_numpy(labels[self.rows])
        self.crops = shape[2:] != img_size or len(self.rows) < len(labels)

    def keep(self, indices: Sequence[int]) -> None:
        """Be a split of these images only."""
        if len(indices) < len(self):
            self.rows, self.labels, self.crops = self.rows[list(indices)], self.labels[list(indices)], True

    def __len__(self) -> int:
        return len(self.labels)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"mapped": None}  # else all pixels would travel to a process that is not forked

    @property
    def pixels(self) -> np.ndarray:
        """n c H W, as kept."""
        if self.mapped is None:
            self.mapped = np.asarray(load(self.path))  # a plain array: slices of a memmap are slow to make
        return self.mapped

    @property
    def images(self) -> UInt8[Tensor, "n c H W"]:
        """The whole file, none of it read yet; not to be written to."""
        return torch.from_numpy(self.pixels)

    def read(
        self, indices: Sequence[int], draws: Int[Tensor, " b"] | None = None, crop: Crop | None = None
    ) -> tuple[UInt8[Tensor, "b c H W"], Int[Tensor, " b"]]:
        pixels, (height, width) = self.pixels, self.img_size
        kept = pixels.shape[2:]
        if draws is None or crop is None:
            boxes = [[(kept[0] - height) // 2, (kept[1] - width) // 2, height, width]] * len(indices)
        else:
            boxes = crop(draws, torch.tensor(kept).expand(len(indices), 2)).tolist()
        images = np.empty((len(indices), pixels.shape[1], height, width), np.uint8)
        for image, row, (top, left, h, w) in zip(images, self.rows[list(indices)], boxes, strict=True):
            part = pixels[row, :, top : top + h, left : left + w]
            image[:] = part if (h, w) == self.img_size else scaled(part, self.img_size)
        return torch.from_numpy(images), self.labels[torch.as_tensor(indices)]


def scaled(part: np.ndarray, img_size: Size) -> np.ndarray:
    """As imagefolder scales."""
    resized = v2.functional.resize(torch.from_numpy(part), list(img_size), v2.InterpolationMode.BICUBIC, antialias=True)
    return resized.numpy()


def images_file(folder: Path, split: str) -> Path:
    return folder / f"{split}.images.npy"


def labels_file(folder: Path, split: str) -> Path:
    return folder / f"{split}.labels.npy"


def load(path: Path) -> np.memmap:
    """Mapped privately, since PyTorch takes no array that is read-only. ValueError where it is not whole."""
    try:
        array = np.load(path, mmap_mode="c")
        if path.stat().st_size == array.offset + array.nbytes:
            return array
        why = "it is longer than it was written"
    except (OSError, ValueError, EOFError) as error:
        why = " ".join(str(error).split())
    raise ValueError(f"{path} is damaged or missing ({why}): remove {path.parent} and run {PREPARE} again")


def read_meta(folder: Path) -> dict[str, Any]:
    """meta.json of a finished cache. FileNotFoundError, ValueError where there is none that can be read."""
    path = folder / META
    if not path.is_file() and (folder / PLAN).is_file():
        command = json.loads((folder / PLAN).read_text(encoding="utf-8"))["command"]
        raise FileNotFoundError(f"data.root={folder} is a cache that is not finished: complete it by {command}")
    if not path.is_file():
        raise FileNotFoundError(
            f"data.root={folder} is no cache, it has no {META}: make one by {PREPARE} data=... out={folder}"
        )
    try:
        meta = json.loads(path.read_text(encoding="utf-8"))
        version = meta["format"]
        if version == FORMAT and meta.pop("crc32") != crc32(meta):
            raise ValueError("its own checksum differs")
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged ({error}): remove {folder} and run {PREPARE} again") from error
    if version != FORMAT:
        raise ValueError(
            f"data.root={folder} is a cache of format {version}, this version reads format {FORMAT}: remove it and "
            f"run {PREPARE} again, or use the version that made it"
        )
    return meta


def crc32(meta: Mapping[str, Any]) -> int:
    """Of meta.json without its checksum."""
    return zlib.crc32(json.dumps(meta).encode())
