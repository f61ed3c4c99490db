"""A data set of the Hugging Face hub, or one that lies here (Lhoest et al., 2021), read by their library."""

import io
import socket
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

from PIL import Image

from patchbench.checks import size
from patchbench.data.pictures import Pictures, Reading, channels, pictured
from patchbench.data.splits import numbered, parts
from patchbench.data.statistics import statistics

SPLITS = {"train": ("train",), "val": ("validation", "valid", "val", "dev"), "test": ("test",)}
LABELS = ("label", "labels", "class", "category", "target")  # of columns that are not marked as classes


class HuggingFace:
    """`name` on the hub or a local path: parquet files, a folder of images, or what `save_to_disk` wrote.

    config: which of the configurations of a set. image_column, label_column: null where they can be told from their
    types. Validation and test split are the set's own, or held out of its training images.
    OSError, ValueError: no such set, no network, or columns that cannot be told.
    """

    def __init__(
        self,
        *,
        name: str | None,
        config: str | None,
        image_column: str | None,
        label_column: str | None,
        img_size: int | Sequence[int],
        crop_pct: float,
        val_size: int | float,
        test_size: int | float,
        train_fraction: float | None,
        train_size: int | None,
        mirrors: bool,
        mean: Sequence[float] | None,
        std: Sequence[float] | None,
        on_error: str,
        root: str | None,
    ) -> None:
        self.img_size, self.mirrors = size("data.img_size", img_size), mirrors
        self.choose = partial(
            parts, val_size=val_size, test_size=test_size, train_fraction=train_fraction, train_size=train_size
        )
        self.mean, self.std = mean or [], std or []  # what is not given is measured by `splits`
        if not (where := root or name):
            raise ValueError("data=hf needs data.name=<owner/set on the hub> or data.root=<folder of a set>")
        self.what = f"data.name={name}" if root is None else f"data.root={root}"
        found = loaded(self.what, where, config)
        sets = {ours: found[theirs] for ours, names in SPLITS.items() for theirs in names[::-1] if theirs in found}
        if "train" not in sets:
            raise ValueError(f"{self.what} has no split named train, but {', '.join(found)}: name another set")
        from datasets import ClassLabel
        from datasets import Image as Pixels

        features = sets["train"].features
        image = column(
            "image", image_column, self.what, features, [c for c in features if isinstance(features[c], Pixels)]
        )
        marked = [c for c in features if isinstance(features[c], ClassLabel)]
        named = [c for c in features if c.lower() in LABELS and c != image]
        label = column("label", label_column, self.what, features, marked or named)
        self.albums = {name: Rows(rows, image, f"{self.what}, {name}") for name, rows in sets.items()}
        known = features[label]
        self.classes, self.labels = numbered(
            {name: list(rows[label]) for name, rows in sets.items()},
            range(known.num_classes) if isinstance(known, ClassLabel) else None,
            lambda split, i: self.albums[split].name(i),
        )
        self.num_classes = len(self.classes)
        self.in_chans = channels(self.albums["train"])
        self.reading = Reading(self.img_size, self.in_chans, crop_pct, on_error)

    def splits(self) -> dict[str, Pictures]:
        chosen = self.choose(self.labels)
        splits = pictured(self.albums, self.labels, chosen, self.reading)
        self.mean, self.std = statistics(splits["train"], self.in_chans, self.mean, self.std)
        return splits


class Rows:
    """Pictures in a column of a table, as the bytes or the path that it holds."""

    def __init__(self, rows: Any, column: str, what: str) -> None:
        from datasets import Image as Pixels

        self.rows, self.column, self.what = rows.select_columns([column]), column, what
        self.rows = self.rows.cast_column(column, Pixels(decode=False))

    def __len__(self) -> int:
        return len(self.rows)

    def open(self, index: int) -> Image.Image:
        held = self.rows[index][self.column]
        if held is None:
            raise OSError("the row holds no image")
        return Image.open(held["path"] if held["bytes"] is None else io.BytesIO(held["bytes"]))

    def name(self, index: int) -> str:
        path = (self.rows[index][self.column] or {}).get("path")
        return f"{self.what}, row {index}{f' ({path})' if path else ''}"


def loaded(what: str, where: str, config: str | None) -> Any:
    """The splits by name, in tables. ValueError, OSError in one line."""
    try:
        import datasets
        from huggingface_hub import constants
    except ImportError as error:
        raise ValueError("data=hf needs the package datasets: pip install 'patchbench[hf]'") from error
    folder = Path(where).expanduser()
    if not folder.exists() and not reachable(constants.ENDPOINT):
        constants.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE = True  # else: minutes
    try:
        if (folder / "dataset_dict.json").exists() or (folder / "state.json").exists():
            found = datasets.load_from_disk(str(folder))
        else:
            found = datasets.load_dataset(str(folder) if folder.exists() else where, config)
    except Exception as error:  # the library's own, of what it calls, and of the hub: one line is wanted of each
        raise OSError(
            f"{what} cannot be read ({type(error).__name__}: {' '.join(str(error).split())}): see its page on the hub; "
            "where there is no network, give a local copy as data.root=<folder>"
        ) from error
    return {"train": found} if isinstance(found, datasets.Dataset) else dict(found)


def reachable(url: str) -> bool:
    """Whether its host answers; taken to be so behind a proxy."""
    if getproxies():
        return True
    try:
        socket.create_connection((urlsplit(url).hostname or "", urlsplit(url).port or 443), timeout=5).close()
    except OSError:
        return False
    return True


def column(kind: str, given: str | None, what: str, features: Any, likely: Sequence[str]) -> str:
    """The column of images or of labels: as given, or the one that is likely. ValueError lists what there is."""
    if given is not None and given in features:
        return given
    if given is None and len(likely) == 1:
        return likely[0]
    why = f"there is no {given}" if given is not None else "which cannot be told"
    raise ValueError(
        f"{what} has the columns {', '.join(features)}: set data.{kind}_column to that of the {kind}s ({why})"
    )
