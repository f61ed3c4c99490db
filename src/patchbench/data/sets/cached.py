"""A cache of raw pixels: one memory-mapped array of uint8 per split, so that reading an image is a copy."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int, UInt8
from torch import Tensor
from torchvision.transforms import v2

from patchbench.checks import Size, one_of, size, spell
from patchbench.data.cache_format import META, PREPARE, images_file, labels_file, read_meta
from patchbench.data.cache_parts import Part, altered_images, checksum, parts
from patchbench.data.pictures import BadImage
from patchbench.data.source import Crop
from patchbench.data.splits import subsample
from patchbench.data.statistics import check_statistics


class Cached:
    """The splits of the cache in `root`. If its images are larger than `img_size`, evaluation reads their centre.

    normalise: `source` takes mean and standard deviation of the cached set, `measured` those of its training images.
    range: values that became black and white when the images were cached; None accepts any. classes: names of the
    classes in the order of their numbers; the cache may lack some. None takes the classes of the cache.
    FileNotFoundError, ValueError: there is no cache, or it is unfinished, damaged or of another format.
    """

    def __init__(
        self,
        *,
        root: str,
        img_size: int | Sequence[int] | None,
        train_fraction: float | None,
        train_size: int | None,
        normalise: str,
        mean: Sequence[float] | None,
        std: Sequence[float] | None,
        range: Sequence[Any] | None,
        classes: Sequence[Any] | None,
    ) -> None:
        one_of("normalise", normalise, ("source", "measured"))
        self.root = Path(root).expanduser()
        meta = read_meta(self.root, "root")
        largest: Size = tuple(meta["img_size"])
        self.img_size = largest if img_size is None else size("img_size", img_size)
        if self.img_size[0] > largest[0] or self.img_size[1] > largest[1]:
            raise ValueError(
                f"img_size={spell(self.img_size)} is larger than the images of root={root}: use "
                f"img_size={spell(largest)} or less, or prepare the set again with a larger size"
            )
        self.in_chans, self.mirrors = meta["in_chans"], meta["mirrors"]
        check_statistics(mean, std, self.in_chans)
        self.mean, self.std = mean or meta[normalise]["mean"], std or meta[normalise]["std"]
        self.range = meta.get("range")
        if range is not None and range != self.range:
            raise ValueError(
                f"range={range} differs from range={self.range}, with which root={root} was prepared: prepare it again "
                f"with the former, {PREPARE} ... data.range=..."
            )
        self.classes, numbers = reorder_classes(meta["classes"], classes)
        self.num_classes = meta["num_classes"] if classes is None else len(classes)
        self.mapped = {
            name: Mapped(
                self.root, name, self.img_size, (split["rows"], self.in_chans, *largest), list(parts(meta, name))
            )
            for name, split in meta["splits"].items()
        }
        for name, split in self.mapped.items():
            if len(invalid := ((split.labels < 0) | (split.labels >= meta["num_classes"])).nonzero()):
                label = int(split.labels[invalid[0]])
                raise ValueError(
                    f"{labels_file(self.root, name)} is damaged, it holds the label {label} of {meta['num_classes']} "
                    f"classes: remove {self.root} and run {PREPARE} again"
                )
        if numbers is not None:
            for split in self.mapped.values():
                split.labels = numbers[split.labels]
        train = self.mapped["train"]
        train.restrict(subsample(train.labels.tolist(), train_fraction, train_size))

    def splits(self) -> dict[str, "Mapped"]:
        return self.mapped


def reorder_classes(
    stored: Sequence[Any] | None, wanted: Sequence[Any] | None
) -> tuple[Sequence[Any] | None, Int[Tensor, " n"] | None]:
    """Return the classes in the wanted order, and the new number of each stored class, or None if nothing changes.

    ValueError if the cache has classes that are not among the wanted ones.
    """
    if wanted is None or stored == wanted:
        return stored, None
    if stored is None or not set(stored) <= set(wanted):
        unknown = ", ".join(str(name) for name in (stored or ()) if name not in wanted) or "classes without names"
        raise ValueError(f"the cache holds {unknown}, none of the {len(wanted)} known classes: labels would not match")
    numbers = {name: number for number, name in enumerate(wanted)}
    return wanted, torch.tensor([numbers[name] for name in stored])


class Mapped:
    """A split in a file that each process maps into its memory. ValueError unless the array has `shape`, n c H W.

    Each part of the file is compared with its checksum at the first reading, once for all processes of a rank, which
    share `checked`. parts: the parts that hold images, in order.
    """

    slow = True

    def __init__(self, folder: Path, name: str, img_size: Size, shape: tuple[int, ...], parts: Sequence[Part]) -> None:
        self.folder, self.name, self.path, self.img_size = folder, name, images_file(folder, name), img_size
        self.mapped: np.ndarray | None = None
        self.parts, self.starts = parts, np.array([part.start for part in parts])
        self.checked = torch.zeros(len(parts), dtype=torch.bool).share_memory_()
        self.stored = labels = np.asarray(map_array(labels_file(folder, name)))
        if self.pixels.shape != shape or self.pixels.dtype != np.uint8 or labels.shape != shape[:1]:
            raise ValueError(
                f"{self.path} holds {self.pixels.dtype} {list(self.pixels.shape)} and {len(labels)} labels, but {META} "
                f"says {list(shape)}: remove {folder} and run {PREPARE} again"
            )
        self.rows = np.concatenate([np.arange(part.start, part.stop) for part in parts])
        self.labels = torch.from_numpy(labels[self.rows])
        self.crops = shape[2:] != img_size or len(self.rows) < len(labels)

    def restrict(self, indices: Sequence[int]) -> None:
        """Keep only the images with these indices."""
        if len(indices) < len(self):
            self.rows, self.labels, self.crops = self.rows[list(indices)], self.labels[list(indices)], True

    def __len__(self) -> int:
        return len(self.labels)

    def check(self, rows: np.ndarray) -> None:
        """Raise BadImage if a part that holds one of these rows has changed since it was written."""
        touched = np.searchsorted(self.starts, rows, side="right") - 1
        for number in np.unique(touched[~self.checked.numpy()[touched]]).tolist():
            start, stop, crc = self.parts[number]
            if checksum(self.pixels[start:stop], self.stored[start:stop]) != crc:
                raise BadImage(altered_images(self.folder, self.name, start, stop))
            self.checked[number] = True

    def check_all(self) -> None:
        """Raise BadImage if any part has changed since it was written."""
        self.check(self.rows)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"mapped": None}  # otherwise pickling would send all pixels to a spawned process

    @property
    def pixels(self) -> np.ndarray:
        """All images of the file, n c H W."""
        if self.mapped is None:
            self.mapped = np.asarray(map_array(self.path))  # a plain array, because slicing a memmap is slow
        return self.mapped

    @property
    def images(self) -> UInt8[Tensor, "n c H W"]:
        """All images as a read-only tensor: not checked, and read from the disk only when they are used."""
        return torch.from_numpy(self.pixels)

    def read(
        self, indices: Sequence[int], draws: Int[Tensor, " b"] | None = None, crop: Crop | None = None
    ) -> tuple[UInt8[Tensor, "b c H W"], Int[Tensor, " b"]]:
        pixels, (height, width), rows = self.pixels, self.img_size, self.rows[list(indices)]
        self.check(rows)
        full = pixels.shape[2:]
        if draws is None or crop is None:
            boxes = [[(full[0] - height) // 2, (full[1] - width) // 2, height, width]] * len(indices)
        else:
            boxes = crop(draws, torch.tensor(full).expand(len(indices), 2)).tolist()
        images = np.empty((len(indices), pixels.shape[1], height, width), np.uint8)
        for image, row, (top, left, h, w) in zip(images, rows, boxes, strict=True):
            part = pixels[row, :, top : top + h, left : left + w]
            image[:] = part if (h, w) == self.img_size else scale_part(part, self.img_size)
        return torch.from_numpy(images), self.labels[torch.as_tensor(indices)]


def scale_part(part: np.ndarray, img_size: Size) -> np.ndarray:
    """Scale a part of an image in the same way as pictures in files."""
    resized = v2.functional.resize(torch.from_numpy(part), list(img_size), v2.InterpolationMode.BICUBIC, antialias=True)
    return resized.numpy()


def map_array(path: Path) -> np.memmap:
    """Map an array into memory, copy-on-write because PyTorch takes no read-only arrays. ValueError if damaged."""
    try:
        array = np.load(path, mmap_mode="c")
        if path.stat().st_size == array.offset + array.nbytes:
            return array
        why = "it is longer than when it was written"
    except (OSError, ValueError, EOFError) as error:
        why = " ".join(str(error).split())
    raise ValueError(f"{path} is damaged or missing ({why}): remove {path.parent} and run {PREPARE} again")
