"""Tar archives in the layout of WebDataset (Aizman et al., 2019), read by number: `<key>.jpg` beside `<key>.cls`."""

import hashlib
import io
import json
import os
import re
import tarfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import fsspec
from PIL import Image

from patchbench.checks import size
from patchbench.data.pictures import Pictures, Reading, channels, pictured
from patchbench.data.sets.imagefolder import SUFFIXES
from patchbench.data.splits import numbered, parts
from patchbench.data.statistics import statistics

SPLITS = {"train": {"train"}, "val": {"val", "valid", "validation"}, "test": {"test"}}
VERSION = 1


class Member(NamedTuple):
    """An image in an archive: its name, where its bytes begin, how many there are, and its label."""

    name: str
    offset: int
    size: int
    label: int | str


class Shards:
    """Archives under `root`, a folder or a URL that fsspec knows; the word train, val or test in their path says whose.

    Read once for an index, which is kept in `index_dir`, then each image by its place: so any order of images can be
    had, and training goes on in the middle of an epoch, where a stream of archives would have to start again.
    label_key: of the label in `<key>.json`, where there is no `<key>.cls`.
    OSError, ValueError: there are no archives, one is cut short or compressed, or an image has no label.
    """

    def __init__(
        self,
        *,
        root: str,
        index_dir: str,
        label_key: str,
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
    ) -> None:
        self.img_size, self.mirrors = size("data.img_size", img_size), mirrors
        self.choose = partial(
            parts, val_size=val_size, test_size=test_size, train_fraction=train_fraction, train_size=train_size
        )
        self.mean, self.std = mean or [], std or []  # what is not given is measured by `splits`
        paths = archives(root)
        self.albums = {
            split: Members([(path, member) for path in found for member in indexed(path, Path(index_dir), label_key)])
            for split, found in paths.items()
        }
        labels = {split: [member.label for _, member in album.members] for split, album in self.albums.items()}
        self.classes, self.labels = numbered(labels, None, lambda split, i: self.albums[split].name(i))
        self.num_classes = len(self.classes)
        self.in_chans = channels(self.albums["train"])
        self.reading = Reading(self.img_size, self.in_chans, crop_pct, on_error)

    def splits(self) -> dict[str, Pictures]:
        chosen = self.choose(self.labels)
        splits = pictured(self.albums, self.labels, chosen, self.reading)
        self.mean, self.std = statistics(splits["train"], self.in_chans, self.mean, self.std)
        return splits


class Members:
    """Pictures in archives."""

    def __init__(self, members: Sequence[tuple[str, Member]]) -> None:
        self.members = members

    def __len__(self) -> int:
        return len(self.members)

    def open(self, index: int) -> Image.Image:
        url, member = self.members[index]
        files, path = fsspec.url_to_fs(url)  # anew: a connection does not outlive a fork; where it does, it is kept
        return Image.open(io.BytesIO(files.cat_file(path, member.offset, member.offset + member.size)))

    def name(self, index: int) -> str:
        url, member = self.members[index]
        return f"{url}: {member.name}"


def archives(root: str) -> dict[str, list[str]]:
    """URLs of archives by split, sorted. FileNotFoundError where none is to train on."""
    files, folder = fsspec.url_to_fs(os.path.expanduser(root))
    found: dict[str, list[str]] = {split: [] for split in SPLITS}
    for path in sorted(files.find(folder)):
        words = set(re.split(r"[^a-z]+", path[len(folder) :].lower()))
        for split, names in SPLITS.items():
            if path.endswith(".tar") and words & names:
                found[split].append(files.unstrip_protocol(path))
    if not found["train"]:
        raise FileNotFoundError(
            f"data.root={root}: no archives to train on: expected train-*.tar, and val-*.tar, test-*.tar if there are "
            "such splits, below it; point data.root at the folder that holds them"
        )
    return {split: urls for split, urls in found.items() if urls}


def indexed(url: str, index_dir: Path, label_key: str) -> list[Member]:
    """The images of an archive: read from its headers, unless that was done before and it is the same as then."""
    files, path = fsspec.url_to_fs(url)
    state = [VERSION, label_key, files.size(path), str(files.ukey(path))]
    kept = index_dir.expanduser() / f"{hashlib.sha256(url.encode()).hexdigest()[:16]}.json"
    try:
        held = json.loads(kept.read_text())
        if held["state"] == state:
            return [Member(*member) for member in held["members"]]
    except (OSError, ValueError, KeyError, TypeError):  # none, of another version, or cut short: made anew
        pass
    members = scanned(url, label_key)
    kept.parent.mkdir(parents=True, exist_ok=True)
    written = kept.with_suffix(f".{os.getpid()}")
    written.write_text(json.dumps({"state": state, "members": members}))
    written.replace(kept)
    return members


def scanned(url: str, label_key: str) -> list[Member]:
    images: dict[str, tuple[str, int, int]] = {}
    labels: dict[str, int | str] = {}
    try:
        with fsspec.open(url, "rb") as file, tarfile.open(fileobj=file, mode="r:") as archive:
            for entry in archive:
                folder, _, name = entry.name.rpartition("/")
                stem, _, suffix = name.partition(".")
                key = f"{folder}/{stem}"
                if not entry.isfile() or stem == "":
                    continue
                if f".{suffix.lower()}" in SUFFIXES:
                    images[key] = entry.name, entry.offset_data, entry.size
                elif suffix in ("cls", "json"):
                    said: Any = archive.extractfile(entry)
                    if (label := label_in(said.read(), suffix, label_key)) is None:
                        raise ValueError(f"{url}: {entry.name} tells no label: mend it, or set data.label_key")
                    labels[key] = label
            file.seek(archive.offset)  # where tarfile stopped, be it at an end or at what is no header
            if (end := file.read(tarfile.BLOCKSIZE)) != bytes(tarfile.BLOCKSIZE):
                raise EOFError(f"it breaks off after {archive.offset + len(end):,} bytes")
    except (tarfile.TarError, EOFError) as error:
        raise OSError(
            f"{url} is no tar archive, or compressed, or cut short ({error}): fetch it again, or unpack it with gunzip"
        ) from error
    for key, (name, *_) in images.items():
        if key not in labels:
            raise ValueError(f"{url}: {name} has no label, a .cls or .json of the same name: add it")
    return [Member(*image, labels[key]) for key, image in images.items()]


def label_in(said: bytes, suffix: str, label_key: str) -> int | str | None:
    """A whole number, a word, or None where it says neither."""
    try:
        if suffix == "json":
            label = json.loads(said).get(label_key)
        else:
            word = said.decode().strip()
            label = int(word) if re.fullmatch(r"-?\d+", word) else word
    except (ValueError, AttributeError):
        return None
    return label if isinstance(label, int | str) and label != "" else None
