"""Sets of torchvision, of the library `datasets` and in archives are read correctly; subsamples keep proportions."""

import bz2
import gzip
import io
import json
import pickle
import re
import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value
from datasets import Image as Pixels
from PIL import Image
from scipy.io import savemat
from support import configure, options
from torchvision import datasets

from patchbench.commands.build import build_source
from patchbench.data.pictures import Pictures
from patchbench.data.source import Source
from patchbench.data.splits import make_splits, number_labels, subsample

COLOURS = [(250, 10, 10), (10, 250, 10), (10, 10, 250)]


def source(*overrides: str) -> Source:
    cfg = configure(*overrides)
    return build_source(cfg)


def flat(label: int, size: tuple[int, int] = (20, 24)) -> np.ndarray:
    """Make an image of one colour, which gives the class."""
    return np.full((*size, 3), COLOURS[label], np.uint8)


def encoded(label: int, format: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.fromarray(flat(label)).save(file, format)
    return file.getvalue()


def assert_colours_tell_labels(splits: dict, sizes: dict[str, int]) -> None:
    assert {name: len(split) for name, split in splits.items()} == sizes
    for split in splits.values():
        images, labels = split.read(range(len(split)))
        assert images.dtype == torch.uint8
        assert torch.equal(images.float().mean((2, 3)).argmax(1), labels)


# Few images of many


def drawn(count: int) -> list[int]:
    return torch.randint(5, (count,), generator=torch.Generator().manual_seed(1)).tolist()


def test_fewer_images_lie_within_more_and_have_the_classes_in_proportion():
    labels = drawn(300) + [5] * 7
    sizes, smaller = Counter(labels), set()
    for size in (6, 7, 30, 101, 306, 307):
        larger = set(subsample(labels, None, size))
        assert len(larger) == size
        assert smaller <= larger
        taken = Counter(labels[i] for i in larger)
        for name, of in sizes.items():
            assert abs(taken[name] - of * size / 307) < 6, "no more than one for each class goes to others"
            assert taken[name] >= 1
        smaller = larger
    balanced = [i % 10 for i in range(1000)]
    assert set(Counter(balanced[i] for i in subsample(balanced, None, 250)).values()) == {25}
    assert subsample(labels, 0.5, None) == subsample(labels, None, 154)
    assert subsample(labels, None, None) == subsample(labels, 1.0, None) == list(range(307))


@pytest.mark.parametrize(
    ("fraction", "size", "said"),
    [
        (0.5, 10, "give one"),
        (0.0, None, r"^train_fraction=0\.0 must be above 0"),
        (1.5, None, r"^train_fraction=1\.5 must be .* at most 1"),
        (0.01, None, r"^train_fraction=0\.01 cannot be taken of 100 training images in 5 classes: take 5 to 100"),
        (None, 4, r"^train_size=4 cannot"),
        (None, 101, r"^train_size=101 cannot"),
    ],
)
def test_a_number_of_images_that_cannot_be_taken_is_refused(fraction, size, said):
    with pytest.raises(ValueError, match=said):
        subsample(drawn(100), fraction, size)


@pytest.mark.parametrize("given", [["train"], ["train", "val"], ["train", "test"], ["train", "val", "test"]])
def test_fewer_training_images_leave_those_that_choose_and_judge_alone(given):
    labels = {name: drawn(200) for name in given}

    def some(fraction: float | None) -> dict[str, set[tuple[str, int]]]:
        chosen = make_splits(labels, val_size=0.1, test_size=40, train_fraction=fraction, train_size=None)
        return {name: {(of, i) for i in images} for name, (of, images) in chosen.items()}

    whole, half, tenth = some(None), some(0.5), some(0.1)
    assert tenth["train"] < half["train"] < whole["train"]
    for other in ("val", "test"):
        assert whole[other] == half[other] == tenth[other]
        assert not whole[other] & whole["train"]
    assert not whole["val"] & whole["test"]
    assert len(whole["train"] | whole["val"] | whole["test"]) == 200 * len(given)


@pytest.mark.parametrize("name", options("data"))
def test_every_set_has_the_knobs_that_a_source_must_have(name):
    """img_size is required; train_fraction and train_size come together or not at all, as data/source.py states."""
    knobs = configure(f"data={name}").data
    assert "img_size" in knobs
    if "train_fraction" in knobs:
        assert (knobs.train_fraction, knobs.train_size) == (None, None), "the whole set unless it is asked for less"
        assert configure(f"data={name}", "data.train_fraction=0.1").data.train_fraction == 0.1


def test_a_set_that_can_be_thinned_is_thinned_by_either_knob():
    for knob in ("data.train_fraction=0.1", "data.train_size=126"):
        assert len(source("data.img_size=8", knob).splits()["train"]) == 126


def test_digits_are_thinned_within_themselves():
    tenth, third = (source("data.img_size=8", f"data.train_size={n}").splits() for n in (125, 400))
    images = [{tuple(image.flatten().tolist()) for image in splits["train"].images} for splits in (tenth, third)]
    assert len(images[0]) == 125
    assert images[0] < images[1]
    assert torch.equal(tenth["test"].images, third["test"].images)


# torchvision, with files as its sets expect them


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Disable the checksums of torchvision, so that small files can replace the real ones."""
    monkeypatch.setattr(datasets.svhn, "check_integrity", lambda path, md5=None: Path(path).is_file())
    monkeypatch.setattr(datasets.flowers102, "check_integrity", lambda path, md5=None: Path(path).is_file())
    monkeypatch.setattr(datasets.stl10, "check_integrity", lambda path, md5=None: Path(path).is_file())
    monkeypatch.setattr(datasets.cifar, "check_integrity", lambda path, md5=None: Path(path).is_file())


def write_idx(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    header = bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
    path.write_bytes(header + array.astype(np.uint8).tobytes())


@pytest.mark.parametrize(("name", "mirrors"), [("MNIST", False), ("FashionMNIST", True), ("KMNIST", False)])
def test_grey_sets_have_one_channel_and_digits_no_mirror_image(tmp_path, name, mirrors):
    for part, count in {"train": 60, "t10k": 12}.items():
        labels = np.arange(count) % 3
        raw = tmp_path / name / "raw"
        write_idx(raw / f"{part}-images-idx3-ubyte", (labels * 100)[:, None, None] + np.zeros((1, 28, 28)))
        write_idx(raw / f"{part}-labels-idx1-ubyte", labels)
    found = source("data=torchvision", f"data.name={name.lower()}", "data.val_size=6", f"data_dir={tmp_path}")
    assert (found.in_chans, found.num_classes, found.mirrors) == (1, 3, mirrors)
    grey = found.splits()["test"].images
    rgb = source("data=torchvision", f"data.name={name}", "data.channels=3", f"data_dir={tmp_path}", "data.val_size=6")
    assert torch.equal(rgb.splits()["test"].images, grey.expand(-1, 3, -1, -1))
    splits = found.splits()
    assert {k: len(v) for k, v in splits.items()} == {"train": 54, "val": 6, "test": 12}
    images, labels = splits["train"].read(range(54))
    assert images.shape == (54, 1, 32, 32)
    assert torch.equal(images[:, 0, 9, 9], (labels * 100).to(torch.uint8))
    assert found.mean == pytest.approx([100 / 255])
    assert found.std == pytest.approx([(20000 / 3) ** 0.5 / 255])


@pytest.mark.parametrize("classes", [10, 100])
def test_cifar_is_read_with_the_classes_that_it_has(tmp_path, unchecked, classes):
    kind = {10: datasets.CIFAR10, 100: datasets.CIFAR100}[classes]
    folder = tmp_path / kind.base_folder
    folder.mkdir()
    for file, _ in kind.train_list + kind.test_list:
        labels = np.arange(30) % 3
        data = np.stack([flat(label, (32, 32)).transpose(2, 0, 1).reshape(-1) for label in labels])
        held = {"data": data, "labels" if classes == 10 else "fine_labels": labels.tolist()}
        (folder / file).write_bytes(pickle.dumps(held))
    (folder / kind.meta["filename"]).write_bytes(pickle.dumps({kind.meta["key"]: []}))
    found = source(f"data=cifar{classes}", "data.val_size=6", f"data_dir={tmp_path}", "data.img_size=[16,24]")
    assert (found.in_chans, found.num_classes, found.mirrors, found.img_size) == (3, 3, True, (16, 24))
    count = 30 * len(kind.train_list)
    assert_colours_tell_labels(found.splits(), {"train": count - 6, "val": 6, "test": 30})


def test_svhn_and_stl10_are_read_with_their_own_splits(tmp_path, unchecked):
    for split, count in {"train": 60, "test": 12}.items():
        labels = np.arange(count) % 3
        images = np.stack([flat(label, (32, 32)) for label in labels], -1)
        savemat(tmp_path / f"{split}_32x32.mat", {"X": images, "y": labels[:, None]})
    svhn = source("data=torchvision", "data.name=SVHN", "data.val_size=6", f"data_dir={tmp_path}")
    assert not svhn.mirrors
    assert_colours_tell_labels(svhn.splits(), {"train": 54, "val": 6, "test": 12})

    folder = tmp_path / datasets.STL10.base_folder
    folder.mkdir()
    (folder / "class_names.txt").write_text("r\ng\nb\n")
    for split, count in {"train": 60, "test": 12, "unlabeled": 3}.items():
        labels = np.arange(count) % 3
        planes = np.stack([flat(label, (96, 96)).transpose(2, 1, 0) for label in labels])
        (folder / f"{split}_X.bin").write_bytes(planes.tobytes())
        (folder / f"{split}_y.bin").write_bytes((labels + 1).astype(np.uint8).tobytes())
    (folder / "fold_indices.txt").write_text("")
    stl10 = source("data=torchvision", "data.name=STL10", "data.val_size=6", f"data_dir={tmp_path}")
    assert_colours_tell_labels(stl10.splits(), {"train": 54, "val": 6, "test": 12})


def test_flowers_are_files_with_three_splits_of_their_own(tmp_path, unchecked):
    folder = tmp_path / "flowers-102"
    (folder / "jpg").mkdir(parents=True)
    labels = np.arange(30) % 3
    for i, label in enumerate(labels):
        (folder / "jpg" / f"image_{i + 1:05d}.jpg").write_bytes(encoded(label, "JPEG"))
    savemat(folder / "imagelabels.mat", {"labels": labels[None] + 1})
    savemat(folder / "setid.mat", {"trnid": np.arange(1, 13), "valid": np.arange(13, 19), "tstid": np.arange(19, 31)})
    (folder / "jpg" / "image_00002.jpg").write_bytes(b"")
    found = source("data=torchvision", "data.name=flowers102", f"data_dir={tmp_path}", "data.on_error=skip")
    splits = found.splits()
    assert all(isinstance(split, Pictures) for split in splits.values())
    assert {name: len(split) for name, split in splits.items()} == {"train": 12, "val": 6, "test": 12}
    assert len(splits["train"].read(range(12))[1]) == 11
    assert splits["train"].name(1).endswith("image_00002.jpg")
    (folder / "jpg" / "image_00002.jpg").write_bytes(encoded(1, "JPEG"))
    assert_colours_tell_labels(found.splits(), {"train": 12, "val": 6, "test": 12})


def test_sets_without_splits_and_of_one_file_are_carved_up(tmp_path, unchecked):
    for name in ("Forest", "Lake", "Road"):
        folder = tmp_path / "eurosat" / "2750" / name
        folder.mkdir(parents=True)
        for i in range(20):
            (folder / f"{name}_{i}.jpg").write_bytes(encoded(["Forest", "Lake", "Road"].index(name), "JPEG"))
    found = source("data=torchvision", "data.name=EuroSAT", f"data_dir={tmp_path}", "data.crop_pct=0.875")
    assert_colours_tell_labels(found.splits(), {"train": 43, "val": 5, "test": 12})


def test_what_a_set_takes_besides_is_given_by_options(tmp_path):
    given = "data.options={size: 100, image_size: [3, 20, 24], num_classes: 3}"
    found = source("data=torchvision", "data.name=FakeData", given, f"data_dir={tmp_path}")
    assert {name: len(split) for name, split in found.splits().items()} == {"train": 72, "val": 8, "test": 20}
    assert found.num_classes == 3


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("svhm", r"data\.name=svhm is no data set of torchvision: did you mean SVHN\?"),
        ("EMNIST", r"data\.name=EMNIST with data\.options={} is refused .*'split'"),
        ("CocoCaptions", r"data\.name=CocoCaptions with .*annFile"),
        ("SVHN", r"data\.name=SVHN is not in data_dir=\S+ and could not be downloaded \(.*\): connect to the network"),
    ],
)
def test_a_set_that_cannot_be_had_is_refused_in_one_line(tmp_path, monkeypatch, name, said):
    for protocol in ("http", "https"):
        monkeypatch.setenv(f"{protocol}_proxy", "http://127.0.0.1:9")  # no network, and no wait for one
    with pytest.raises((ValueError, OSError), match=said) as refused:
        source("data=torchvision", f"data.name={name}", f"data_dir={tmp_path}")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "folder", "file"),
    [
        ("FashionMNIST", "FashionMNIST/raw", "train-images-idx3-ubyte.gz"),
        ("CIFAR10", "cifar-10-batches-py", "data_batch_1"),
        ("STL10", "stl10_binary", "train_X.bin"),
        ("SVHN", ".", "train_32x32.mat"),
    ],
)
def test_files_of_another_checksum_are_told_from_none(tmp_path, monkeypatch, name, folder, file):
    for protocol in ("http", "https"):
        monkeypatch.setenv(f"{protocol}_proxy", "http://127.0.0.1:9")
    arguments = ["data=torchvision", f"data.name={name}", f"data_dir={tmp_path}"]
    place = tmp_path / folder
    with pytest.raises(
        OSError, match=rf"is not in data_dir=.* put .*{file}.* into {place} by hand, or use data=digits"
    ):
        source(*arguments)
    place.mkdir(parents=True, exist_ok=True)
    (place / file).write_bytes(b"of another packing")
    with pytest.raises(OSError, match=rf"data\.name={name}: {place / file} exists, but its checksum is not") as refused:
        source(*arguments)
    assert ("unpack it there" in str(refused.value)) == file.endswith(".gz")


# The library of the hub, with sets that lie here


def table(labels: list, **columns) -> Dataset:
    images = [{"bytes": encoded(i % 3), "path": f"{i}.png"} for i in range(len(labels))]
    kind = Value("string") if isinstance(labels[0], str) else ClassLabel(names=["r", "g", "b"])
    held = {"image": images, "label": labels, **columns}
    features = {"image": Pixels(), "label": kind} | {name: Value("int64") for name in columns}
    return Dataset.from_dict(held, features=Features(features))


def test_a_saved_set_a_folder_of_parquet_and_one_of_images_are_read_alike(tmp_path):
    numbers = [i % 3 for i in range(60)]
    saved = DatasetDict({"train": table(numbers), "test": table(numbers[:12])})
    saved.save_to_disk(tmp_path / "saved")
    (tmp_path / "parquet").mkdir()
    for name, rows in saved.items():
        rows.to_parquet(tmp_path / "parquet" / f"{name}-00000.parquet")
        for i, label in enumerate(numbers[: len(rows)]):
            folder = tmp_path / "images" / name / "rgb"[label]
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{i}.png").write_bytes(encoded("bgr".index("rgb"[label])))
    for where in ("saved", "parquet"):
        found = source("data=hf", f"data.name={tmp_path / where}", "data.val_size=6", "data.img_size=16")
        assert (found.in_chans, found.num_classes) == (3, 3)
        assert_colours_tell_labels(found.splits(), {"train": 54, "val": 6, "test": 12})
    found = source("data=hf", f"data.root={tmp_path / 'images'}", "data.val_size=6", "data.img_size=16")
    images, labels = found.splits()["test"].read(range(12))
    assert found.classes == ["b", "g", "r"]
    assert torch.equal(images.float().mean((2, 3)).argmax(1), labels), "folders are sorted: b g r"


def test_numbers_of_other_names_are_labelled_by_name(tmp_path):
    numbers = [i % 3 for i in range(60)]
    table(numbers).save_to_disk(tmp_path / "rgb")
    rows = table(numbers).cast_column("label", ClassLabel(names=["g", "b", "x"]))
    rows.filter(lambda row: row["label"] < 2).save_to_disk(tmp_path / "gb")
    knobs = ["data=hf", "data.img_size=16", "data.val_size=6", "data.classes=[b,g,r]"]
    for where in ("rgb", "gb"):
        found = source(*knobs, f"data.root={tmp_path / where}")
        images, labels = found.splits()["test"].read(range(6))
        shown = images.float().mean((2, 3)).argmax(1)  # r g b
        assert torch.equal(labels, 2 - shown if where == "rgb" else 1 - shown)
    rows.save_to_disk(tmp_path / "x")
    with pytest.raises(ValueError, match=r"has the label 'x', which is none of the 3 classes"):
        source(*knobs, f"data.root={tmp_path / 'x'}")


def test_deep_pictures_of_a_table_are_scaled_by_their_range(tmp_path):
    held = []
    for i in range(60):
        file = io.BytesIO()
        Image.fromarray(np.full((8, 8), 776 + 100 * (i % 3), np.uint16)).save(file, "PNG")
        held.append({"bytes": file.getvalue(), "path": f"{i}.png"})
    features = Features({"image": Pixels(), "label": ClassLabel(names=["dark", "grey", "bright"])})
    Dataset.from_dict({"image": held, "label": [i % 3 for i in range(60)]}, features=features).save_to_disk(tmp_path)
    found = source("data=hf", f"data.root={tmp_path}", "data.img_size=8", "data.test_size=12")
    images, labels = found.splits()["test"].read(range(12))
    assert found.range == [[776, 976]]
    assert torch.equal(images[:, 0, 0, 0], torch.tensor([0, 128, 255], dtype=torch.uint8)[labels])


def test_a_linked_folder_that_the_library_would_leave_out_is_named(tmp_path):
    for name in ("set/train/ant", "set/train/bee", "elsewhere"):
        (tmp_path / name).mkdir(parents=True)
        Image.new("RGB", (16, 16)).save(tmp_path / name / "0.png")
    (tmp_path / "set" / "train" / "ant" / "more").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match=r"train/ant/more, a linked folder: use data=imagefolder"):
        source("data=hf", f"data.root={tmp_path / 'set'}", "data.img_size=16")


def test_words_are_classes_by_their_order(tmp_path):
    table(["zebra", "ant", "bee"] * 20).save_to_disk(tmp_path)
    found = source("data=hf", f"data.root={tmp_path}", "data.img_size=16", "data.test_size=12")
    assert found.classes == ["ant", "bee", "zebra"]
    images, labels = found.splits()["test"].read(range(12))
    assert torch.equal(images.float().mean((2, 3)).argmax(1), (labels + 1) % 3)


def test_columns_that_cannot_be_told_are_to_be_given(tmp_path):
    rows = table([i % 3 for i in range(60)], fine=list(range(60)))
    rows = rows.cast_column("fine", ClassLabel(num_classes=60))
    rows.save_to_disk(tmp_path)
    arguments = ["data=hf", f"data.root={tmp_path}", "data.img_size=16"]
    with pytest.raises((ValueError, OSError), match=r"has the columns image, label, fine: set data\.label_column"):
        source(*arguments)
    with pytest.raises((ValueError, OSError), match=r"set data\.label_column=.*there is no coarse"):
        source(*arguments, "data.label_column=coarse")
    assert source(*arguments, "data.label_column=label").num_classes == 3


def test_labels_out_of_range_are_named_and_a_split_without_any_is_left_out(tmp_path):
    good = [i % 3 for i in range(60)]
    DatasetDict({"train": table(good), "test": table([-1] * 12)}).save_to_disk(tmp_path / "hidden")
    found = source("data=hf", f"data.root={tmp_path / 'hidden'}", "data.img_size=16")
    assert {name: len(split) for name, split in found.splits().items()} == {"train": 43, "val": 5, "test": 12}
    table([*good[:40], -1, *good[41:]]).save_to_disk(tmp_path / "bad")
    with pytest.raises((ValueError, OSError), match=r"train, row 40 \(40\.png\) has the label -1, .* of the 3 classes"):
        source("data=hf", f"data.root={tmp_path / 'bad'}", "data.img_size=16")


@pytest.mark.parametrize("odd", [[1], [[0]], 1.5, None, {"a": 1}])
def test_a_label_that_is_no_class_is_named_whatever_it_is(odd):
    good = [0, 1] * 5
    for split in ("train", "test"):
        labels = {"train": good, "test": good} | {split: [*good, odd, *good]}
        with pytest.raises(
            ValueError, match=rf"{split} 10 has the label {re.escape(repr(odd))}, which is none of the 2"
        ):
            number_labels(labels, None, lambda name, i: f"{name} {i}")
    assert number_labels({"train": good, "test": [None, -1]}, None, str) == ([0, 1], {"train": good})


def test_a_set_of_the_hub_that_cannot_be_had_is_refused_in_one_line(command, micro):
    done = command("train.py", "data=hf", "data.name=nobody/nothing", *micro, HF_HUB_OFFLINE="1")
    assert done.returncode == 2, done.stderr
    [line] = [line for line in done.stderr.splitlines() if line.startswith("error")]
    assert "data.name=nobody/nothing cannot be read" in line
    assert "data.root=<folder>" in line
    assert "Traceback" not in done.stderr


# Archives


def write_shard(path: Path, samples: dict[str, bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, held in samples.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(held)
            archive.addfile(entry, io.BytesIO(held))


def shard(count: int, first: int = 0, label=lambda i: ("cls", str(i % 3))) -> dict[str, bytes]:
    samples = {}
    for i in range(first, first + count):
        suffix, said = label(i)
        samples |= {f"{i:04d}.png": encoded(i % 3), f"{i:04d}.{suffix}": said.encode()}
    return samples


def shards(root: Path, *overrides: str) -> Source:
    folder = str(root).removeprefix("file://")
    knobs = f"data.root={root}", f"data_dir={folder}/data", "data.img_size=16", "data.val_size=3"
    return source("data=shards", *knobs, *overrides)


def test_archives_are_read_by_number_in_any_order(tmp_path):
    for i in range(3):
        write_shard(tmp_path / f"set-train-{i:06d}.tar", shard(20, 20 * i))
    write_shard(tmp_path / "val" / "000000.tar", shard(12, 60))
    for root in (tmp_path, f"file://{tmp_path}"):
        found = shards(root, "data.val_size=6")
        assert (found.num_classes, found.in_chans) == (3, 3)
        splits = found.splits()
        assert_colours_tell_labels(splits, {"train": 54, "val": 6, "test": 12})
        images, labels = splits["train"].read([40, 3, 17])
        assert torch.equal(images[1], splits["train"].read([3])[0][0])
        assert labels.tolist() == [int(splits["train"].labels[i]) for i in (40, 3, 17)]


def test_labels_of_archives_are_numbers_words_or_fields(tmp_path):
    write_shard(tmp_path / "word-train.tar", shard(30, 0, lambda i: ("cls", "rgb"[i % 3])))
    assert shards(tmp_path).classes == ["b", "g", "r"]
    write_shard(tmp_path / "word-train.tar", shard(30, 0, lambda i: ("json", json.dumps({"species": i % 3 + 7}))))
    with pytest.raises((ValueError, OSError), match=r"0000\.json has no label: .*data\.label_key"):
        shards(tmp_path)
    assert shards(tmp_path, "data.label_key=species").classes == [7, 8, 9]
    write_shard(tmp_path / "word-train.tar", shard(30, 0, lambda i: ("CLS", ("7", "cat", "ant")[i % 3])))
    mixed = shards(tmp_path)
    assert mixed.classes == ["7", "ant", "cat"]
    assert mixed.labels["train"][:3] == [0, 2, 1]
    again = shards(tmp_path, "data.classes=[cat,ant,'7']")
    assert again.labels["train"][:3] == [2, 0, 1]
    write_shard(tmp_path / "word-train.tar", shard(30, 0, lambda i: ("cls", "one")))
    assert shards(tmp_path).remarks == ["there is only one class, one: every prediction is right"]
    write_shard(tmp_path / "word-train.tar", {"0.heic": b"", "0.cls": b"1"})
    with pytest.raises(ValueError, match=r"word-train\.tar holds labels and no \.avif\|.*: convert its images"):
        shards(tmp_path)


def test_an_index_is_kept_and_made_anew_when_the_archive_or_the_index_is_another(tmp_path):
    write_shard(tmp_path / "train.tar", shard(30))
    shards(tmp_path)
    [kept] = (tmp_path / "data" / "shards").iterdir()
    whole = kept.read_text()
    kept.write_text(whole.replace('"0000.png"', '"kept.png"'))
    assert shards(tmp_path).albums["train"].members[0][1].name == "kept.png", "it was not read again"
    for spoilt in (whole[:100], "", "[" * 100_000, '{"state": 0}', whole.replace('"state": [2', '"state": [1')):
        kept.write_text(spoilt)
        assert len(shards(tmp_path).albums["train"]) == 30
        assert kept.read_text() == whole
    write_shard(tmp_path / "train.tar", shard(33))
    assert len(shards(tmp_path).albums["train"]) == 33


def test_two_images_of_one_key_are_refused_unless_one_is_meant(tmp_path):
    samples = shard(30)
    for i in range(30):
        samples[f"{i:04d}.jpg"], samples[f"{i:04d}.mask.png"] = encoded(i % 3, "JPEG"), encoded((i + 1) % 3)
    write_shard(tmp_path / "train.tar", samples)
    with pytest.raises(ValueError, match=r"train\.tar: 0000\.png and 0000\.jpg are two .* data\.image_key=jpg"):
        shards(tmp_path)
    for key, shift in (("png", 0), ("jpg", 0), (".JPG", 0), ("mask.png", 1)):
        images, labels = shards(tmp_path, f"data.image_key={key}").splits()["test"].read(range(3))
        assert torch.equal(images.float().mean((2, 3)).argmax(1), (labels + shift) % 3), key
    with pytest.raises(ValueError, match=r"train\.tar holds no images that end in \.gif: .*data\.image_key"):
        shards(tmp_path, "data.image_key=gif")
    with tarfile.open(tmp_path / "train.tar", "a") as archive:  # as `tar --append` does with a file that was mended
        archive.addfile(tarfile.TarInfo("0000.png"))
    with pytest.raises(ValueError, match=r"0000\.png and 0000\.png are two images of one key: remove one"):
        shards(tmp_path, "data.image_key=png")


def test_arrays_in_archives_are_read_as_those_in_folders(tmp_path):
    samples = {}
    for i in range(30):
        file = io.BytesIO()
        np.save(file, np.full((5, 20, 24), 1000 + i, np.uint16))
        samples |= {f"{i:04d}.npy": file.getvalue(), f"{i:04d}.cls": str(i % 3).encode()}
    write_shard(tmp_path / "train.tar", samples)
    found = shards(tmp_path)
    images, _ = found.splits()["train"].read(range(20))
    assert images.shape[1] == found.in_chans == 5
    assert len(images.unique()) == 20, "each image has a value of its own"


DEEP = '{"label": ' + "[" * 100_000 + "]" * 100_000 + "}"


@pytest.mark.parametrize("label", [DEEP, "[1]", '{"label": NaN}', '{"label": ' + "9" * 5000 + "}"])
def test_a_label_that_cannot_be_one_is_named_with_its_archive(tmp_path, label):
    samples = shard(30, 0, lambda i: ("json", '{"label": 1}' if i % 2 else '{"label": 0}'))
    write_shard(tmp_path / "train.tar", samples | {"0007.json": label.encode()})
    with pytest.raises(ValueError, match=r"train\.tar: 0007\.json has no label: mend it"):
        shards(tmp_path)


def test_archives_that_cannot_be_read_are_named(tmp_path):
    with pytest.raises((ValueError, OSError), match=r"no archives to train on: expected train-\*\.tar"):
        shards(tmp_path)
    path = tmp_path / "train.tar"
    write_shard(path, shard(30))
    whole = path.read_bytes()
    half = len(whole) // 1024 * 512
    for held in (
        whole[:half],
        whole[: half + 300],
        whole[: half + 1200],
        gzip.compress(whole),
        b"",
        bz2.compress(whole),
        b"x" * 5000,
    ):
        path.write_bytes(held)
        with pytest.raises((ValueError, OSError), match=r"train\.tar is no tar archive, or compressed, or incomplete"):
            shards(tmp_path)
    samples = shard(30)
    write_shard(path, {name: held for name, held in samples.items() if name != "0007.cls"})
    with pytest.raises((ValueError, OSError), match=r"train\.tar: 0007\.png has no label"):
        shards(tmp_path)
    write_shard(path, samples | {"0007.cls": b"-1"})
    with pytest.raises((ValueError, OSError), match=r"train\.tar: 0007\.png has the label -1"):
        shards(tmp_path)
    write_shard(path, samples)
    write_shard(tmp_path / "val.tar", shard(9) | {"0007.cls": b"5"})
    with pytest.raises((ValueError, OSError), match=r"val\.tar: 0007\.png has the label 5, .* of the training images"):
        shards(tmp_path)


def test_a_given_mean_is_taken_and_checked(tmp_path):
    write_shard(tmp_path / "train.tar", shard(30))
    found = shards(tmp_path, "data.mean=[0.5,0.4,0.3]", "data.val_size=6")
    splits = found.splits()
    assert found.mean == [0.5, 0.4, 0.3]
    images = splits["train"].read(range(len(splits["train"])))[0] / 255
    assert found.std == pytest.approx(images.std((0, 2, 3), correction=0).tolist())
    with pytest.raises(ValueError, match=r"data\.std=\[0\.5\] must be a number above 0 for each of the 3 channels"):
        shards(tmp_path, "data.std=[0.5]", "data.val_size=6").splits()
