"""Tar archives in the layout of WebDataset (Aizman et al., 2019), read by number: `<key>.jpg` beside `<key>.cls`."""

import hashlib
import io
import json
import os
import re
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import fsspec

from patchbench.data.bands import Picture, open_picture
from patchbench.data.files import Contents, FileSet
from patchbench.data.fingerprint import INDEX_SUFFIX
from patchbench.data.sets.imagefolder import SUFFIXES
from patchbench.data.splits import number_labels
from patchbench.machine import whole_file

SPLITS = {"train": {"train"}, "val": {"val", "valid", "validation"}, "test": {"test"}}
VERSION = 2


class Member(NamedTuple):
    """An image in an archive: its name, the offset and number of its bytes, and its label."""

    name: str
    offset: int
    size: int
    label: int | str


@dataclass(kw_only=True, eq=False)
class Shards(FileSet):
    """Archives under `root`, a folder or a URL of fsspec; the word train, val or test in a path tells the split.

    Each archive is read once to make an index, which is stored in `index_dir`; then each image is read by its offset.
    So images can be read in any order, and training resumes in the middle of an epoch, unlike with a stream of
    archives. label_key: key of the label in `<key>.json`, for images without `<key>.cls`. image_key: ending of the
    images, such as jpg, or rgb.png for `<key>.rgb.png`; None takes the only image of each key.
    OSError, ValueError: there are no archives, an archive is incomplete or compressed, or an image has no label.
    """

    root: str
    index_dir: str
    label_key: str
    image_key: str | None

    def open(self) -> Contents:
        folder = Path(self.index_dir).expanduser()
        albums = {
            split: Members(
                [(url, member) for url in urls for member in read_index(url, folder, self.label_key, self.image_key)]
            )
            for split, urls in archives(self.root).items()
        }
        given = {split: [member.label for _, member in album.members] for split, album in albums.items()}
        classes, labels = number_labels(given, self.classes, lambda split, i: albums[split].name(i))
        return Contents(albums, labels, classes)


class Members:
    """Album of pictures in archives."""

    def __init__(self, members: Sequence[tuple[str, Member]]) -> None:
        self.members = members

    def __len__(self) -> int:
        return len(self.members)

    def open(self, index: int) -> Picture:
        url, member = self.members[index]
        files, path = fsspec.url_to_fs(url)  # each time, as no connection survives a fork; fsspec caches per process
        content = files.cat_file(path, member.offset, member.offset + member.size)
        return open_picture(io.BytesIO(content), member.name)

    def name(self, index: int) -> str:
        url, member = self.members[index]
        return f"{url}: {member.name}"


def archives(root: str) -> dict[str, list[str]]:
    """Find the URLs of the archives of each split, sorted. FileNotFoundError if there is none for training."""
    files, folder = fsspec.url_to_fs(os.path.expanduser(root))
    urls: dict[str, list[str]] = {split: [] for split in SPLITS}
    for path in sorted(files.find(folder)):
        words = set(re.split(r"[^a-z]+", path[len(folder) :].lower()))
        for split, names in SPLITS.items():
            if path.endswith(".tar") and words & names:
                urls[split].append(files.unstrip_protocol(path))
    if not urls["train"]:
        raise FileNotFoundError(
            f"root={root}: no archives to train on: expected train-*.tar, and val-*.tar or test-*.tar for other "
            "splits, below this folder; give root=<folder that holds them>"
        )
    return {split: paths for split, paths in urls.items() if paths}


def read_index(url: str, index_dir: Path, label_key: str, image_key: str | None) -> list[Member]:
    """List the images of an archive, from its index; if the archive has changed, make a new index first."""
    files, path = fsspec.url_to_fs(url)
    state = [VERSION, label_key, image_key, files.size(path), str(files.ukey(path))]
    index = index_dir / f"{hashlib.sha256(url.encode()).hexdigest()[:16]}{INDEX_SUFFIX}"
    try:
        content = json.loads(index.read_text())
        if content["state"] == state:
            return [Member(*member) for member in content["members"]]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        pass  # no index, a damaged one, or one of another version
    members = scan_archive(url, label_key, image_key)
    with whole_file(index) as file:
        json.dump({"state": state, "members": members}, file)
    return members


def scan_archive(url: str, label_key: str, image_key: str | None) -> list[Member]:
    """List the images of an archive by reading its headers. OSError or ValueError with a message of one line."""
    ending = None if image_key is None else image_key.lower().lstrip(".")
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
                if suffix.lower() == ending or (ending is None and f".{suffix.lower()}" in SUFFIXES):
                    if key in images:
                        same = images[key][0].lower() == entry.name.lower()
                        cure = "remove one" if same else f"choose one, as in image_key={suffix.lower()}"
                        raise ValueError(f"{url}: {images[key][0]} and {entry.name} are two images of one key: {cure}")
                    images[key] = entry.name, entry.offset_data, entry.size
                elif suffix.lower() in ("cls", "json"):
                    member: Any = archive.extractfile(entry)
                    if (label := parse_label(member.read(), suffix.lower(), label_key)) is None:
                        raise ValueError(
                            f"{url}: {entry.name} has no label: mend it, or set label_key=<key of the label>"
                        )
                    labels[key] = label
            file.seek(archive.offset)  # tarfile stops at the end, or at bytes that are no header
            if (end := file.read(tarfile.BLOCKSIZE)) != bytes(tarfile.BLOCKSIZE):
                raise EOFError(f"it ends after {archive.offset + len(end):,} bytes")
    except (tarfile.TarError, EOFError) as error:
        raise OSError(
            f"{url} is no tar archive, or compressed, or incomplete ({error}): fetch it again, or unpack it with gunzip"
        ) from error
    if ending is not None and not images:
        raise ValueError(f"{url} holds no images that end in .{ending}: give image_key=<ending of the images>, or null")
    if labels and not images:
        raise ValueError(f"{url} holds labels and no {'|'.join(sorted(SUFFIXES))}: convert its images, or remove it")
    for key, (name, *_) in images.items():
        if key not in labels:
            raise ValueError(f"{url}: {name} has no label, a .cls or .json of the same name: add it")
    return [Member(*image, labels[key]) for key, image in images.items()]


def parse_label(content: bytes, suffix: str, label_key: str) -> int | str | None:
    """Read the label in the content of a .cls or .json file: a whole number or a word; None if it is neither."""
    try:
        if suffix == "json":
            label = json.loads(content).get(label_key)
        else:
            word = content.decode().strip()
            label = int(word) if re.fullmatch(r"-?\d+", word) else word
    except (ValueError, AttributeError, RecursionError):  # RecursionError: deeply nested lists
        return None
    return label if isinstance(label, int | str) and label != "" else None
