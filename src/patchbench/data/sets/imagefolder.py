"""Images in class folders, laid out as ImageNet is: train/<class>/*.jpeg, val/<class>/*.jpeg."""

import os
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from patchbench.checks import size
from patchbench.data.pictures import Paths, Pictures, Reading, channels, pictured
from patchbench.data.splits import parts
from patchbench.data.statistics import statistics

SUFFIXES = {".jpg", ".jpeg", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".avif"}
LAYOUT = "expected train/<class>/<image> and val/<class>/<image> (test/<class>/<image> is optional)"


class ImageFolder:
    """Class folders under root/train and root/val; classes are numbered by name.

    With root/test, `val` chooses and `test` judges. Without, root/val is the test split, as ImageNet's is read in
    practice, and `val_size` of root/train is held out to choose by. Other files and hidden ones are left out.
    FileNotFoundError, ValueError: no folder, no images, or other classes in one split than in another.
    """

    def __init__(
        self,
        *,
        root: str,
        img_size: int | Sequence[int],
        crop_pct: float,
        val_size: int | float,
        train_fraction: float | None,
        train_size: int | None,
        mirrors: bool,
        mean: Sequence[float] | None,
        std: Sequence[float] | None,
        on_error: str,
    ) -> None:
        self.root, self.img_size, self.mirrors = Path(root).expanduser(), size("data.img_size", img_size), mirrors
        self.choose = partial(
            parts, val_size=val_size, test_size=None, train_fraction=train_fraction, train_size=train_size
        )
        self.mean, self.std = mean or [], std or []  # what is not given is measured by `splits`
        classes = {name: class_names(self.root, name) for name in ("train", "val")}
        if (self.root / "test").is_dir():
            classes["test"] = class_names(self.root, "test")
        for name, found in classes.items():
            if odd := sorted(set(found) ^ set(classes["train"])):
                raise ValueError(
                    f"data.root={self.root}: train/ and {name}/ hold different classes, {', '.join(odd[:5])}"
                    f"{', ...' if len(odd) > 5 else ''} in one of them only: labels would not match; rename the folders"
                )
        self.classes = classes["train"]
        self.num_classes = len(self.classes)
        self.files = {name: self.listed(name) for name in classes}
        self.in_chans = channels(Paths([path for path, _ in self.files["train"]]))
        self.reading = Reading(self.img_size, self.in_chans, crop_pct, on_error)

    def splits(self) -> dict[str, Pictures]:
        labels = {name: [label for _, label in files] for name, files in self.files.items()}
        albums = {name: Paths([path for path, _ in files]) for name, files in self.files.items()}
        chosen = self.choose(labels)
        splits = pictured(albums, labels, chosen, self.reading)
        self.mean, self.std = statistics(splits["train"], self.in_chans, self.mean, self.std)
        return splits

    def listed(self, split: str) -> list[tuple[str, int]]:
        """Paths with their labels."""
        found = []
        for label, name in enumerate(self.classes):
            images = list(images_in(self.root / split / name))
            if not images:
                raise FileNotFoundError(
                    f"data.root={self.root}: no {'|'.join(sorted(SUFFIXES))} in {split}/{name}: fill or remove it"
                )
            found += [(path, label) for path in images]
        return found


def images_in(folder: str | Path) -> Iterator[str]:
    """Sorted. OSError names a folder that cannot be read."""
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if entry.name.startswith("."):
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from images_in(entry.path)
        elif os.path.splitext(entry.name)[1].lower() in SUFFIXES and (entry.is_file() or entry.is_symlink()):
            yield entry.path  # a link to nowhere too, to be named when it is read; but no pipe, which would never end


def class_names(root: Path, split: str) -> list[str]:
    folder = root / split
    found = folder.iterdir() if folder.is_dir() else []
    names = sorted(path.name for path in found if path.is_dir() and not path.name.startswith("."))
    if not names:
        raise FileNotFoundError(
            f"data.root={root}: no class folders in {split}/: {LAYOUT}; point data.root at the folder that holds them, "
            "unpack the set there, or use data=digits, which needs no files"
        )
    return names
