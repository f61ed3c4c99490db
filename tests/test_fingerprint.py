"""The fingerprint of a data set depends on file names, labels and sizes, but not on the path of the set."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from patchbench.data import fingerprint as module
from patchbench.data.cache_writer import prepare
from patchbench.data.fingerprint import INDEX_SUFFIX, fingerprint
from patchbench.data.sets.random import Random


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Make two classes in train/ and val/, with files of several sizes."""
    root = tmp_path / "set"
    for split, count in {"train": 6, "val": 3}.items():
        for label, name in enumerate(["ant", "蜂 queen"]):
            (root / split / name).mkdir(parents=True)
            for i in range(count):
                (root / split / name / f"{name}-{i}.jpg").write_bytes(bytes(100 + 10 * i + label))
    return root


def test_is_eight_hex_digits_and_the_same_each_time(folder):
    assert len(fingerprint(str(folder))) == 8
    assert int(fingerprint(str(folder)), 16) >= 0
    assert fingerprint(str(folder)) == fingerprint(str(folder))


def test_the_place_does_not_matter(folder, tmp_path, monkeypatch):
    here = fingerprint(str(folder))
    moved = shutil.copytree(folder, tmp_path / "elsewhere" / "b")
    (tmp_path / "link").symlink_to(moved)
    monkeypatch.chdir(tmp_path)
    for root in (f"{folder}/", str(moved), str(tmp_path / "link"), "set", "./set", f"file://{moved}"):
        assert fingerprint(root) == here, root
    monkeypatch.setenv("HOME", str(tmp_path))
    assert fingerprint("~/set") == here


def move_to_another_class(folder: Path) -> None:
    (folder / "train" / "ant" / "ant-0.jpg").rename(folder / "train" / "蜂 queen" / "ant-0.jpg")


def move_to_another_split(folder: Path) -> None:
    (folder / "train" / "ant" / "ant-5.jpg").rename(folder / "val" / "ant" / "ant-5.jpg")


def rename(folder: Path) -> None:
    (folder / "train" / "ant" / "ant-0.jpg").rename(folder / "train" / "ant" / "ant-9.jpg")


def rename_a_class(folder: Path) -> None:
    (folder / "train" / "ant").rename(folder / "train" / "bee")


def add(folder: Path) -> None:
    (folder / "train" / "ant" / "ant-6.jpg").write_bytes(b"")


def remove(folder: Path) -> None:
    (folder / "val" / "ant" / "ant-0.jpg").unlink()


def resize(folder: Path) -> None:
    (folder / "val" / "ant" / "ant-0.jpg").write_bytes(bytes(101))


CHANGES = [move_to_another_class, move_to_another_split, rename, rename_a_class, add, remove, resize]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_change_of_labels_names_or_sizes_is_seen(folder, change):
    before = fingerprint(str(folder))
    change(folder)
    assert fingerprint(str(folder)) != before


def test_other_pixels_of_the_same_size_are_not_seen(folder):
    before = fingerprint(str(folder))
    (folder / "val" / "ant" / "ant-0.jpg").write_bytes(b"x" * 100)
    assert fingerprint(str(folder)) == before


def test_hidden_files_and_what_we_write_do_not_count(folder):
    before = fingerprint(str(folder))
    (folder / ".DS_Store").write_text("x")
    (folder / "train" / ".ipynb_checkpoints").mkdir()
    (folder / "train" / ".ipynb_checkpoints" / "a.jpg").write_text("x")
    (folder / "shards").mkdir()
    (folder / "shards" / f"0123{INDEX_SUFFIX}").write_text("{}")
    (folder / "shards" / f"0123{INDEX_SUFFIX}.part-17").write_text("{")
    source = Random(img_size=8, in_chans=3, num_classes=5, train_size=20, eval_size=6)
    prepare(source, folder / "cache", made_from={}, command="", workers=0)
    (folder / "unfinished").mkdir()
    (folder / "unfinished" / "plan.json").write_text("{}")
    (folder / "unfinished" / "train.images.npy").write_bytes(bytes(99))
    assert fingerprint(str(folder)) == before


def test_links_inside_are_followed_once_and_broken_ones_are_files(folder, tmp_path):
    before = fingerprint(str(folder))
    (folder / "val").rename(tmp_path / "val")
    (folder / "val").symlink_to(tmp_path / "val")
    assert fingerprint(str(folder)) == before
    (folder / "train" / "ant" / "round").symlink_to(folder)
    assert fingerprint(str(folder)) == before
    (folder / "train" / "ant" / "gone.jpg").symlink_to(tmp_path / "gone.jpg")
    assert fingerprint(str(folder)) != before


def test_of_very_many_files_some_sizes_and_all_names_are_read(folder, monkeypatch):
    monkeypatch.setattr(module, "MAX_SIZES", 4)
    before = fingerprint(str(folder))
    names = sorted(path for path in folder.rglob("*") if path.is_file())
    names[2].write_bytes(bytes(999))
    assert fingerprint(str(folder)) == before, "not among the evenly spaced files"
    names[0].write_bytes(bytes(999))
    assert fingerprint(str(folder)) != before
    before = fingerprint(str(folder))
    names[2].rename(names[2].with_name("other.jpg"))
    assert fingerprint(str(folder)) != before


def cache(out: Path, **knobs: object) -> str:
    given = {"img_size": 8, "in_chans": 3, "num_classes": 5, "train_size": 20, "eval_size": 6} | knobs
    prepare(Random(**given), out, made_from={"root": str(out)}, command=f"make {out}", workers=0)
    return fingerprint(str(out))


def test_a_cache_counts_by_its_checksums_and_not_by_how_it_was_made(tmp_path):
    one = cache(tmp_path / "a")
    assert cache(tmp_path / "b") == one, "made from another place by another command"
    assert fingerprint(str(shutil.copytree(tmp_path / "a", tmp_path / "moved"))) == one
    assert cache(tmp_path / "c", train_size=19) != one
    assert cache(tmp_path / "d", num_classes=6) != one
    meta = json.loads((tmp_path / "a" / "meta.json").read_text())
    meta["splits"]["train"]["chunks"][0][2] ^= 1
    (tmp_path / "a" / "meta.json").write_text(json.dumps(meta))
    assert fingerprint(str(tmp_path / "a")) != one, "other pixels"


def test_another_meta_json_is_a_file_as_any(folder):
    (folder / "meta.json").write_text('{"author": "someone"}')
    before = fingerprint(str(folder))
    (folder / "meta.json").write_text('{"author": "somebody"}')
    assert fingerprint(str(folder)) != before
    (folder / "meta.json").write_text("[")
    assert len(fingerprint(str(folder))) == 8


def test_a_url_counts_by_names_and_sizes():
    import fsspec

    files = fsspec.filesystem("memory")
    for place in ("one", "two/deep"):
        for i in range(3):
            files.pipe(f"/{place}/train-{i}.tar", bytes(10 + i))
    one = fingerprint("memory://one")
    assert fingerprint("memory://one/") == fingerprint("memory://two/deep") == one
    files.pipe("/one/train-0.tar", bytes(99))
    assert fingerprint("memory://one") != one
    with pytest.raises(OSError, match=r"root=memory://nowhere cannot be read"):
        fingerprint("memory://nowhere")
    with pytest.raises(OSError, match=r"root=nosuch://x cannot be read \(.*nosuch"):
        fingerprint("nosuch://x")


def test_a_single_file_counts_by_its_size(tmp_path):
    (tmp_path / "a.parquet").write_bytes(bytes(5))
    (tmp_path / "b.parquet").write_bytes(bytes(6))
    assert fingerprint(str(tmp_path / "a.parquet")) != fingerprint(str(tmp_path / "b.parquet"))


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(OSError, match=rf"root={tmp_path}/gone cannot be read \(No such file or directory\): give"):
        fingerprint(str(tmp_path / "gone"))


@pytest.mark.skipif(os.geteuid() == 0, reason="permissions do not bind the superuser")
def test_a_folder_that_cannot_be_read_is_named(folder):
    (folder / "train" / "ant").chmod(0)
    try:
        with pytest.raises(OSError, match=r"root=.*set cannot be read \(Permission denied at .*train/ant\)"):
            fingerprint(str(folder))
    finally:
        (folder / "train" / "ant").chmod(0o755)


def test_names_may_be_any_bytes(folder):
    before = fingerprint(str(folder))
    try:
        Image.fromarray(np.zeros((2, 2), np.uint8)).save(folder / "train" / "ant" / os.fsdecode(b"\xff\xfe.png"))
    except OSError:
        pytest.skip("this file system takes text alone")
    assert fingerprint(str(folder)) != before


def test_the_module_imports_the_standard_library_alone():
    code = (
        "import sys; before = set(sys.modules); import patchbench.data.fingerprint; "
        "print(sorted({m.split('.')[0] for m in set(sys.modules) - before} - set(sys.stdlib_module_names)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['patchbench']"
