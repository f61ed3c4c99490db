"""A data set of the Hugging Face hub, or a local one, read by the library `datasets` (Lhoest et al., 2021)."""

import io
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

from patchbench.data.bands import Picture, open_picture
from patchbench.data.files import Contents, FileSet
from patchbench.data.splits import numbered

SPLITS = {"train": ("train",), "val": ("validation", "valid", "val", "dev"), "test": ("test",)}
LABELS = (
    "label",
    "labels",
    "class",
    "category",
    "target",
)  # names, if no column has the type


@dataclass(kw_only=True, eq=False)
class HuggingFace(FileSet):
    """`name` on the hub or a local path: parquet files, a folder of images, or the output of `save_to_disk`.

    config: configuration of the set, if it has several. image_column, label_column: None if their types tell them.
    Validation and test split are the set's own, or held out of its training images.
    OSError, ValueError: no such set, no network, or columns that cannot be told.
    """

    name: str | None
    config: str | None
    image_column: str | None
    label_column: str | None
    root: str | None

    def open(self) -> Contents:
        if not (where := self.root or self.name):
            raise ValueError("data=hf needs name=<owner/set on the hub> or root=<folder of a set>")
        what = f"name={self.name}" if self.root is None else f"root={self.root}"
        tables = loaded(what, where, self.config)
        from datasets import ClassLabel
        from datasets import Image as Pixels

        sets = {ours: tables[theirs] for ours, names in SPLITS.items() for theirs in names[::-1] if theirs in tables}
        if "train" not in sets:
            raise ValueError(f"{what} has no split named train, but {', '.join(tables)}: name another set")
        features = sets["train"].features
        likely = [c for c in features if isinstance(features[c], Pixels)]
        image = column("image", self.image_column, what, features, likely)
        classed = [c for c in features if isinstance(features[c], ClassLabel)]
        named = [c for c in features if c.lower() in LABELS and c != image]
        label = column("label", self.label_column, what, features, classed or named)
        albums = {name: Rows(rows, image, f"{where}, {name}") for name, rows in sets.items()}
        known = features[label]
        given = {name: list(rows[label]) for name, rows in sets.items()}
        names = self.classes
        if isinstance(known, ClassLabel):  # numbers of names
            names, words = known.names if names is None else names, dict(enumerate(known.names))
            given = {name: [words.get(label, label) for label in labels] for name, labels in given.items()}
        classes, labels = numbered(given, names, lambda split, i: albums[split].name(i))
        return Contents(albums, labels, classes)


class Rows:
    """Pictures in a column of a table, as bytes or as a path."""

    def __init__(self, rows: Any, column: str, what: str) -> None:
        from datasets import Image as Pixels

        self.rows, self.column, self.what = rows.select_columns([column]), column, what
        self.rows = self.rows.cast_column(column, Pixels(decode=False))

    def __len__(self) -> int:
        return len(self.rows)

    def open(self, index: int) -> Picture:
        cell = self.rows[index][self.column]
        if cell is None:
            raise OSError("the row holds no image")
        return open_picture(cell["path"] if cell["bytes"] is None else io.BytesIO(cell["bytes"]), cell["path"] or "")

    def name(self, index: int) -> str:
        path = (self.rows[index][self.column] or {}).get("path")
        return f"{self.what}, row {index}{f' ({path})' if path else ''}"


def loaded(what: str, where: str, config: str | None) -> Any:
    """Tables by the name of their split. ValueError, OSError in one line."""
    try:
        import datasets
        from huggingface_hub import constants
    except ImportError as error:
        raise ValueError("data=hf needs the package datasets: pip install 'patchbench[hf]'") from error
    folder = Path(where).expanduser()
    if not folder.exists() and not reachable(constants.ENDPOINT):
        constants.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE = True  # else: minutes
    saved = (folder / "dataset_dict.json").exists() or (folder / "state.json").exists()
    if not saved:
        refuse_linked_folders(folder)
    try:
        if saved:
            tables = datasets.load_from_disk(str(folder))
        else:
            tables = datasets.load_dataset(str(folder) if folder.exists() else where, config)
    except Exception as error:  # of the library, of the libraries below it, and of the hub: each in one line
        raise OSError(
            f"{what} cannot be read ({type(error).__name__}: {' '.join(str(error).split())}): see its page on the hub; "
            "if there is no network, give a local copy as root=<folder>"
        ) from error
    return {"train": tables} if isinstance(tables, datasets.Dataset) else dict(tables)


def refuse_linked_folders(root: Path) -> None:
    """ValueError if folders in `root` are links: the library would read what is beside them, without a word."""
    for above, folders, _ in os.walk(root):
        for name in folders:
            if (link := Path(above, name)).is_symlink():
                raise ValueError(
                    f"root={root}: the package datasets does not follow {link.relative_to(root)}, a linked folder: use "
                    f"data=imagefolder data.root={root}, which does, or put the files in its place"
                )


def reachable(url: str) -> bool:
    """True if the host of a URL answers; not tried behind a proxy."""
    if getproxies():
        return True
    try:
        socket.create_connection((urlsplit(url).hostname or "", urlsplit(url).port or 443), timeout=5).close()
    except OSError:
        return False
    return True


def column(kind: str, given: str | None, what: str, features: Any, likely: Sequence[str]) -> str:
    """Name of the column of images or labels: as given, or the only likely one. ValueError lists the columns."""
    if given is not None and given in features:
        return given
    if given is None and len(likely) == 1:
        return likely[0]
    why = f"there is no {given}" if given is not None else "types and names do not tell which"
    raise ValueError(f"{what} has the columns {', '.join(features)}: set {kind}_column=<column of the {kind}s> ({why})")
