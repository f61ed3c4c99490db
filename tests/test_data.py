"""The order of images is a function of counters; splits are disjoint; a folder is read or refused by name."""

import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch
from PIL import Image
from support import configure, run

from patchbench.commands.build import build_source
from patchbench.config.errors import CellFailed
from patchbench.data.batches import Reader
from patchbench.data.hand_over import (
    IN_USE,
    PREFETCH,
    SHARED,
    NoSharedMemory,
    loading_failure,
    require_shared_memory,
)
from patchbench.data.order import EvalOrder, TrainOrder
from patchbench.data.pictures import Pictures
from patchbench.data.sets.imagefolder import ImageFolder
from patchbench.data.sets.random import Random
from patchbench.data.source import InMemory, Source, resize, split_stratified
from patchbench.data.splits import make_splits


def order(position=0, *, rank=0, world_size=1, accumulate=1, repeats=1, seed=0, limit=None, images=100, batch_size=24):
    return TrainOrder(
        images,
        batch_size=batch_size,
        seed=seed,
        rank=rank,
        world_size=world_size,
        accumulate=accumulate,
        repeats=repeats,
        limit=limit,
        position=lambda: position,
    )


def taken(order: TrainOrder) -> list[list[tuple[int, int]]]:
    """Return the batches of an order as lists of pairs (image, draw)."""
    return [list(zip(chosen.indices, chosen.draws.tolist(), strict=True)) for chosen in order]


def test_an_epoch_visits_no_image_twice_and_another_epoch_visits_them_in_another_order():
    first, second = taken(order(0)), taken(order(4))
    seen = [i for batch in first for i, _ in batch]
    assert len(seen) == len(set(seen)) == 96
    assert first != second
    assert first != taken(order(0, seed=1))
    assert first == taken(order(0))


def test_what_comes_next_depends_on_the_position_alone():
    whole = taken(order(8))
    assert taken(order(8 + 3)) == whole[3:]


def test_no_draw_comes_twice_and_repeats_show_an_image_by_several_draws():
    draws = [draw for epoch in range(3) for batch in taken(order(4 * epoch)) for _, draw in batch]
    assert len(set(draws)) == len(draws) == 3 * 96
    images = [i for batch in taken(order(repeats=3)) for i, _ in batch]
    assert images[::3] == images[1::3] == images[2::3]
    assert len(set(images)) == 32


@pytest.mark.parametrize(("world_size", "accumulate"), [(2, 1), (1, 2), (2, 2), (3, 4)])
def test_ranks_and_micro_batches_together_see_the_steps_of_one_process(world_size, accumulate):
    alone = taken(order(0))
    shares = [taken(order(0, rank=rank, world_size=world_size, accumulate=accumulate)) for rank in range(world_size)]
    assert all(len(share) == accumulate * len(alone) for share in shares)
    for step, batch in enumerate(alone):
        together = [i for a in range(accumulate) for share in shares for i in share[step * accumulate + a]]
        assert together == batch


def test_a_limit_cuts_epochs_short():
    assert taken(order(0, limit=2)) == taken(order(0))[:2]
    assert len(order(0, limit=2, accumulate=2)) == 4


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"batch_size": 101}, "exceeds the 100"),
        ({"world_size": 5}, "multiple of 5"),
        ({"accumulate": 7}, "multiple of 7"),
    ],
)
def test_a_batch_size_that_cannot_be_shared_out_is_refused(knobs, message):
    with pytest.raises(ValueError, match=message):
        order(**knobs)


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_evaluation_counts_every_image_once(world_size):
    shares = [EvalOrder(101, batch_size=8, rank=r, world_size=world_size, limit=None) for r in range(world_size)]
    assert sorted(i for share in shares for batch in share for i in batch.indices) == list(range(101))


def digits(img_size: int) -> Source:
    return build_source(configure(f"data.img_size={img_size}"))


def test_digits_are_real_split_in_proportion_and_normalised():
    source = digits(16)
    splits = source.splits()
    assert {name: len(split) for name, split in splits.items()} == {"train": 1257, "val": 180, "test": 360}
    for split in splits.values():
        counts = Counter(split.labels.tolist())
        assert set(counts) == set(range(10))
        assert max(counts.values()) - min(counts.values()) <= 0.08 * len(split) / 10 + 1
    at_home = digits(8).splits()
    images = [tuple(image.flatten().tolist()) for split in at_home.values() for image in split.images]
    assert len(set(images)) == 1797, "no image lies in two splits"
    train = digits(64).splits()["train"].images / 255
    assert train.mean((0, 2, 3)).tolist() == pytest.approx(source.mean, abs=2e-3)
    assert train.std((0, 2, 3)).tolist() == pytest.approx(source.std, abs=2e-3)


def test_resizing_keeps_what_has_the_size_and_the_range_of_what_has_not():
    images = torch.randint(256, (2, 3, 8, 8), dtype=torch.uint8)
    assert resize(images, (8, 8)) is images
    assert resize(images, (5, 20)).shape == (2, 3, 5, 20)


def test_what_cannot_be_held_out_is_refused_by_name():
    with pytest.raises(
        ValueError,
        match=r"^data\.val_size=200 cannot be held out of 100 images in 2 classes: use a share .* or 2 to 98",
    ):
        split_stratified([0, 1] * 50, 200, "data.val_size")


def test_random_images_have_any_size_and_are_the_same_each_time():
    knobs = {"img_size": [8, 12], "in_chans": 5, "num_classes": 7, "train_size": 6, "eval_size": 4}
    one, other = (Random(**knobs).splits()["train"] for _ in range(2))
    assert one.images.shape == (6, 5, 8, 12)
    assert torch.equal(one.images, other.images)
    assert isinstance(one, InMemory)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Make two classes in train/ and val/, with images of several shapes; the class is the colour."""
    for split, count in {"train": 10, "val": 4}.items():
        for label, name in enumerate(["ant", "bee"]):
            (tmp_path / split / name).mkdir(parents=True)
            for i in range(count):
                colour = (40 + 160 * label,) * 3
                Image.new("RGB", (30 - i, 20 + i), colour).save(tmp_path / split / name / f"{i}.png")
    return tmp_path


def image_folder(root: Path) -> ImageFolder:
    return build_source(
        configure("data=imagefolder", f"data.root={root}", "data.img_size=[16,24]", "data.val_size=0.2")
    )


def names(split: Pictures) -> set[str]:
    return {split.name(i) for i in range(len(split))}


def test_class_folders_become_labels_and_val_is_held_out_of_train(folder):
    source = image_folder(folder)
    assert source.num_classes == 2
    splits = source.splits()
    assert {name: len(split) for name, split in splits.items()} == {"train": 16, "val": 4, "test": 8}
    assert not names(splits["train"]) & names(splits["val"])
    for split in splits.values():
        images, labels = split.read(range(len(split)))
        assert images.shape[1:] == (3, 16, 24)
        assert torch.equal((images.float().mean((1, 2, 3)) > 128).long(), labels)


def test_with_a_test_folder_val_chooses_and_test_judges(folder):
    (folder / "val").rename(folder / "test")
    (folder / "train").rename(folder / "val")
    (folder / "test").rename(folder / "train")
    for name in ("ant", "bee"):
        (folder / "test" / name).mkdir(parents=True)
        (folder / "val" / name / "0.png").rename(folder / "test" / name / "0.png")
    splits = image_folder(folder).splits()
    assert {name: len(split) for name, split in splits.items()} == {"train": 8, "val": 18, "test": 2}


def test_a_folder_laid_out_otherwise_is_refused_with_the_layout(folder):
    with pytest.raises(
        (ValueError, OSError), match=r"no class folders in train/: expected train/<class>/<image>, and val/"
    ):
        image_folder(folder / "train")
    (folder / "val" / "bee").rename(folder / "val" / "wasp")
    with pytest.raises((ValueError, OSError), match=r"train/ and val/ hold different classes, bee, wasp"):
        image_folder(folder)


def test_an_empty_class_and_a_broken_image_are_named(folder):
    broken = folder / "train" / "ant" / "0.png"
    broken.write_bytes(broken.read_bytes()[:20])
    with pytest.raises(ValueError, match=r"train/ant/0\.png does not decode"):
        [split.read(range(len(split))) for split in image_folder(folder).splits().values()]
    for path in (folder / "train" / "bee").iterdir():
        path.unlink()
    with pytest.raises((ValueError, OSError), match=r"no .* in train/bee"):
        image_folder(folder)


def test_a_class_of_one_image_is_named_where_images_are_held_out():
    with pytest.raises(
        ValueError, match=r"^val_size=0\.2 is held out of every class, and 1 of 2 classes have one image"
    ):
        split_stratified([0] * 9 + [1], 0.2, "val_size")
    labels = {"train": [0] * 9 + [1] + [2] * 5 + [3], "val": [0, 1, 2, 3]}
    sizes = {"val_size": 0.2, "test_size": None, "train_fraction": None, "train_size": None}
    with pytest.raises(
        ValueError, match="2 of 4 classes have one image only: bee, dog: add images to them or remove them"
    ):
        make_splits(labels, **sizes, classes=["ant", "bee", "cat", "dog"])
    assert make_splits(labels | {"test": [0]}, **sizes)["train"] == ("train", list(range(16))), "nothing is held out"


# Processes that load hand over their batches through shared memory.


def test_batches_that_do_not_fit_into_shared_memory_are_refused_before_training():
    free = shutil.disk_usage(SHARED).free
    batch = 1024 * 3 * 32 * 32
    most = (free // batch - IN_USE) // PREFETCH
    require_shared_memory(max(1, most // 2), 1024, (3, 32, 32), 1)
    require_shared_memory(0, 10**9, (3, 32, 32), 1)
    with pytest.raises(ValueError, match=rf"^workers={4 * most}: .*--shm-size=\d+g\), or use workers=\d+ or workers=0"):
        require_shared_memory(4 * most, 1024, (3, 32, 32), 1)
    with pytest.raises(ValueError, match=r"or use workers=0, or a smaller batch_size, or allow_cost=true"):
        require_shared_memory(1, 10**9, (3, 32, 32), 1)
    with pytest.raises(ValueError, match=f"up to {max(1, most // 2) * PREFETCH * 8 + 8 * IN_USE} batches"):
        require_shared_memory(max(1, most // 2), 1024, (3, 32, 32), 8)


LITTLE_ROOM = """
import resource, torch
from torch.utils.data import DataLoader
from patchbench.data.batches import Reader
from patchbench.data.order import BatchIndices
from patchbench.data.source import InMemory

resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, 2**16))  # of files in memory as well
split = InMemory(torch.zeros(64, 3, 64, 64, dtype=torch.uint8), torch.zeros(64, dtype=torch.int64))
loader = DataLoader(Reader(split, None), batch_size=None, sampler=[BatchIndices(list(range(64)))], num_workers=1)
next(iter(loader))
"""


@pytest.mark.slow
def test_a_batch_that_does_not_fit_into_shared_memory_is_an_error_and_no_silence():
    line = [sys.executable, "-c", LITTLE_ROOM]
    done = subprocess.run(line, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert "NoSharedMemory: a batch of images does not fit into /dev/shm" in done.stderr
    told = NoSharedMemory(f"Caught NoSharedMemory in worker.\nTraceback:\n  ...\n{NoSharedMemory.__name__}: a batch\n")
    assert str(told) == "a batch"


class Unpicklable:
    """Part of a batch that the queue between processes loses, as when no more files can be opened."""

    def __reduce__(self):
        raise OSError("too many open files")


@pytest.mark.parametrize("end", ["killed", "lost"])
def test_a_training_whose_loading_process_dies_or_loses_a_batch_fails_in_one_line(
    tmp_path, micro, monkeypatch, capsys, end
):
    original = Reader.__getitem__

    def dies(self, chosen):
        images, labels, *draws = original(self, chosen)
        if chosen.draws is None or torch.utils.data.get_worker_info() is None:
            return images, labels, *draws
        if end == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        return images, Unpicklable(), *draws

    monkeypatch.setattr(Reader, "__getitem__", dies)
    with pytest.raises(CellFailed, match="a process that loads data has ended"):
        run(tmp_path, *micro, "epochs=1", "workers=1", "resident=0")
    [error] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert "workers=0" in error
    assert "repeat the command to resume" in error
    assert not (tmp_path / "run.json").exists()


def test_a_chain_of_errors_that_leads_back_to_itself_has_an_end():
    """Errors that are raised from each other form a circle."""
    one, other = RuntimeError("one"), RuntimeError("other")
    one.__context__, other.__context__ = other, one
    assert loading_failure(one) is None
    assert "has ended" in str(loading_failure(RuntimeError("DataLoader worker (pid 7) is killed")))
