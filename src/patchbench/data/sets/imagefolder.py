"""Images in class folders, laid out as ImageNet is: train/<class>/*.jpeg, val/<class>/*.jpeg."""

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from patchbench.data.files import Contents, FileSet
from patchbench.data.pictures import Paths

SUFFIXES = {".jpg", ".jpeg", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".avif", ".npy"}
LAYOUT = "expected train/<class>/<image>, and val/<class>/<image> or test/<class>/<image> or both"
FOLDERS = {"train": ["train"], "val": ["val", "valid", "validation"], "test": ["test"]}


@dataclass(kw_only=True, eq=False)
class ImageFolder(FileSet):
    """Class folders under root/train and root/val; classes are numbered by name.

    With root/test, `val` chooses and `test` judges; `val` may be called valid or validation. Where there is one of them
    only, it is the test split, as root/val is usually for ImageNet, and `val_size` of root/train is held out for
    validation. Hidden files are left out, and files of other kinds, which a remark counts.
    FileNotFoundError, ValueError: no folder, no images, or splits with different classes.
    """

    root: str

    def open(self) -> Contents:
        root = Path(self.root).expanduser()
        there = [name for names in FOLDERS.values() for name in [n for n in names if (root / n).is_dir()][:1]]
        names = {name: class_names(root, name) for name in (there if len(there) > 1 else ["train", "val"])}
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
        left_out = Counter[str]()
        split_of = {name: split for split, folders in FOLDERS.items() for name in folders}
        files = {split_of[name]: listed(root, name, there, classes, left_out) for name, there in names.items()}
        if left_out:
            kinds = ", ".join(f"{count} {suffix or 'without ending'}" for suffix, count in left_out.most_common(5))
            self.remarks.append(f"{left_out.total()} files are of other kinds than images and are left out: {kinds}")
        return Contents(
            albums={split: Paths([path for path, _ in pairs]) for split, pairs in files.items()},
            labels={split: [label for _, label in pairs] for split, pairs in files.items()},
            classes=classes,
        )


def listed(
    root: Path, split: str, folders: list[str], classes: list[str], left_out: Counter[str]
) -> list[tuple[str, int]]:
    """Paths of a split with their labels. left_out: counts the files of other kinds by their endings."""
    numbers = {name: number for number, name in enumerate(classes)}
    above = (place(root), place(root / split))
    pairs = []
    for name in folders:
        images = list(images_in(root / split / name, above, left_out))
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


def images_in(folder: str | Path, above: tuple[tuple[int, int], ...], left_out: Counter[str]) -> Iterator[str]:
    """Paths of the images in a folder and the folders in it, linked ones among them, sorted.

    above: places of folders that a link must not enter again. OSError names a folder that cannot be read, or a
    link to nothing that may have been one.
    """
    above = (*above, place(folder))
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            if not entry.is_symlink() or place(entry.path) not in above:
                yield from images_in(entry.path, above, left_out)
            continue
        suffix = os.path.splitext(entry.name)[1].lower()
        if suffix in SUFFIXES and (entry.is_file() or entry.is_symlink()):
            yield entry.path  # also a broken link, to be named when it is read; but no pipe, which would never end
        elif entry.is_file():
            left_out[suffix] += 1
        else:
            not_broken(Path(entry.path))


def not_broken(path: Path) -> Path:
    """The same path. FileNotFoundError if it is a link to nothing, such as to a disk that is not mounted."""
    if path.is_symlink() and not path.exists():
        raise FileNotFoundError(f"{path} is a link to {os.readlink(path)}, which is not there: mend or remove it")
    return path


def class_names(root: Path, split: str) -> list[str]:
    folder = root / split
    folders = folder.iterdir() if folder.is_dir() else []
    names = sorted(path.name for path in folders if not path.name.startswith(".") and not_broken(path).is_dir())
    if not names:
        raise FileNotFoundError(
            f"root={root}: no class folders in {split}/: {LAYOUT}; give root=<folder that holds them>, "
            "unpack the set there, or use data=digits, which needs no files"
        )
    if odd := [name for name in names if name == "???" or "${" in name]:  # OmegaConf reads more in them, as in options
        raise ValueError(f"root={root}: the folder {odd[0]} in {split}/ cannot be the name of a class: rename it")
    return names
