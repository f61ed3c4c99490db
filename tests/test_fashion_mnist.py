"""Fashion-MNIST is read from the files of Debian's package or of torchvision, and damaged files are named."""

import gzip
import shutil
from collections import Counter
from pathlib import Path

import pytest
import torch
from support import configure

from patchbench.commands.build import build_source
from patchbench.config.identity import compared
from patchbench.data.sets import fashion_mnist
from patchbench.data.sets.fashion_mnist import PACKAGE, PREFIXES, FashionMNIST, read_idx

NAMES = [f"{prefix}-{what}-ubyte.gz" for prefix, _ in PREFIXES.values() for what in ("images-idx3", "labels-idx1")]
package = pytest.mark.skipif(
    not PACKAGE.is_dir(), reason=f"{PACKAGE} is not there: apt-get install dataset-fashion-mnist"
)


def written(folder: Path) -> Path:
    """Write files of the right shapes: image i has class i % 10 and the grey level 20 * class."""
    folder.mkdir(parents=True)
    for prefix, count in PREFIXES.values():
        classes = torch.arange(count) % 10
        images = (20 * classes).to(torch.uint8)[:, None].expand(-1, 784)
        for what, array, shape in (("images-idx3", images, (count, 28, 28)), ("labels-idx1", classes, (count,))):
            header = bytes([0, 0, 8, len(shape)]) + b"".join(n.to_bytes(4, "big") for n in shape)
            content = header + array.to(torch.uint8).numpy().tobytes()
            (folder / f"{prefix}-{what}-ubyte.gz").write_bytes(gzip.compress(content, 1))
    return folder


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("fashion") / "FashionMNIST" / "raw")


def source(*overrides: str) -> FashionMNIST:
    return build_source(configure("data=fashion_mnist", *overrides))


@pytest.mark.parametrize("below", ["", "FashionMNIST/raw"], ids=["the folder itself", "torchvision's layout"])
def test_images_keep_their_labels_and_no_image_is_in_two_splits(files, below):
    root = files if not below else files.parents[1]
    found = source(f"data.root={root}")
    splits = found.splits()
    assert {name: len(split) for name, split in splits.items()} == {"train": 54_000, "val": 6_000, "test": 10_000}
    for split in splits.values():
        assert split.images.shape[1:] == (3, 28, 28)
        assert torch.equal(split.images[:, 2, 5, 5].long(), 20 * split.labels)
        assert set(Counter(split.labels.tolist()).values()) == {len(split) // 10}
    chosen = [set(images) for name, (of, images) in found.split_indices.items() if of == "train"]
    assert len(chosen) == 2
    assert not chosen[0] & chosen[1]


def test_fewer_images_of_another_size_leave_the_others_alone(files):
    whole, some = (source(f"data.root={files}", *knobs).split_indices for knobs in ([], ["data.train_size=1000"]))
    assert len(some["train"][1]) == 1000
    assert set(some["train"][1]) < set(whole["train"][1])
    assert some["val"] == whole["val"]
    split = source(f"data.root={files}", "data.img_size=[14,42]", "data.train_size=10").splits()["train"]
    assert split.images.shape == (10, 3, 14, 42)


def test_the_place_of_the_files_is_no_part_of_a_run(files):
    choices = configure("data=fashion_mnist").hydra.runtime.choices
    here, there = (configure("data=fashion_mnist", knob) for knob in (f"data.root={files}", "data_dir=elsewhere"))
    assert compared(here, choices) == compared(there, choices)


def test_without_files_and_network_the_refusal_names_both_cures(tmp_path, monkeypatch):
    monkeypatch.setattr(fashion_mnist, "PACKAGE", tmp_path / "package")
    for protocol in ("http", "https"):
        monkeypatch.setenv(f"{protocol}_proxy", "http://127.0.0.1:9")  # no network, and no wait for one
    cures = r"^data\.root=\S+ does not hold.* install dataset-fashion-mnist\), or connect to the network once"
    with pytest.raises(OSError, match=cures) as refused:
        source(f"data_dir={tmp_path}")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("damage", ["cut short", "not compressed", "of another shape", "too long"])
def test_a_damaged_file_is_named(files, tmp_path, name, damage):
    content = (files / name).read_bytes()
    plain = gzip.decompress(content)
    other = plain[:4] + (7).to_bytes(4, "big") + plain[8:]
    path = tmp_path / name
    path.write_bytes(
        {
            "cut short": content[: len(content) // 2],
            "not compressed": b"<html>no such page</html>",
            "of another shape": gzip.compress(other, 1),
            "too long": gzip.compress(plain + b"\0", 1),
        }[damage]
    )
    count = next(count for prefix, count in PREFIXES.values() if name.startswith(prefix))
    with pytest.raises(OSError, match=rf"^{path} is damaged \(.*\): remove it and download it again") as refused:
        read_idx(path, (count, 28, 28) if "images" in name else (count,))
    assert "\n" not in str(refused.value)


def test_unpacked_files_are_read_as_well(files, tmp_path):
    for name in NAMES:
        shutil.copy(files / name, tmp_path / name)
    packed = tmp_path / NAMES[0]
    (tmp_path / packed.stem).write_bytes(gzip.decompress(packed.read_bytes()))
    packed.unlink()
    assert source(f"data.root={tmp_path}").files["train"][0] == tmp_path / packed.stem


@package
def test_the_package_holds_the_real_images(tmp_path):
    found = source(f"data_dir={tmp_path}")
    assert found.files["train"][0].parent == PACKAGE
    splits = found.splits()
    pixels = splits["train"].images[:, 0] / 255
    assert (float(pixels.mean()), float(pixels.std())) == pytest.approx((found.mean[0], found.std[0]), abs=1e-3)
    boots = splits["test"].images[splits["test"].labels == found.classes.index("ankle boot"), 0].float().mean(0)
    assert boots[20:].mean() > 2 * boots[:8].mean(), "a boot is wide below"
