"""Images in class folders, in the layout of ImageNet: train/<class>/*.jpeg, val/<class>/*.jpeg."""

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
    """Class folders in root/train, root/val and root/test; classes are numbered in the order of their names.

    The folder `val` may be called valid or validation. If there is only one of val and test, it is the test split, as
    usual for ImageNet, and `val_size` images of root/train are held out for validation. Hidden files are left out; so
    are files of other kinds, and a remark counts them.
    FileNotFoundError, ValueError: there is no folder, no images, or splits have different classes.
    """

    root: str

    def open(self) -> Contents:
        root = Path(self.root).expanduser()
        existing = [name for names in FOLDERS.values() for name in [n for n in names if (root / n).is_dir()][:1]]
        names = {name: class_names(root, name) for name in (existing if len(existing) > 1 else ["train", "val"])}
        classes = names["train"] if self.classes is None else [str(name) for name in self.classes]
        for name, folders in names.items():
            differing = sorted(set(folders) - set(classes) if self.classes is not None else set(folders) ^ set(classes))
            examples = f"{', '.join(differing[:5])}{', ...' * (len(differing) > 5)}"
            if differing and self.classes is not None:
                known = f"{', '.join(classes[:5])}{', ...' * (len(classes) > 5)}"
                raise ValueError(
                    f"root={root}: the folders {examples} in {name}/ are none of the {len(classes)} known classes "
                    f"({known}): labels would not match; rename folders"
                )
            if differing:
                raise ValueError(
                    f"root={root}: train/ and {name}/ hold different classes, {examples} in one of them only: labels "
                    "would not match; rename folders"
                )
        left_out = Counter[str]()
        split_of = {name: split for split, folders in FOLDERS.items() for name in folders}
        files = {
            split_of[name]: labelled_paths(root, name, folders, classes, left_out) for name, folders in names.items()
        }
        if left_out:
            kinds = ", ".join(f"{count} {suffix or 'without ending'}" for suffix, count in left_out.most_common(5))
            self.remarks.append(f"{left_out.total()} files are not images and are left out: {kinds}")
        return Contents(
            albums={split: Paths([path for path, _ in pairs]) for split, pairs in files.items()},
            labels={split: [label for _, label in pairs] for split, pairs in files.items()},
            classes=classes,
        )


def labelled_paths(
    root: Path, split: str, folders: list[str], classes: list[str], left_out: Counter[str]
) -> list[tuple[str, int]]:
    """List the paths of the images of a split with their labels. left_out: counts other files by their endings."""
    numbers = {name: number for number, name in enumerate(classes)}
    above = (inode(root), inode(root / split))
    pairs = []
    for name in folders:
        images = list(images_in(root / split / name, above, left_out))
        if not images:
            raise FileNotFoundError(
                f"root={root}: no {'|'.join(sorted(SUFFIXES))} in {split}/{name}: fill or remove it"
            )
        pairs += [(path, numbers[name]) for path in images]
    return pairs


def inode(folder: str | Path) -> tuple[int, int]:
    """Return device and inode of a folder, which are the same through every link."""
    status = os.stat(folder)
    return status.st_dev, status.st_ino


def images_in(folder: str | Path, above: tuple[tuple[int, int], ...], left_out: Counter[str]) -> Iterator[str]:
    """List the paths of the images in a folder and below, including linked folders, sorted by name.

    above: parent folders as (device, inode), which a link must not enter again. OSError names a folder that cannot be
    read, or a broken link that may have been a folder.
    """
    above = (*above, inode(folder))
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            if not entry.is_symlink() or inode(entry.path) not in above:
                yield from images_in(entry.path, above, left_out)
            continue
        suffix = os.path.splitext(entry.name)[1].lower()
        if suffix in SUFFIXES and (entry.is_file() or entry.is_symlink()):
            yield entry.path  # also a broken link, which reading will report; but no pipe, which would block
        elif entry.is_file():
            left_out[suffix] += 1
        else:
            check_link(Path(entry.path))


def check_link(path: Path) -> Path:
    """Return the same path. FileNotFoundError if it is a broken link, for example to a disk that is not mounted."""
    if path.is_symlink() and not path.exists():
        raise FileNotFoundError(f"{path} is a link to {os.readlink(path)}, which does not exist: mend or remove it")
    return path


def class_names(root: Path, split: str) -> list[str]:
    folder = root / split
    folders = folder.iterdir() if folder.is_dir() else []
    names = sorted(path.name for path in folders if not path.name.startswith(".") and check_link(path).is_dir())
    if not names:
        raise FileNotFoundError(
            f"root={root}: no class folders in {split}/: {LAYOUT}; give root=<folder that holds them>, "
            "unpack the set into this folder, or use data=digits, which needs no files"
        )
    if reserved := [name for name in names if name == "???" or "${" in name]:  # special values for OmegaConf
        raise ValueError(f"root={root}: the folder {reserved[0]} in {split}/ cannot be the name of a class: rename it")
    return names
