"""Images in class folders, laid out as ImageNet is: train/<class>/*.jpeg, val/<class>/*.jpeg."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from patchbench.data.files import Contents, FileSet
from patchbench.data.pictures import Paths

SUFFIXES = {".jpg", ".jpeg", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".avif", ".npy"}
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
        names = {name: class_names(root, name) for name in ("train", "val")}
        if (root / "test").is_dir():
            names["test"] = class_names(root, "test")
        classes = names["train"] if self.classes is None else [str(name) for name in self.classes]
        for name, there in names.items():
            alone = sorted(set(there) - set(classes) if self.classes is not None else set(there) ^ set(classes))
            few = f"{', '.join(alone[:5])}{', ...' * (len(alone) > 5)}"
            if alone and self.classes is not None:
                known = f"{', '.join(classes[:5])}{', ...' * (len(classes) > 5)}"
                raise ValueError(
                    f"root={root}: the folders {few} in {name}/ are none of the {len(classes)} known classes "
                    f"({known}): labels would not match; rename folders"
                )
            if alone:
                raise ValueError(
                    f"root={root}: train/ and {name}/ hold different classes, {few} in one of them only: labels would "
                    "not match; rename folders"
                )
        files = {name: listed(root, name, there, classes) for name, there in names.items()}
        return Contents(
            albums={name: Paths([path for path, _ in pairs]) for name, pairs in files.items()},
            labels={name: [label for _, label in pairs] for name, pairs in files.items()},
            classes=classes,
        )


def listed(root: Path, split: str, folders: list[str], classes: list[str]) -> list[tuple[str, int]]:
    """Paths of a split with their labels."""
    numbers = {name: number for number, name in enumerate(classes)}
    above = (place(root), place(root / split))
    pairs = []
    for name in folders:
        images = list(images_in(root / split / name, above))
        if not images:
            raise FileNotFoundError(
                f"root={root}: no {'|'.join(sorted(SUFFIXES))} in {split}/{name}: fill or remove it"
            )
        pairs += [(path, numbers[name]) for path in images]
    return pairs


def place(folder: str | Path) -> tuple[int, int]:
    """Device and inode of a folder, the same through every link."""
    status = os.stat(folder)
    return status.st_dev, status.st_ino


def images_in(folder: str | Path, above: tuple[tuple[int, int], ...]) -> Iterator[str]:
    """Paths of the images in a folder and the folders in it, linked ones among them, sorted.

    above: places of folders that a link must not enter again. OSError names a folder that cannot be read.
    """
    above = (*above, place(folder))
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            if not entry.is_symlink() or place(entry.path) not in above:
                yield from images_in(entry.path, above)
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
