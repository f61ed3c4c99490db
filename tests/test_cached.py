"""A cache holds the images of its source, bit for bit, or is refused; the storage of images changes no batch."""

import gc
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from PIL import Image
from support import ROOT, configure, options, record, some

from patchbench.commands.build import build_augment, build_source
from patchbench.data.batches import Batches, Reader
from patchbench.data.cache_chunks import in_parallel
from patchbench.data.cache_format import DONE, META, PLAN, crc32, images_file
from patchbench.data.cache_verify import verify
from patchbench.data.cache_writer import make_chunks, prepare
from patchbench.data.fingerprint import fingerprint
from patchbench.data.order import BatchIndices
from patchbench.data.pictures import BadImage
from patchbench.data.sets.cached import Cached
from patchbench.data.sets.random import Random
from patchbench.data.source import InMemory, Source
from patchbench.train.trainer import quiet

SIZE = 48


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make class folders of JPEGs in several shapes, with a name that is not ASCII."""
    root, rng = tmp_path_factory.mktemp("data") / "Bildersammlung für Žofie 図", np.random.default_rng(0)
    for split, count in {"train": 40, "val": 12}.items():
        for name in ("Käfer", "ant"):
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                coarse = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
                Image.fromarray(coarse).resize((80 + i, 110 - i)).save(folder / f"{i:03}é.jpg")
    return root


def folder_source(root: Path, size: int = SIZE) -> Any:
    return build_source(
        configure("data=imagefolder", f"data.root='{root}'", f"data.img_size={size}", "data.crop_pct=1.0")
    )


def write(source: Source, out: Path, **knobs: Any) -> dict[str, Any]:
    return prepare(source, out, **{"made_from": {"set": "this"}, "command": "the same command", "workers": 0} | knobs)


@pytest.fixture(scope="module")
def cache(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a cache to read; tests that change a cache make their own."""
    out = tmp_path_factory.mktemp("caches") / "Ablage ß"
    write(folder_source(photos), out, workers=2)
    return out


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """Make a cache of a few random images, which tests may damage."""
    write(Random(img_size=8, in_chans=3, num_classes=5, train_size=20, eval_size=6), tmp_path / "small")
    return tmp_path / "small"


def cached(root: Path, *overrides: str) -> Cached:
    return build_source(configure("data=cached", f"data.root='{root}'", *overrides))


def everything(split: Any) -> tuple[torch.Tensor, torch.Tensor]:
    return split.read(range(len(split)))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_cache_is_its_source_to_the_bit(photos, cache):
    source, copy = folder_source(photos), cached(cache)
    source.splits()  # measures mean and standard deviation
    for fact in ("img_size", "in_chans", "num_classes", "mirrors", "mean", "std", "classes"):
        assert getattr(copy, fact) == getattr(source, fact), fact
    found = copy.splits()
    assert list(found) == ["train", "val", "test"]
    for name, split in source.splits().items():
        for ours, theirs in zip(everything(found[name]), everything(split), strict=True):
            assert torch.equal(ours, theirs)
    assert verify(cache, workers=2) == 2 * (40 + 12)
    assert sorted(path.name for path in cache.iterdir()) == sorted(
        [META, *(f"{name}.{what}.npy" for name in found for what in ("images", "labels"))]
    )


@pytest.mark.parametrize("data", [name for name in options("data") if name not in ("cached", "cifar10", "cifar100")])
def test_every_set_can_be_prepared(data):
    cfg = configure(f"data={data}", "size=24", "out=there", command="prepare")
    assert (cfg.size, cfg.out) == (24, "there")
    assert "img_size" in cfg.data


def test_normalised_by_the_source_or_as_measured(photos, cache):
    pixels = everything(cached(cache).splits()["train"])[0].double() / 255
    measured = cached(cache, "data.normalise=measured")
    assert measured.mean == pytest.approx(pixels.mean((0, 2, 3)).tolist())
    assert measured.std == pytest.approx(pixels.std((0, 2, 3), correction=0).tolist())
    source = folder_source(photos)
    source.splits()
    assert cached(cache).mean == source.mean


def test_of_larger_images_evaluation_sees_the_centre_and_training_its_crop(cache):
    whole, part = cached(cache).splits()["val"], cached(cache, "data.img_size=[32,40]").splits()["val"]
    assert (whole.crops, part.crops) == (False, True)
    images, _ = everything(whole)
    assert torch.equal(everything(part)[0], images[:, :, 8:40, 4:44])

    def corner(draws: torch.Tensor, sizes: torch.Tensor) -> torch.Tensor:
        assert sizes.tolist() == [[SIZE, SIZE]] * len(draws)
        return torch.stack([draws, draws + 1, torch.full_like(draws, 32), torch.full_like(draws, 40)], 1)

    cropped, labels = part.read([3, 1], torch.tensor([5, 0]), corner)
    assert torch.equal(cropped, torch.stack([images[3, :, 5:37, 6:46], images[1, :, :32, 1:41]]))
    assert labels.tolist() == whole.labels[[3, 1]].tolist()

    flat = torch.full((1, 3, SIZE, SIZE), 7, dtype=torch.uint8)
    part.mapped = flat.numpy()
    scaled, _ = part.read([0], torch.tensor([0]), lambda draws, sizes: torch.tensor([[3, 2, 10, 12]]))
    assert torch.equal(scaled, torch.full((1, 3, 32, 40), 7, dtype=torch.uint8))


def test_what_is_larger_than_the_cache_is_refused(cache):
    with pytest.raises((ValueError, OSError), match=r"data\.img_size=64 is larger .* data\.img_size=48"):
        cached(cache, "data.img_size=64")


def damage_version(cache: Path) -> None:
    meta = json.loads((cache / META).read_text())
    (cache / META).write_text(json.dumps(meta | {"format": 99}))


def damage_mean(cache: Path) -> None:
    meta = json.loads((cache / META).read_text())
    (cache / META).write_text(json.dumps(meta | {"num_classes": 6}))


def cut_short(name: str, missing: int) -> Callable[[Path], None]:
    def damage(cache: Path) -> None:
        os.truncate(cache / name, (cache / name).stat().st_size - missing)

    return damage


def of_another(cache: Path) -> None:
    np.save(images_file(cache, "val"), np.zeros((6, 3, 9, 8), np.uint8))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda cache: (cache / META).unlink(), ["data.root=", f"no {META}", "scripts/prepare_data.py"]),
        (damage_version, ["format 99", "reads format 1", "scripts/prepare_data.py"]),
        (damage_mean, [META, "is damaged", "scripts/prepare_data.py"]),
        (cut_short(META, 9), [META, "is damaged", "scripts/prepare_data.py"]),
        (cut_short("train.images.npy", 1), ["train.images.npy", "damaged", "scripts/prepare_data.py"]),
        (cut_short("val.labels.npy", 8), ["val.labels.npy", "damaged", "scripts/prepare_data.py"]),
        (cut_short("val.labels.npy", 100), ["val.labels.npy", "damaged", "scripts/prepare_data.py"]),
        (cut_short("test.images.npy", -1), ["test.images.npy", "longer", "scripts/prepare_data.py"]),
        (lambda cache: images_file(cache, "test").unlink(), ["test.images.npy", "missing", "scripts/prepare_data.py"]),
        (of_another, ["val.images.npy", "[6, 3, 9, 8]", "[6, 3, 8, 8]", "scripts/prepare_data.py"]),
    ],
)
def test_a_damaged_cache_is_refused_in_one_line(small, damage, said):
    assert len(cached(small).splits()["train"]) == 20
    damage(small)
    with pytest.raises((ValueError, OSError)) as refused:
        cached(small)
    message = str(refused.value)
    assert "\n" not in message
    for words in said:
        assert words in message


@pytest.mark.parametrize("name", ["train.images.npy", "val.labels.npy"])
def test_a_flipped_bit_is_found_by_verification(small, name):
    assert verify(small, workers=0) == 32
    flipped = bytearray((small / name).read_bytes())
    flipped[-5] ^= 1
    (small / name).write_bytes(flipped)
    with pytest.raises(
        ValueError, match=rf"{name.split('.')[0]}\.images\.npy or its labels: 0 to .* have changed since they were"
    ):
        verify(small, workers=0)


def flip(path: Path, *places: int) -> None:
    """Flip a bit of the bytes at these offsets, counted from the end."""
    held = bytearray(path.read_bytes())
    for place in places:
        held[-1 - place] ^= 8
    path.write_bytes(held)


IMAGE = 3 * 8 * 8  # bytes of an image of `small`


@pytest.fixture
def in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a cache of random images, with three images per part and seven per chunk."""
    monkeypatch.setattr("patchbench.data.cache_writer.CHUNK_BYTES", 7 * IMAGE)
    monkeypatch.setattr("patchbench.data.cache_parts.PART_BYTES", 3 * IMAGE + 1)
    write(Random(img_size=8, in_chans=3, num_classes=5, train_size=20, eval_size=6), tmp_path / "parts")
    return tmp_path / "parts"


def test_each_part_of_a_cache_has_a_checksum(in_parts):
    """Each image is in one part, and each part within one chunk."""
    train = cached(in_parts).splits()["train"]
    spans = [(part.start, part.stop) for part in train.parts]
    assert spans == [(0, 3), (3, 6), (6, 7), (7, 10), (10, 13), (13, 14), (14, 17), (17, 20)]


@pytest.mark.parametrize("workers", [0, 2])
def test_what_is_damaged_is_refused_when_it_is_first_read_and_not_before(in_parts, workers):
    """One line names file, images and cure; images of other parts can be read."""
    before, labels = everything(cached(in_parts).splits()["train"])
    flip(in_parts / "train.images.npy", 9 * IMAGE)  # the last byte of the eleventh image
    split = cached(in_parts).splits()["train"]
    others = [*range(10), *range(13, 20)]
    images, found = split.read(others)
    assert torch.equal(images, before[others])
    assert torch.equal(found, labels[others])
    for index in (10, 11, 12):
        gc.collect()  # so that no iterator of before closes its pipes while this one opens its own
        loader = torch.utils.data.DataLoader(
            Reader(split, None), None, sampler=[BatchIndices([index])], num_workers=workers
        )
        with pytest.raises(BadImage) as refused:
            next(iter(loader))
        assert str(refused.value).startswith(f"{in_parts}/train.images.npy or its labels: 10 to 12 have changed si")
        assert f"remove {in_parts} and run python scripts/prepare_data.py again" in str(refused.value)
        assert "\n" not in str(refused.value)


@pytest.mark.promise(
    "a byte of cached pixels or labels flips",
    "It is not learned from, and file and images are named",
)
def test_every_flipped_byte_is_noticed(in_parts, record_property):
    record_property("trials", 66)
    images = in_parts / "val.images.npy"
    for place in np.random.default_rng(0).integers(6 * IMAGE, size=60):
        flip(images, place)
        with pytest.raises(BadImage, match=r"val\.images\.npy"):
            everything(cached(in_parts).splits()["val"])
        flip(images, place)
    for place in range(0, 6 * 8, 8):
        flip(in_parts / "val.labels.npy", place + 7)  # the lowest byte of a label
        with pytest.raises((ValueError, OSError), match=r"val\.(images|labels)\.npy"):
            everything(cached(in_parts).splits()["val"])
        flip(in_parts / "val.labels.npy", place + 7)
    everything(cached(in_parts).splits()["val"])


def test_a_part_is_checked_once_by_all_processes_of_a_rank(in_parts, monkeypatch):
    split = cached(in_parts).splits()["train"]
    order = [BatchIndices([i, i + 1]) for i in range(0, 20, 2)]
    assert len(list(torch.utils.data.DataLoader(Reader(split, None), None, sampler=order, num_workers=2))) == 10
    assert split.checked.all()
    monkeypatch.setattr("patchbench.data.sets.cached.checksum", lambda *_: pytest.fail("it was read again"))
    everything(split)


def test_labels_are_compared_as_they_lie_on_the_disk(in_parts):
    meta = json.loads((in_parts / META).read_text())
    assert meta["classes"] is None
    del meta["crc32"]
    meta["classes"] = [*"abcde"]
    (in_parts / META).write_text(json.dumps(meta | {"crc32": crc32(meta)}))
    there = everything(cached(in_parts).splits()["train"])[1]
    named = everything(cached(in_parts, "data.classes=[e,d,c,b,a]").splits()["train"])[1]
    assert torch.equal(named, 4 - there)


def test_images_that_live_on_the_device_are_checked_as_well(in_parts):
    for resident_bytes, damaged in ((10**9, False), (10**9, True), (0, True)):
        if damaged and resident_bytes:
            flip(in_parts / "test.images.npy", 0)
        if not damaged:
            epoch(cached(in_parts), resident_bytes=resident_bytes, workers=0, resident=True)
            continue
        with pytest.raises(BadImage, match=r"test\.images\.npy or its labels: 3 to 5 have changed"):
            epoch(cached(in_parts), resident_bytes=resident_bytes, workers=0, resident=bool(resident_bytes))


def without_parts(cache: Path) -> None:
    """Change a cache into the cache that an earlier version would have made of the same images."""
    meta = json.loads((cache / META).read_text())
    del meta["crc32"], meta["parts"]
    (cache / META).write_text(json.dumps(meta | {"crc32": crc32(meta)}))


def test_a_cache_of_an_earlier_version_is_the_same_set_and_is_checked_by_its_chunks(in_parts):
    before, content = everything(cached(in_parts).splits()["train"]), fingerprint(str(in_parts))
    without_parts(in_parts)
    split = cached(in_parts).splits()["train"]
    assert [(part.start, part.stop) for part in split.parts] == [(0, 7), (7, 14), (14, 20)]
    assert all(torch.equal(*pair) for pair in zip(before, everything(split), strict=True))
    assert fingerprint(str(in_parts)) == content
    flip(in_parts / "train.images.npy", 0)
    split = cached(in_parts).splits()["train"]
    split.read([13])
    with pytest.raises(
        BadImage, match=r"train\.images\.npy or its labels: 14 to 19 have changed since they were written"
    ):
        split.read([14])


def test_to_check_costs_a_millisecond_for_a_megabyte(tmp_path):
    """The check takes the time of the checksum, and no time once all parts are checked."""
    source = Random(img_size=128, in_chans=3, num_classes=5, train_size=600, eval_size=5)
    write(source, tmp_path / "out")
    split = cached(tmp_path / "out").splits()["train"]
    everything(split)  # from the disk
    split.checked[:] = False
    start = time.process_time()
    split.check_all()
    first = time.process_time() - start
    start = time.process_time()
    for _ in range(10):
        split.check_all()
    assert (time.process_time() - start) / 10 < first / 20
    assert first / (600 * 3 * 128**2 / 1e6) < 5e-3, "seconds for a megabyte, on a slow machine"


def test_a_finished_cache_is_left_alone_and_other_contents_are_refused(small, tmp_path):
    source = Random(img_size=8, in_chans=3, num_classes=5, train_size=20, eval_size=6)
    before = contents(small)
    write(source, small)
    assert contents(small) == before
    with pytest.raises(ValueError, match=r"cache of something else \(data\.set=this there, that here\)"):
        write(source, small, made_from={"set": "that"})
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "diary.txt").write_text("mine")
    with pytest.raises(ValueError, match="holds something else"):
        write(source, tmp_path / "full")
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["diary.txt"]
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ValueError, match="holds something else"):
        write(source, tmp_path / "file")
    with pytest.raises(
        OSError, match=r"out=/proc/cache cannot be written .*: free some space or choose another folder"
    ):
        write(source, Path("/proc/cache"))


def test_unfinished_files_of_a_killed_write_do_not_make_a_folder_unusable(tmp_path):
    source = Random(img_size=8, in_chans=3, num_classes=5, train_size=20, eval_size=6)
    write(source, tmp_path / "whole")
    out = tmp_path / "out"
    out.mkdir()
    (out / f"{PLAN}.part-4711").write_text('{"format": 1, "made')
    write(source, out)
    assert contents(out) == contents(tmp_path / "whole")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "diary.txt.part-4711").write_text("mine")
    with pytest.raises(ValueError, match="holds something else"):
        write(source, tmp_path / "other")


def test_a_disk_too_small_is_said_before_anything_is_read(tmp_path):
    class Vast(Random):
        def splits(self):
            return {"train": range(10**12), "val": range(1), "test": range(1)}

    source = Vast(img_size=224, in_chans=3, num_classes=5, train_size=1, eval_size=1)
    with pytest.raises(OSError, match=r"train\.images\.npy takes 1\.4e\+08 GiB, and .* GiB are free"):
        write(source, tmp_path / "vast")


def test_a_bad_image_is_named_and_no_cache_declared(photos, tmp_path):
    root = tmp_path / "some"
    for split in ("train", "val"):
        for name in ("ant", "Käfer"):
            (root / split / name).mkdir(parents=True)
            for path in sorted((photos / split / name).iterdir())[:25]:
                (root / split / name / path.name).write_bytes(path.read_bytes())
    bad = root / "val" / "ant" / "003é.jpg"
    good = bad.read_bytes()
    bad.write_bytes(good[:200])
    for workers in (0, 2):
        with pytest.raises(ValueError, match=r"^[^\n]*val/ant/003é\.jpg does not decode[^\n]*$"):
            write(folder_source(root), tmp_path / "out", workers=workers)
    with pytest.raises((ValueError, OSError), match=r"is a cache that is not finished: complete it with the same comm"):
        cached(tmp_path / "out")
    bad.write_bytes(good)
    write(folder_source(root), tmp_path / "out")
    assert len(cached(tmp_path / "out").splits()["test"]) == 24


class Holes(Random):
    """A source that skips every third image, as sources skip images that do not decode."""

    class Split(InMemory):
        def read(self, indices, draws=None, crop=None):
            return super().read([i for i in indices if i % 3])

    def splits(self):
        return {name: self.Split(split.images, split.labels) for name, split in super().splits().items()}


def test_images_that_the_source_leaves_out_are_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr("patchbench.data.cache_writer.CHUNK_BYTES", 7 * 3 * 8 * 8)
    source = Holes(img_size=8, in_chans=3, num_classes=5, train_size=20, eval_size=6)
    write(source, tmp_path / "out")
    copy = cached(tmp_path / "out")
    for name, split in source.splits().items():
        for ours, theirs in zip(everything(copy.splits()[name]), everything(split), strict=True):
            assert torch.equal(ours, theirs)
    assert len(copy.splits()["train"]) == 13
    assert verify(tmp_path / "out", workers=0) == 13 + 4 + 4
    pixels = everything(copy.splits()["train"])[0] / 255
    assert cached(tmp_path / "out", "data.normalise=measured").mean == pytest.approx(pixels.mean((0, 2, 3)).tolist())


@pytest.mark.slow
def test_a_journal_that_was_cut_off_costs_one_chunk(photos, cache, tmp_path):
    out = tmp_path / "out"
    write(folder_source(photos), out)
    whole = contents(out)
    meta = json.loads(whole[META])
    chunks = meta["splits"]["val"]["chunks"]
    [[start, stop, crc]], crcs = chunks, meta["parts"]["crc32"]["val"]
    lines = [json.dumps([["val", start, stop], {"kept": stop - start, "crc32": crc, "parts": crcs}])]
    (out / META).unlink()
    (out / PLAN).write_text(json.dumps({"format": 1, "made_from": {"set": "this"}, "command": ""}))
    (out / DONE).write_text("".join(line + "\n" for line in lines) + '[["test", 0, 24], {"crc')
    images_file(out, "val").write_bytes(whole["val.images.npy"])
    write(folder_source(photos), out)
    assert contents(out) == whole
    without_parts(out)
    earlier = contents(out)
    (out / META).unlink()
    (out / PLAN).write_text(json.dumps({"format": 1, "made_from": {"set": "this"}, "command": ""}))
    (out / DONE).write_text(lines[0].partition(', "parts"')[0] + "}]\n")  # begun by an earlier version
    write(folder_source(photos), out)
    assert contents(out) == earlier


@pytest.mark.parametrize("name", [PLAN, DONE])
@pytest.mark.parametrize("held", ["{", "[1, 2]", "[" * 100_000, "3"])
def test_what_an_unfinished_cache_cannot_go_on_from_is_named(tmp_path, name, held):
    source, out = Random(img_size=8, in_chans=3, num_classes=5, train_size=20, eval_size=6), tmp_path / "out"
    write(source, out)
    (out / META).unlink()
    (out / PLAN).write_text(json.dumps({"format": 1, "made_from": {"set": "this"}, "command": ""}))
    (out / name).write_text(held + "\n")
    with pytest.raises(ValueError, match=rf"^{out / name} is damaged \(.*: remove {out} and run python scripts/prep"):
        write(source, out)


def spoil(root: Path, count: int) -> None:
    """Damage so many training pictures of a class."""
    for i in range(count):
        (root / "train" / "ant" / f"{i:03}é.jpg").write_bytes(b"")


@pytest.mark.parametrize("workers", some([0, 2], 2))
def test_a_cache_does_without_as_many_images_as_a_run_may(photos, tmp_path, command, workers):
    root = tmp_path / "some"
    shutil.copytree(photos, root)
    spoil(root, 3)
    line = ["scripts/prepare_data.py", "data=imagefolder", f"data.root='{root}'", "size=48", "out=out"]
    line += ["data.on_error=skip", f"workers={workers}", "data.mean=[0.0,0.0,0.0]", "data.std=[1.0,1.0,1.0]"]
    done = command(*line)
    assert done.returncode == 2
    assert "images of train do not decode" in done.stderr
    assert "data.max_skipped=0.01: mend or remove them" in done.stderr
    done = command(*line, "data.max_skipped=0.1")
    assert done.returncode == 0, done.stderr
    assert "3 that do not decode were left out" in done.stdout


def test_images_skipped_before_an_interruption_count(photos, tmp_path, monkeypatch):
    monkeypatch.setattr("patchbench.data.cache_writer.CHUNK_BYTES", 10 * 3 * SIZE**2)
    root, out = tmp_path / "some", tmp_path / "out"
    shutil.copytree(photos, root)
    train = folder_source(root).splits()["train"]
    first, later = Path(train.name(0)), Path(train.name(75))
    first.write_bytes(b"")
    whole = later.read_bytes()
    skip = ["data=imagefolder", f"data.root='{root}'", f"data.img_size={SIZE}", "data.on_error=skip"]
    skip += ["data.mean=[0.0,0.0,0.0]", "data.std=[1.0,1.0,1.0]", "data.max_skipped=0.02"]  # one of 76
    write(build_source(configure(*skip)), out)
    assert len(list(make_chunks({"train": 76}, (3, SIZE, SIZE)))) > 3
    shutil.rmtree(out)

    def interrupted(*arguments: Any) -> Iterator[Any]:
        yield from itertools.islice(in_parallel(*arguments), 3)
        raise KeyboardInterrupt

    monkeypatch.setattr("patchbench.data.cache_writer.in_parallel", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write(build_source(configure(*skip)), out)
    monkeypatch.setattr("patchbench.data.cache_writer.in_parallel", in_parallel)
    later.write_bytes(b"")
    with pytest.raises(
        ValueError, match=rf"at least 2 of 76 images of train do not decode \(.*{first.name}, .*{later.name}\)"
    ):
        write(build_source(configure(*skip)), out)
    later.write_bytes(whole)
    write(build_source(configure(*skip)), out)
    assert len(cached(out).splits()["train"]) == 75


@pytest.mark.slow
def test_killed_in_the_middle_it_goes_on_and_ends_the_same(photos, tmp_path):
    root, out = tmp_path / "many", tmp_path / "out"
    for split, times in {"train": 12, "val": 2}.items():
        for name in ("ant", "Käfer"):
            (root / split / name).mkdir(parents=True)
            for path in (photos / split / name).iterdir():
                for i in range(times):
                    (root / split / name / f"{i}{path.name}").hardlink_to(path)
    arguments = ["data=imagefolder", f"data.root={root}", "size=224", f"out={out}", "workers=2"]
    line = [sys.executable, str(ROOT / "scripts" / "prepare_data.py"), *arguments]
    env = os.environ | {"OMP_NUM_THREADS": "1"}

    first = subprocess.Popen(line, env=env, start_new_session=True)
    while first.poll() is None and not ((out / DONE).exists() and (out / DONE).read_text()):
        time.sleep(0.005)
    os.killpg(first.pid, signal.SIGKILL)
    assert first.wait() == -signal.SIGKILL
    assert not (out / META).exists()
    with pytest.raises((ValueError, OSError)) as refused:
        cached(out)
    assert "not finished: complete it with python scripts/prepare_data.py data=imagefolder" in str(refused.value)
    done = (out / DONE).read_text().splitlines()
    images, _ = everything(folder_source(root, 224).splits()["train"])
    [_, start, stop], _ = json.loads(done[0])
    assert 0 <= start < stop < len(images), "there was something left to do"
    made_from = json.loads((out / PLAN).read_text())["made_from"]

    second = subprocess.run(line, env=env, capture_output=True, text=True, timeout=120, check=False)
    assert second.returncode == 0, second.stderr
    assert f"python train.py data=cached data.root={out}" in second.stdout
    write(folder_source(root, 224), tmp_path / "at once", made_from=made_from)
    assert contents(out) == contents(tmp_path / "at once")


def epoch(
    source: Source, *, resident_bytes: int, workers: int, resident: bool, augment: str = "none"
) -> list[list[torch.Tensor]]:
    """Return the batches that the network would get in training, validation and test."""
    chain = build_augment(configure(f"augment={augment}"), source)
    data = Batches(source, chain, batch_size=8, seed=0, workers=workers, limit=None, resident_bytes=resident_bytes)
    quiet()
    data.trainer = pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
    data.setup("fit")
    assert bool(data.resident_splits()) == resident
    seen = []
    for loader in (data.train_dataloader(), data.val_dataloader(), data.test_dataloader()):
        assert loader.num_workers == (0 if resident else workers)
        for batch in loader:
            moved = data.transfer_batch_to_device(batch, torch.device("cpu"), 0)
            seen.append(list(data.on_after_batch_transfer(moved, 0)))
    return seen


def same(one: list[list[torch.Tensor]], other: list[list[torch.Tensor]]) -> bool:
    pairs = [pair for batches in zip(one, other, strict=True) for pair in zip(*batches, strict=True)]
    return all(torch.equal(a, b) for a, b in pairs)


def test_batches_are_the_same_wherever_images_live_and_whoever_reads_them(photos, cache):
    direct = epoch(folder_source(photos), resident_bytes=10**9, workers=0, resident=False)
    for resident_bytes, workers in ((0, 0), (0, 2), (10**5, 0), (10**9, 2)):
        assert same(
            direct,
            epoch(cached(cache), resident_bytes=resident_bytes, workers=workers, resident=resident_bytes == 10**9),
        )


def test_a_cache_is_thinned_by_class(cache):
    whole, half = (cached(cache, f"data.train_fraction={share}").splits()["train"] for share in (1.0, 0.5))
    assert len(half) == len(whole) // 2
    assert torch.bincount(half.labels).tolist() == [len(half) // 2] * 2
    images, labels = everything(half)
    every = {image.numpy().tobytes(): label for image, label in zip(*everything(whole), strict=True)}
    assert all(every[image.numpy().tobytes()] == label for image, label in zip(images, labels, strict=True))


def test_crops_of_a_cache_are_the_same_at_any_number_of_workers(cache):
    alone, shared = (
        epoch(cached(cache, "data.img_size=32"), resident_bytes=10**9, workers=workers, resident=False, augment="deit")
        for workers in (0, 2)
    )
    assert same(alone, shared)
    assert alone[0][0].shape == (8, 3, 32, 32)


def test_a_set_in_memory_gives_the_same_batches_on_the_device():
    source = Random(img_size=16, in_chans=3, num_classes=5, train_size=50, eval_size=11)
    assert same(
        epoch(source, resident_bytes=10**9, workers=0, resident=True),
        epoch(source, resident_bytes=0, workers=2, resident=False),
    )


@pytest.mark.slow
def test_training_from_a_cache_is_training_from_its_source(command, micro, tmp_path):
    """Training by the command, also evaluated after the cache was moved; on one rank or two, on the device or not."""
    knobs = [knob for knob in micro if "img_size" not in knob and "limit" not in knob] + ["limit_batches=8"]
    made = command("scripts/prepare_data.py", "data=digits", "size=16", "out=cache")
    assert made.returncode == 0, made.stderr
    run = ["train.py", *knobs, "logger=csv"]
    from_cache = ["data=cached", "data.root=cache"]
    results = {}
    for name, arguments in {
        "source": ["data=digits", "data.img_size=16", "trainer=cpu", "resident=0"],
        "cache": [*from_cache, "trainer=cpu", "resident=0", "workers=2"],
        "two ranks": [*from_cache, "trainer=ddp", "trainer.devices=2", "trainer.accelerator=cpu"],
    }.items():
        done = command(*run, *arguments, f"runs_dir=runs/{name.replace(' ', '_')}")
        assert done.returncode == 0, done.stderr
        results[name] = record(tmp_path / "runs" / name.replace(" ", "_"))["result"]
    for name in ("test/acc", "test/loss", "val/loss"):
        assert results["cache"][name] == results["source"][name], name
        assert results["two ranks"][name] == pytest.approx(results["source"][name], rel=1e-3), name
    (tmp_path / "cache").rename(tmp_path / "elsewhere")
    [best] = (tmp_path / "runs" / "cache").rglob("best.ckpt")
    done = command("evaluate.py", f"ckpt={best}", "data_root=elsewhere", "trainer=cpu")
    assert done.returncode == 0, done.stderr
    assert f"{results['cache']['test/acc']:.2%}" in done.stdout
