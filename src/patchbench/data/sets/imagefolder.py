"""Images in class folders, laid out as ImageNet is: train/<class>/*.jpeg, val/<class>/*.jpeg."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from patchbench.data.files import Contents, FileSet
from patchbench.data.pictures import Paths

SUFFIXES = {".jpg", ".jpeg", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".avif"}
LAYOUT = "expected train/<class>/<image> and val/<class>/<image> (test/<class>/<image> is optional)"


@dataclass(kw_only=True, eq=False)
class ImageFolder(FileSet):
    """Class folders under root/train and root/val; classes are numbered by name.

    With root/test, `val` chooses and `test` judges. Without it, root/val is the test split, as is usual for ImageNet,
    and `val_size` of root/train is held out for validation. Hidden files and files of other kinds are left out.
    FileNotFoundError, ValueError: no folder, no images, or splits with different classes.
    """

    root: str

    def open(self) -> Contents:
        root = Path(self.root).expanduser()
        classes = {name: class_names(root, name) for name in ("train", "val")}
        if (root / "test").is_dir():
            classes["test"] = class_names(root, "test")
        for name, names in classes.items():
            if alone := sorted(set(names) ^ set(classes["train"])):
                raise ValueError(
                    f"root={root}: train/ and {name}/ hold different classes, {', '.join(alone[:5])}"
                    f"{', ...' if len(alone) > 5 else ''} in one of them only: labels would not match; rename folders"
                )
        files = {name: listed(root, name, classes["train"]) for name in classes}
        return Contents(
            albums={name: Paths([path for path, _ in pairs]) for name, pairs in files.items()},
            labels={name: [label for _, label in pairs] for name, pairs in files.items()},
            classes=classes["train"],
        )


def listed(root: Path, split: str, classes: list[str]) -> list[tuple[str, int]]:
    """Paths of a split with their labels."""
    pairs = []
    for label, name in enumerate(classes):
        images = list(images_in(root / split / name))
        if not images:
            raise FileNotFoundError(
                f"root={root}: no {'|'.join(sorted(SUFFIXES))} in {split}/{name}: fill or remove it"
            )
        pairs += [(path, label) for path in images]
    return pairs


def images_in(folder: str | Path) -> Iterator[str]:
    """Paths of the images in a folder and the folders in it, sorted. OSError names a folder that cannot be read."""
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if entry.name.startswith("."):
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from images_in(entry.path)
        elif os.path.splitext(entry.name)[1].lower() in SUFFIXES and (entry.is_file() or entry.is_symlink()):
            yield entry.path  # also a broken link, to be named when it is read; but no pipe, which would never end


def class_names(root: Path, split: str) -> list[str]:
    folder = root / split
    folders = folder.iterdir() if folder.is_dir() else []
    names = sorted(path.name for path in folders if path.is_dir() and not path.name.startswith("."))
    if not names:
        raise FileNotFoundError(
            f"root={root}: no class folders in {split}/: {LAYOUT}; give root=<folder that holds them>, "
            "unpack the set there, or use data=digits, which needs no files"
        )
    return names
