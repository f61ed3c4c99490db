"""Pictures of every mode are read as a person sees them; files that do not decode are named, or skipped and counted."""

import io
import os
import pickle
import re
import shutil
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pandas as pd
import pytest
import pytorch_lightning as pl
import torch
from PIL import Image, ImageOps
from support import configure, record, run, some, task_for, train_in
from torch import Tensor
from torchvision.transforms import v2

from patchbench.commands.build import build_source
from patchbench.commands.evaluate import evaluate
from patchbench.commands.reopen import Machine
from patchbench.config.errors import Refused
from patchbench.config.identity import identity_of
from patchbench.data.bands import MIB
from patchbench.data.pictures import MAX_DECODED, BadImage, Paths, Pictures, ReadSettings, centre_box
from patchbench.data.sets.imagefolder import ImageFolder
from patchbench.evaluate.skipped import CheckSkipped
from patchbench.runs.hits import read_hits

RED, BLUE, WHITE = (255, 0, 0), (0, 0, 255), (255, 255, 255)


def pictures(
    *paths: Path,
    img_size=(16, 16),
    in_chans=3,
    crop_pct=1.0,
    on_error="raise",
    max_skipped=1.0,
    max_decoded=MAX_DECODED,
    classes=1,
    **more,
) -> Pictures:
    """Make a split of pictures in files; labels count through the classes again and again."""
    reading = ReadSettings(img_size, in_chans, crop_pct, on_error, max_skipped, max_decoded, **more)
    labels = [i % classes for i in range(len(paths))]
    return Pictures(Paths(paths), labels, range(len(paths)), reading, split="train", classes=range(classes))


def seen(path: Path, **knobs) -> Tensor:
    return pictures(path, **knobs).read([0])[0][0]


def halves(left: tuple, right: tuple, size: tuple[int, int] = (16, 16)) -> Image.Image:
    width, height = size
    image = Image.new("RGB", size, left)
    image.paste(right, (width // 2, 0, width, height))
    return image


def corner_colours(image: Tensor) -> list[tuple[int, ...]]:
    """Return the colours at top left, top right and bottom left."""
    return [tuple(image[:, y, x].tolist()) for y, x in ((0, 0), (0, -1), (-1, 0))]


# Modes


def palette(path: Path) -> None:
    image = Image.new("P", (16, 16), 0)
    image.putpalette([*RED, *BLUE, 0, 0, 0])
    image.paste(1, (8, 0, 16, 16))
    image.save(path)


def palette_with_a_hole(path: Path) -> None:
    image = Image.new("P", (16, 16), 2)
    image.putpalette([*RED, *BLUE, 0, 0, 0])
    image.paste(1, (8, 0, 16, 16))
    image.save(path, transparency=bytes([255, 255, 0]))


def transparent(path: Path) -> None:
    image = halves((0, 0, 0), BLUE).convert("RGBA")
    alpha = Image.new("L", (16, 16), 0)
    alpha.paste(255, (8, 0, 16, 16))
    image.putalpha(alpha)
    image.save(path)


def grey_with_alpha(path: Path) -> None:
    image = Image.new("LA", (16, 16), (0, 0))
    image.paste((100, 255), (8, 0, 16, 16))
    image.save(path)


def animated(path: Path) -> None:
    frames = [halves(RED, BLUE), halves(BLUE, RED), Image.new("RGB", (16, 16), WHITE)]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=100)


def cmyk(path: Path) -> None:
    halves(RED, BLUE).convert("CMYK").save(path)


def cmyk_jpeg(path: Path) -> None:
    halves(RED, BLUE, (32, 32)).convert("CMYK").save(path, quality=100)


def two_tone(path: Path) -> None:
    halves((0, 0, 0), WHITE).convert("1").save(path)


@pytest.mark.parametrize(
    ("name", "write", "left", "right"),
    [
        ("p.png", palette, RED, BLUE),
        ("p.gif", palette, RED, BLUE),
        ("hole.png", palette_with_a_hole, WHITE, BLUE),
        ("rgba.png", transparent, WHITE, BLUE),
        ("rgba.webp", transparent, WHITE, BLUE),
        ("la.png", grey_with_alpha, WHITE, (100, 100, 100)),
        ("moving.gif", animated, RED, BLUE),
        ("moving.png", animated, RED, BLUE),
        ("moving.webp", animated, RED, BLUE),
        ("cmyk.tiff", cmyk, RED, BLUE),
        ("cmyk.jpg", cmyk_jpeg, RED, BLUE),
        ("1.png", two_tone, (0, 0, 0), WHITE),
    ],
)
def test_every_mode_is_seen_in_its_colours(tmp_path, name, write: Callable[[Path], None], left, right):
    write(tmp_path / name)
    image = seen(tmp_path / name)
    assert image.shape == (3, 16, 16)
    for got, wanted in zip(corner_colours(image), (left, right, left), strict=True):
        assert got == pytest.approx(wanted, abs=0 if name.endswith(("png", "tiff")) else 12)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tiff"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_picture_is_seen_upright(tmp_path, suffix, orientation):
    upright = Image.new("RGB", (24, 40), (0, 0, 0))
    upright.paste(RED, (0, 0, 12, 20))
    upright.paste(BLUE, (12, 0, 24, 20))
    back = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = upright.transpose(back[orientation]) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"turned.{suffix}"
    stored.save(path, exif=exif, **({"quality": 95, "subsampling": 0} if suffix == "jpg" else {}))
    image = seen(path, img_size=(40, 24))
    for got, wanted in zip(corner_colours(image), (RED, BLUE, (0, 0, 0)), strict=True):
        assert got == pytest.approx(wanted, abs=40)

    def right_half(draws: Tensor, sizes: Tensor) -> Tensor:
        assert sizes.tolist() == [[40, 24]]
        return torch.tensor([[0, 12, 20, 12]])

    image, _ = pictures(path, img_size=(10, 6)).read([0], torch.tensor([1]), right_half)
    assert image.float().mean((0, 2, 3)).tolist() == pytest.approx(BLUE, abs=25)


# Size and crop


def noise(size: tuple[int, int], cell: int) -> Image.Image:
    pixels = np.random.default_rng(0).integers(256, size=(size[1] // cell, size[0] // cell, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)


@pytest.mark.parametrize("img_size", [(16, 16), (16, 40), (48, 20)])
@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_the_view_is_the_centre_scaled(tmp_path, img_size, suffix):
    image = noise((160, 120), 16)
    image.save(tmp_path / f"a.{suffix}", **({"quality": 100, "subsampling": 0} if suffix == "jpg" else {}))
    got = seen(tmp_path / f"a.{suffix}", img_size=img_size, crop_pct=0.875)
    top, left, height, width = centre_box((120, 160), img_size, 0.875)
    assert height / 120 == pytest.approx(0.875, abs=0.01) or width / 160 == pytest.approx(0.875, abs=0.01)
    assert width / height == pytest.approx(img_size[1] / img_size[0], rel=0.02)
    assert (top, left) == ((120 - height) // 2, (160 - width) // 2)
    box = (left, top, left + width, top + height)
    wanted = np.asarray(image.resize(img_size[::-1], Image.Resampling.BICUBIC, box))
    assert np.abs(got.permute(1, 2, 0).numpy().astype(int) - wanted).mean() < (3 if suffix == "png" else 8)


def test_a_small_crop_of_a_large_jpeg_is_as_sharp_as_of_a_png(tmp_path):
    image = noise((800, 800), 4)
    image.save(tmp_path / "a.png")
    image.save(tmp_path / "a.jpg", quality=100, subsampling=0)

    def small(draws: Tensor, sizes: Tensor) -> Tensor:
        return torch.tensor([[int(draws[0]), 200, 100, 100]])

    for draw in (0, 250, 700):
        of = [
            pictures(tmp_path / f"a.{suffix}", img_size=(64, 64)).read([0], torch.tensor([draw]), small)[0].int()
            for suffix in ("png", "jpg")
        ]
        assert (of[0] - of[1]).abs().float().mean() < 3
        wanted = v2.functional.pil_to_tensor(image)[:, draw : draw + 100, 200:300]
        wanted = v2.functional.resize(wanted, [64, 64], v2.InterpolationMode.BICUBIC, antialias=True)
        assert torch.equal(of[0], wanted[None].int())


def test_a_large_jpeg_is_decoded_at_a_fraction_of_its_size(tmp_path):
    noise((3000, 2000), 50).save(tmp_path / "a.jpg", quality=90)
    noise((3000, 2000), 50).resize((750, 500)).save(tmp_path / "b.jpg", quality=90)
    took = {}
    for name in ("a", "b"):
        split = pictures(tmp_path / f"{name}.jpg", img_size=(64, 64))
        split.read([0])
        start = time.process_time()
        for _ in range(5):
            split.read([0])
        took[name] = time.process_time() - start
    with Image.open(tmp_path / "a.jpg") as whole:
        start = time.process_time()
        for _ in range(5):
            ImageOps.exif_transpose(Image.open(tmp_path / "a.jpg")).convert("RGB")
        assert took["a"] < 0.6 * (time.process_time() - start), whole.size


# What does not decode


def save_values(path: Path, values: np.ndarray) -> int:
    """Save an array, and return its size in bytes."""
    np.save(path, values)
    return values.nbytes


def save_pages(path: Path, pages: int) -> int:
    """Save a compressed TIFF of several pages, and return the size of their values in bytes."""
    first, *others = [Image.new("I;16", (60, 50), 9)] * pages
    first.save(path, save_all=True, append_images=others, compression="tiff_deflate")
    return pages * 60 * 50 * 2


def save_mode(path: Path, mode: str, values: int) -> int:
    """Save a picture, and return the size of its values in bytes, one byte per value."""
    Image.new(mode, (60, 50), 1).save(path, **({"compression": "tiff_lzw"} if path.suffix == ".tiff" else {}))
    return 60 * 50 * values


LARGE: dict[str, Callable[[Path], int]] = {
    "rgb.png": lambda path: save_mode(path, "RGB", 3),
    "palette.png": lambda path: save_mode(path, "P", 3),
    "rgba.png": lambda path: save_mode(path, "RGBA", 4),
    "grey.png": lambda path: save_mode(path, "L", 1),
    "deep.png": lambda path: save_mode(path, "I;16", 2),
    "cmyk.tiff": lambda path: save_mode(path, "CMYK", 4),
    "float.tiff": lambda path: save_mode(path, "F", 4),
    "rgb.webp": lambda path: save_mode(path, "RGB", 3),
    "rgb.bmp": lambda path: save_mode(path, "RGB", 3),
    "rgb.avif": lambda path: save_mode(path, "RGB", 3),
    "bands.npy": lambda path: save_values(path, np.ones((50, 60, 3), np.uint16)),
    "plane.npy": lambda path: save_values(path, np.ones((50, 60), np.float32)),
    "pages.tiff": lambda path: save_pages(path, 3),
}


@pytest.mark.parametrize("name", LARGE)
def test_what_takes_more_memory_than_allowed_is_named_before_it_is_decoded(tmp_path, name, monkeypatch):
    path = tmp_path / name
    count = LARGE[name](path)
    assert seen(path, max_decoded=count / MIB, ranges=[(0.0, 1.0)]).shape == (3, 16, 16)

    def decode(*_: object) -> None:
        pytest.fail("it was decoded")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", decode)
    monkeypatch.setattr("numpy.ascontiguousarray", decode)
    least = (count - 1) / MIB
    with pytest.raises(BadImage) as refused:
        seen(path, max_decoded=least, ranges=[(0.0, 1.0)])
    assert str(refused.value).startswith(f"{path} does not decode (it takes ")
    assert f"more than data.max_decoded={least:g}: scale it down, or allow more)" in str(refused.value)
    split = pictures(path, path, on_error="skip", max_decoded=least, ranges=[(0.0, 1.0)], classes=2)
    split.classes, split.class_sizes = (0,), torch.tensor([3])  # a class of which others decode
    assert len(split.read([0])[0]) == 0
    assert split.bad.tolist() == [True, False]


def test_a_picture_that_says_it_is_vast_is_not_decoded(tmp_path):
    path = tmp_path / "bomb.png"
    Image.new("L", (8, 8)).save(path)
    held = bytearray(path.read_bytes())
    held[16:24] = (60_000).to_bytes(4, "big") * 2
    held[29:33] = zlib.crc32(held[12:29]).to_bytes(4, "big")
    path.write_bytes(held)
    with pytest.raises(BadImage, match=r"\(Image size \(3600000000 pixels\) is more than data\.max_decoded=256 MiB"):
        seen(path)


def test_the_limit_on_bytes_stands_in_place_of_pillows_on_pixels(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    noise((64, 64), 8).save(tmp_path / "a.png")
    assert seen(tmp_path / "a.png").shape == (3, 16, 16)
    with pytest.raises(BadImage, match=r"data\.max_decoded=0\.001"):
        seen(tmp_path / "a.png", max_decoded=0.001)
    assert Image.MAX_IMAGE_PIXELS == 100


@pytest.mark.parametrize("orientation", [1, 6])
def test_a_jpeg_that_decodes_does_so_in_every_crop(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "a.jpg"
    noise((801, 403), 8).save(path, quality=95, exif=exif)

    def read(side: int, most: float) -> Tensor:
        crop = torch.tensor([[7, 9, side, side]])
        return pictures(path, max_decoded=most / MIB).read([0], torch.tensor([0]), lambda *_: crop)[0].int()

    whole, half = 3 * 801 * 403, 3 * 401 * 202
    for side in (390, 20):
        assert torch.equal(read(side, whole), read(side, 10 * whole))
        with pytest.raises(BadImage, match=r"data\.max_decoded="):
            read(side, half)
    sharp, blurred = read(20, whole), read(20, whole - 1)
    assert 0 < (sharp - blurred).abs().float().mean() < 20, "of a copy of half the size"


def test_a_progressive_jpeg_is_measured_at_its_full_size(tmp_path):
    """All its coefficients are in memory before the first pixel is decoded, at any size of the result."""
    for subsampling, values in ((0, 3), (2, 1.5)):
        path = tmp_path / f"{subsampling}.jpg"
        noise((640, 640), 8).save(path, progressive=True, subsampling=subsampling)
        most = 2 * values * 640 * 640 / MIB
        assert seen(path, max_decoded=most).shape == (3, 16, 16)
        with pytest.raises(BadImage, match="when it is decoded"):
            seen(path, max_decoded=most - 1 / MIB)


def spoilt(suffix: str) -> dict[str, bytes]:
    file = io.BytesIO()
    noise((64, 64), 8).save(file, {"jpg": "JPEG", "tif": "TIFF"}.get(suffix, suffix.upper()))
    whole = file.getvalue()
    return {
        "empty": b"",
        "short": whole[: len(whole) // 2],
        "start": whole[:12],
        "text": b"<html>404 not found</html>",
        "zeros": bytes(len(whole)),
    }


@pytest.mark.parametrize("suffix", ["jpg", "png", "gif", "webp", "bmp", "tif"])
def test_a_file_that_does_not_decode_is_named_in_one_line(tmp_path, suffix):
    for name, held in spoilt(suffix).items():
        path = tmp_path / f"{name}.{suffix}"
        path.write_bytes(held)
        with pytest.raises(BadImage) as bad:
            seen(path)
        assert str(bad.value).startswith(f"{path} does not decode (")
        assert str(bad.value).endswith("data.on_error=skip to leave out such images")
        assert "\n" not in str(bad.value)
        assert "object at" not in str(bad.value)


@pytest.mark.parametrize("suffix", some(["jpg", "png", "gif", "webp", "bmp", "tif", "ppm", "avif"], "jpg", "png"))
def test_no_damage_does_more_than_name_the_file(tmp_path, suffix):
    file = io.BytesIO()
    noise((40, 40), 8).save(file, {"jpg": "JPEG", "tif": "TIFF"}.get(suffix, suffix.upper()))
    whole, generator, refused = file.getvalue(), np.random.default_rng(0), 0
    path = tmp_path / f"a.{suffix}"
    for _ in range(150):
        damaged = bytearray(whole)
        for at in generator.integers(min(len(whole), 400), size=3):
            damaged[at] = generator.integers(256)
        path.write_bytes(damaged)
        try:
            assert seen(path).shape == (3, 16, 16)
        except BadImage:
            refused += 1
    assert refused


def test_the_name_of_a_file_may_be_any_bytes(tmp_path):
    for name in ("蜜蜂 é.png", os.fsdecode(b"\xff\xfe.png")):
        try:
            halves(RED, BLUE).save(tmp_path / name)
        except OSError:
            pytest.skip("this file system takes text alone")
        assert corner_colours(seen(tmp_path / name))[:2] == [RED, BLUE]
        (tmp_path / name).write_bytes(b"")
        with pytest.raises(BadImage) as bad:
            seen(tmp_path / name)
        str(bad.value).encode()


def test_what_a_loader_wraps_keeps_its_own_words_alone():
    message = "a.png does not decode (no image): mend it"
    wrapped = f"Caught BadImage in worker 0.\nOriginal Traceback\n  raise BadImage(\npatchbench.x.BadImage: {message}\n"
    assert (
        str(BadImage(wrapped))
        == str(BadImage(message))
        == str(pickle.loads(pickle.dumps(BadImage(message))))
        == message
    )


@pytest.fixture
def mixed(tmp_path: Path) -> list[Path]:
    """Make ten pictures, with their number as colour; the third, the fourth and the last are damaged."""
    paths = []
    for i in range(10):
        paths.append(tmp_path / f"{i}.png")
        Image.new("RGB", (16, 16), (20 * i,) * 3).save(paths[-1])
    for i in (3, 4, 9):
        paths[i].write_bytes(paths[i].read_bytes()[:40])
    return paths


def test_in_training_the_next_good_picture_comes_with_its_own_label(mixed):
    split = pictures(*mixed, on_error="skip", classes=3)
    images, labels = split.read(range(10), torch.arange(10))
    assert (numbers := (images[:, 0, 0, 0] // 20).tolist()) == [0, 1, 2, 5, 5, 5, 6, 7, 8, 0]
    assert labels.tolist() == [number % 3 for number in numbers]
    again = split.read(range(10), torch.arange(10))
    assert torch.equal(images, again[0])
    assert split.bad.nonzero().flatten().tolist() == [3, 4, 9]


def test_elsewhere_what_is_skipped_is_left_out(mixed):
    split = pictures(*mixed, on_error="skip", classes=3)
    images, labels = split.read([2, 3, 5])
    assert (images[:, 0, 0, 0] // 20).tolist() == [2, 5]
    assert labels.tolist() == [2, 2]
    assert len(images) == 2
    assert split.read([3, 4])[0].shape == (0, 3, 16, 16)
    assert [split.name(i) for i in split.bad.nonzero().flatten().tolist()] == [str(mixed[3]), str(mixed[4])]


@pytest.mark.parametrize("draws", [None, torch.arange(10)])
def test_more_than_the_share_that_may_be_skipped_is_refused_once_it_is_known(mixed, draws):
    pictures(*mixed, on_error="skip", max_skipped=0.3).read(range(10), draws)
    for share, last in ((0.29, 9), (0.1, 4), (0.01, 4)):
        split = pictures(*mixed, on_error="skip", max_skipped=share)
        for i in range(last):
            split.read([i])
        with pytest.raises(BadImage) as refused:
            split.read([last], None if draws is None else draws[:1])
        names = ", ".join(str(mixed[i]) for i in (3, 4, 9) if i <= last)
        found = f"at least {3 if last == 9 else 2} of 10 images of train do not decode ({names})"
        assert str(refused.value).startswith(f"{found}, a larger share than data.max_skipped={share}: mend")
        assert "\n" not in str(refused.value)


def test_one_image_may_be_skipped_of_any_split(mixed):
    split = pictures(*mixed[:4], on_error="skip", max_skipped=0.01)
    assert len(split.read(range(4))[0]) == 3


@pytest.mark.parametrize("draws", [None, torch.arange(10)])
def test_a_class_of_which_nothing_decodes_is_refused_whatever_may_be_skipped(mixed, draws):
    split = pictures(*mixed, on_error="skip", classes=5)  # the fifth has the pictures 4 and 9
    split.read(range(9), None if draws is None else draws[:9])
    with pytest.raises(BadImage) as refused:
        split.read(range(10), draws)
    assert f"none of the 2 images of the class 4 in train decodes ({mixed[4]}, {mixed[9]})" in str(refused.value)
    with pytest.raises(BadImage, match="none of the 2 images of the class 0"):
        pictures(mixed[3], mixed[4], on_error="skip", classes=1).read([0, 1], torch.arange(2))


def test_where_none_decodes_no_process_goes_on(mixed):
    split = pictures(*(mixed[i] for i in (3, 4, 9)), on_error="skip")
    split.bad[:] = True  # as another process of the loader has found
    for draws in (None, torch.arange(2)):
        with pytest.raises(BadImage, match="none of the 3 images of the class 0 in train decodes"):
            split.read([0, 1], draws)


def test_a_split_of_a_million_is_checked_soon(mixed):
    split = pictures(*mixed[3:5] * 500_000, on_error="skip", classes=1000)
    start = time.process_time()
    split.read(range(20))
    assert time.process_time() - start < 2


def of_two_ranks(split: Pictures, other: Tensor, rank: int) -> Any:
    """Return a trainer like that of one of two ranks; the other rank has found the bad images of a mask."""
    trainer = Mock(spec=pl.Trainer, world_size=2, is_global_zero=rank == 0)
    trainer.datamodule = Mock(splits={"train": split})
    trainer.strategy = Mock(root_device="cpu", reduce=lambda mask, reduce_op: torch.maximum(mask, other.to(mask)))
    return trainer


def test_ranks_of_which_each_sees_a_share_judge_together(mixed):
    def judged(other: list[int], rank: int = 0, on_error: str = "skip", **knobs) -> None:
        split = pictures(*mixed, on_error=on_error, **knobs)
        if on_error == "skip":
            split.read(range(4))  # one of them, the fourth, is spoilt
        mask = torch.zeros(10, dtype=torch.bool)
        mask[other] = True
        CheckSkipped().on_train_epoch_end(of_two_ranks(split, mask, rank))

    judged([3], max_skipped=0.1)
    judged([4, 9], max_skipped=0.3)
    judged([4, 9], on_error="raise", max_skipped=0.1)
    with pytest.raises(BadImage, match=f"at least 3 of 10 images of train do not decode .*{mixed[9].name}"):
        judged([4, 9], max_skipped=0.2)
    with pytest.raises(BadImage, match="none of the 2 images of the class 3 in train"):
        judged([8], classes=5)
    with pytest.raises(SystemExit) as left:
        judged([4, 9], rank=1, max_skipped=0.2)
    assert left.value.code == 2


@pytest.mark.parametrize(
    ("knob", "said"),
    [
        ("on_error=ignore", r"is unknown: use raise or skip"),
        ("max_skipped=0", r"must be above 0 and at most 1, .*: use data\.on_error=raise to skip nothing"),
        ("max_skipped=1.5", r"must be above 0 and at most 1"),
        ("max_decoded=0", r"must be a number above 0, or null for 256 MiB"),
    ],
)
def test_other_policies_are_refused(folder, knob, said):
    with pytest.raises(ValueError, match=rf"^data\.{re.escape(knob)} {said}"):
        image_folder(folder, f"data.{knob}")


# In a folder, and in a run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for split, count in {"train": 30, "val": 12}.items():
        for name, colour in {"bee": RED, "蜂 queen": BLUE}.items():
            (tmp_path / "set" / split / name).mkdir(parents=True)
            for i in range(count):
                halves(colour, (0, 10 * i % 256, 0)).save(tmp_path / "set" / split / name / f"{i:02d}.jpg")
    return tmp_path / "set"


def image_folder(root: Path, *overrides: str) -> ImageFolder:
    cfg = configure("data=imagefolder", f"data.root={root}", "data.img_size=16", "data.val_size=0.2", *overrides)
    return build_source(cfg)


def test_what_is_no_picture_is_left_out_and_what_should_be_one_is_not(folder):
    bee = folder / "train" / "bee"
    for name in ("Thumbs.db", "notes.txt", ".hidden.jpg", "._00.jpg", "list.csv"):
        (bee / name).write_text("no picture")
    (folder / "train" / ".ipynb_checkpoints").mkdir()
    (bee / "more").mkdir()
    (bee / "01.jpg").rename(bee / "more" / "x.JPEG")
    (bee / "linked.jpg").symlink_to(bee / "02.jpg")
    (bee / "nowhere.jpg").symlink_to(bee / "gone.jpg")
    os.mkfifo(bee / "pipe.jpg")
    (bee / "round").symlink_to(folder)
    (bee / "self").symlink_to(bee)
    (bee / "linked").symlink_to(folder.parent / "elsewhere")
    (folder.parent / "elsewhere" / "deeper").mkdir(parents=True)
    (bee / "29.jpg").rename(folder.parent / "elsewhere" / "deeper" / "y.jpg")
    found = image_folder(folder)
    files = zip(found.albums["train"].paths, found.labels["train"], strict=True)
    names = [Path(path).relative_to(bee).as_posix() for path, label in files if label == 0]
    numbered = [f"{i:02d}.jpg" for i in range(2, 29)]
    assert names == ["00.jpg", *numbered, "linked/deeper/y.jpg", "linked.jpg", "more/x.JPEG", "nowhere.jpg"]
    assert found.classes == ["bee", "蜂 queen"]
    [remark] = found.remarks
    assert remark.startswith("3 files are not images and are left out")
    assert "1 .db" in remark
    (bee / "disk").symlink_to(bee / "gone")
    with pytest.raises(FileNotFoundError, match=r"bee/disk is a link to .*/gone, which does not exist"):
        image_folder(folder)
    (bee / "disk").rename(folder / "train" / "wasp")
    with pytest.raises(FileNotFoundError, match=r"train/wasp is a link to .*/gone, which does not exist"):
        image_folder(folder)
    (folder / "train" / "wasp").unlink()
    with pytest.raises(BadImage, match=r"nowhere\.jpg does not decode \(.*No such file"):
        seen(bee / "nowhere.jpg")


@pytest.mark.parametrize("name", ["valid", "validation", "test"])
def test_the_only_split_beside_train_judges_whatever_it_is_called(folder, name):
    (folder / "val").rename(folder / name)
    splits = image_folder(folder).splits()
    assert {split: len(images) for split, images in splits.items()} == {"train": 48, "val": 12, "test": 24}
    (folder / name).rename(folder / "more")
    with pytest.raises(FileNotFoundError, match=r"no class folders in val/: .* or test/<class>/<image>"):
        image_folder(folder)


@pytest.mark.skipif(os.geteuid() == 0, reason="permissions do not bind the superuser")
def test_a_folder_that_cannot_be_read_is_named(folder):
    (folder / "train" / "bee").chmod(0)
    try:
        with pytest.raises(PermissionError, match=r"Permission denied.*train/bee"):
            image_folder(folder)
    finally:
        (folder / "train" / "bee").chmod(0o755)


@pytest.mark.slow
@pytest.mark.parametrize(("split", "workers"), [("train", 2), ("val", 0)])
def test_a_run_that_meets_a_bad_picture_ends_in_one_line(command, folder, micro, split, workers):
    for i in range(29) if split == "train" else range(11):  # so that it is met early, and statistics are given
        (folder / split / "bee" / f"{i:02d}.jpg").write_bytes(b"")
    given = ["data.mean=[0.5,0.5,0.5]", "data.std=[0.2,0.2,0.2]", "data.val_size=0.2", "batch_size=8"]
    done = command(
        "train.py", "data=imagefolder", f"data.root={folder}", *micro, *given, f"workers={workers}", "trainer=cpu"
    )
    assert done.returncode == 2, done.stderr
    [line] = [line for line in done.stderr.splitlines() if "error" in line]
    assert line.startswith(f"error: {folder}/{split}/bee/")
    assert "data.on_error=skip" in line
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.parametrize("workers", some([0, 2], 2))
def test_a_run_may_go_on_without_them_and_counts_what_it_skipped(tmp_path, folder, micro, capsys, workers):
    bad = [folder / split / "bee" / f"{i:02d}.jpg" for split in ("train", "val") for i in (0, 3, 7)]
    for path in bad:
        path.write_bytes(path.read_bytes()[:100])
    arguments = [*micro, "limit_batches=null", "data.val_size=0.2", "batch_size=8", "epochs=3", f"workers={workers}"]
    skip = ["data=imagefolder", f"data.root={folder}", "data.on_error=skip", "logger=csv", "trainer=cpu", *arguments]
    with pytest.raises(Refused, match=r"at least 2 of \d+ images of \w+ do not decode .* data\.max_skipped=0\.01"):
        train_in(configure(*skip), tmp_path / "run")
    train_in(configure(*skip, "data.max_skipped=0.2"), tmp_path / "run")
    kept = record(tmp_path / "run")
    assert sorted(kept["skipped"]) == sorted(map(str, bad))
    assert kept["result"]["data/skipped"] == 6
    assert kept["result"]["test/images"] == 24 - 3
    hits = read_hits(tmp_path / "run")
    assert (len(hits.asked), hits.asked.sum(), hits.right.sum()) == (24, 24 - 3, kept["result"]["test/right"])
    assert not hits.right[~hits.asked].any()
    assert "6 images do not decode and were skipped" in capsys.readouterr().out
    assert len(kept["config"]["data"]["mean"]) == 3, "as measured"
    moved = folder.rename(tmp_path / "moved")
    cpu = configure("trainer=cpu")
    again = evaluate(tmp_path / "run" / "best.ckpt", Machine(cpu.trainer, 0, 0.2, str(moved)), cpu.eval)["result"]
    assert {name: again[name] for name in ("test/acc", "test/loss", "test/images")} == {
        name: kept["result"][name] for name in ("test/acc", "test/loss", "test/images")
    }


@pytest.mark.slow
def test_a_run_that_is_ended_by_what_it_skips_goes_on_where_more_may_be(tmp_path, folder, micro, capsys, command):
    for i in (0, 5):
        (folder / "val" / "bee" / f"{i:02d}.jpg").write_bytes(b"")
    skip = [*micro, "data=imagefolder", f"data.root={folder}", "data.on_error=skip", "data.val_size=0.2"]
    skip += ["batch_size=8", "trainer=cpu", "logger=csv"]
    with pytest.raises(Refused, match=r"at least 2 of 24 images of test do not decode"):
        train_in(configure(*skip), tmp_path / "run")
    assert "resuming" not in capsys.readouterr().out
    train_in(configure(*skip, "data.max_skipped=0.1"), tmp_path / "run")
    assert f"resuming from {tmp_path / 'run' / 'last.ckpt'}" in capsys.readouterr().out
    assert record(tmp_path / "run")["result"]["data/skipped"] == 2
    (folder / "val" / "bee" / "07.jpg").write_bytes(b"")
    line = ["evaluate.py", f"ckpt={tmp_path / 'run' / 'best.ckpt'}", "trainer=cpu"]
    refused = command(*line)
    assert refused.returncode == 2
    said = r"^error: at least 2 of 24 images of test do not decode .* than max_skipped=0\.01: mend"
    assert re.search(said, refused.stderr), "the share is that of the checkpoint, of before"
    allowed = command(*line, "max_skipped=0.2")
    assert allowed.returncode == 0, allowed.stderr


@pytest.mark.slow
@pytest.mark.parametrize("split", ["val", "test"])
def test_two_ranks_that_each_skip_one_image_end_in_one_line(command, folder, micro, split):
    """Each rank alone skips no more images than allowed."""
    if split == "val":
        shutil.copytree(folder / "val", folder / "test")
    for i in (0, 1):  # one is read by each rank
        (folder / "val" / "bee" / f"{i:02d}.jpg").write_bytes(b"")
    given = ["data.mean=[0.5,0.5,0.5]", "data.std=[0.2,0.2,0.2]", "data.val_size=0.2", "batch_size=8", "epochs=1"]
    line = ["train.py", "data=imagefolder", f"data.root={folder}", *micro, *given, "data.on_error=skip", "workers=0"]
    line += ["trainer=ddp", "trainer.devices=2", "trainer.accelerator=cpu"]
    done = command(*line)
    assert done.returncode == 2, done.stderr
    [said] = [line for line in done.stderr.splitlines() if "error" in line]
    assert said.startswith(f"error: at least 2 of 24 images of {split} do not decode ({folder}/val/bee/00.jpg, ")
    assert "Traceback" not in done.stderr
    allowed = command(*line, "data.max_skipped=0.1")
    assert allowed.returncode == 0, allowed.stderr
    assert "2 images do not decode and were skipped" in allowed.stdout


def test_the_share_that_may_be_skipped_is_no_part_of_a_run_and_bytes_that_decode_are(folder):
    data = ["data=imagefolder", f"data.root={folder}", "data.on_error=skip"]
    lines = [[], ["data.max_skipped=0.5"], ["data.max_decoded=64"]]
    plain, other_share, other_bytes = (
        identity_of(cfg, cfg.hydra.runtime.choices) for cfg in (configure(*data, *line) for line in lines)
    )
    assert plain == other_share != other_bytes


@pytest.mark.parametrize("model", some(["micro", "bag", "cnn"], "micro"))
def test_a_batch_of_which_no_image_decodes_changes_no_figure(tmp_path, folder, micro, model):
    """The metrics are those of the set without these images, in each view that does not depend on image numbers."""
    knobs = [*micro, "limit_batches=null", f"model={model}", "data=imagefolder", "data.val_size=0.2", "batch_size=8"]
    knobs += ["data.on_error=skip", "data.max_skipped=0.5", "epochs=1", "logger.tables=true"]
    knobs += ["eval=robust", "eval.patch=4", "eval.img_size=[24]", "eval.shift=[canvas,scale]"]
    spoilt = [folder / "val" / "bee" / f"{i:02d}.jpg" for i in range(8)]
    for path in spoilt:
        path.write_bytes(b"")
    broken = run(tmp_path / "broken", *knobs, f"data.root={folder}", "workers=2")["result"]
    for path in spoilt:
        path.unlink()
    fewer = run(tmp_path / "fewer", *knobs, f"data.root={folder}", "workers=0")["result"]
    assert (broken["data/skipped"], broken["test/images"]) == (8, 16)
    assert {name for name in broken if name.startswith("test/")} == {name for name in fewer if name.startswith("test/")}
    for name in ("val/loss", "test/loss", "test/acc", "test/moved1/acc", "test/moved1/same", "test/scale24/acc"):
        assert broken[name] == pytest.approx(fewer[name], rel=1e-4), name
    tables = [pd.read_csv(tmp_path / name / "predictions.csv") for name in ("broken", "fewer")]
    assert len(tables[0]) == len(tables[1])


def test_a_network_that_takes_no_empty_batch_is_given_none():
    class Reshapes(torch.nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images.reshape(len(images), 3, -1).mean(2)

    net = Reshapes()
    with pytest.raises(RuntimeError, match="cannot reshape tensor of 0 elements"):
        net(torch.empty(0, 3, 4, 4))
    task = task_for(net, num_classes=3, steps=1)
    batch = torch.empty(0, 3, 4, 4), torch.empty(0, dtype=torch.long)
    assert task.logits(batch[0]).shape == (0, 3)
    assert [column.shape for column in task.predict_step(batch, 0)] == [(0,)] * 4
    images = torch.rand(5, 3, 4, 4)
    assert torch.equal(task.logits(images), net(images))


def test_classes_whose_names_are_no_text_have_their_predictions(tmp_path, micro):
    for split in ("train", "val"):
        for name in (b"\xb9\xb7", b"\xc3\xa8"):
            folder = tmp_path / "data" / split / os.fsdecode(name)
            folder.mkdir(parents=True)
            for i in range(8):
                Image.fromarray(np.full((16, 16, 3), 20 * i, np.uint8)).save(folder / f"{i}.png")
    data = ["data=imagefolder", f"data.root={tmp_path / 'data'}", "data.val_size=4", "batch_size=4"]
    run(tmp_path / "run", *micro, *data, "logger.tables=true")
    kept = pd.read_csv(tmp_path / "run" / "predictions.csv")
    assert set(kept["label"]) == {r"\udcb9\udcb7", "è"}
