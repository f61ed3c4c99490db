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
from patchbench.data.splits import number_labels

SPLITS = {"train": ("train",), "val": ("validation", "valid", "val", "dev"), "test": ("test",)}
LABELS = (
    "label",
    "labels",
    "class",
    "category",
    "target",
)  # names of a label column, if no column has the type ClassLabel


@dataclass(kw_only=True, eq=False)
class HuggingFace(FileSet):
    """A data set by its name on the hub, or in the local folder `root`.

    root: parquet files, a folder of images, or the output of `save_to_disk`. config: configuration of the set, if it
    has several. image_column, label_column: names of the columns; None finds them by their types and names. Validation
    and test splits are those of the set, or are held out of its training images. OSError, ValueError: there is no such
    set, no network, or the columns are ambiguous.
    """

    name: str | None
    config: str | None
    image_column: str | None
    label_column: str | None
    root: str | None

    def open(self) -> Contents:
        if not (path := self.root or self.name):
            raise ValueError("data=hf needs name=<owner/set on the hub> or root=<folder of a set>")
        option = f"name={self.name}" if self.root is None else f"root={self.root}"
        tables = load_tables(option, path, self.config)
        from datasets import ClassLabel
        from datasets import Image as Pixels

        sets = {split: tables[name] for split, names in SPLITS.items() for name in names[::-1] if name in tables}
        if "train" not in sets:
            raise ValueError(f"{option} has no split named train, but {', '.join(tables)}: use another set")
        features = sets["train"].features
        candidates = [c for c in features if isinstance(features[c], Pixels)]
        image = choose_column("image", self.image_column, option, features, candidates)
        by_type = [c for c in features if isinstance(features[c], ClassLabel)]
        by_name = [c for c in features if c.lower() in LABELS and c != image]
        label = choose_column("label", self.label_column, option, features, by_type or by_name)
        albums = {name: Rows(rows, image, f"{path}, {name}") for name, rows in sets.items()}
        feature = features[label]
        given = {name: list(rows[label]) for name, rows in sets.items()}
        names = self.classes
        if isinstance(feature, ClassLabel):  # labels are numbers of names
            names, words = feature.names if names is None else names, dict(enumerate(feature.names))
            given = {name: [words.get(label, label) for label in labels] for name, labels in given.items()}
        classes, labels = number_labels(given, names, lambda split, i: albums[split].name(i))
        return Contents(albums, labels, classes)


class Rows:
    """Album of the pictures in a column of a table, stored as bytes or as paths. prefix: of the picture names."""

    def __init__(self, rows: Any, column: str, prefix: str) -> None:
        from datasets import Image as Pixels

        self.rows, self.column, self.prefix = rows.select_columns([column]), column, prefix
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
        return f"{self.prefix}, row {index}{f' ({path})' if path else ''}"


def load_tables(option: str, path: str, config: str | None) -> Any:
    """Load the tables of a set, by the names of its splits. option: for messages.

    ValueError or OSError, with a message of one line, if the package `datasets` is missing or the set cannot be read.
    """
    try:
        import datasets
        from huggingface_hub import constants
    except ImportError as error:
        raise ValueError("data=hf needs the package datasets: pip install 'patchbench[hf]'") from error
    folder = Path(path).expanduser()
    if not folder.exists() and not reachable(constants.ENDPOINT):
        constants.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE = True  # otherwise retries take minutes
    saved = (folder / "dataset_dict.json").exists() or (folder / "state.json").exists()
    if not saved:
        refuse_linked_folders(folder)
    try:
        if saved:
            tables = datasets.load_from_disk(str(folder))
        else:
            tables = datasets.load_dataset(str(folder) if folder.exists() else path, config)
    except Exception as error:  # of `datasets`, its dependencies, or the hub: put into one line
        raise OSError(
            f"{option} cannot be read ({type(error).__name__}: {' '.join(str(error).split())}): see its page on the "
            "hub; if there is no network, give a local copy as root=<folder>"
        ) from error
    return {"train": tables} if isinstance(tables, datasets.Dataset) else dict(tables)


def refuse_linked_folders(root: Path) -> None:
    """Raise ValueError if folders in `root` are links: `datasets` would skip them without a warning."""
    for above, folders, _ in os.walk(root):
        for name in folders:
            if (link := Path(above, name)).is_symlink():
                raise ValueError(
                    f"root={root}: the package datasets does not follow {link.relative_to(root)}, a linked folder: use "
                    f"data=imagefolder data.root={root}, which follows links, or replace the link by the files"
                )


def reachable(url: str) -> bool:
    """True if the host of a URL answers, or if there is a proxy, where this cannot be tested."""
    if getproxies():
        return True
    try:
        socket.create_connection((urlsplit(url).hostname or "", urlsplit(url).port or 443), timeout=5).close()
    except OSError:
        return False
    return True


def choose_column(kind: str, given: str | None, option: str, features: Any, candidates: Sequence[str]) -> str:
    """Return the given column, or the only candidate. kind: image or label. ValueError lists the columns."""
    if given is not None and given in features:
        return given
    if given is None and len(candidates) == 1:
        return candidates[0]
    why = f"there is no {given}" if given is not None else "types and names do not tell which"
    raise ValueError(
        f"{option} has the columns {', '.join(features)}: set {kind}_column=<column of the {kind}s> ({why})"
    )
