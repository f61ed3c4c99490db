"""No picture loses content silently: depth, bands, pages, alpha and colour are read, or refused by name."""

import json
import os
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from support import MICRO, configure, record, some, train_in
from torchvision.transforms import v2

from patchbench.commands.build import build_augment, build_source
from patchbench.commands.evaluate import evaluate
from patchbench.commands.reopen import Machine
from patchbench.config.compose import composed
from patchbench.config.errors import Refused
from patchbench.config.origin import origin_of, restored, with_measured
from patchbench.data.bands import Mismatch, is_coloured, move_bands_first, open_picture, picture_info, to_uint8
from patchbench.data.cache_writer import prepare
from patchbench.data.pictures import BadImage
from patchbench.data.statistics import check_variety
from patchbench.data.survey import FEW_LEVELS, HEADERS, TAIL, value_range
from patchbench.train.checkpoint import AtomicCheckpoint, read_checkpoint

SIDE = 16
Write = Callable[[Path, np.ndarray], None]


def drawn(label: int, number: int, low: float = 0, high: float = 255, bands: int = 1) -> np.ndarray:
    """Draw values c h w in low ... high, brighter on the side that gives the label."""
    values = np.random.default_rng([label, number]).uniform(low, (low + high) / 2, (bands, SIDE, SIDE))
    values[:, :, slice(0, 8) if label else slice(8, None)] += (high - low) / 2
    return values


def save_image(path: Path, values: np.ndarray) -> None:
    picture = values[0] if len(values) == 1 else np.moveaxis(values, 0, 2)
    Image.fromarray(np.ascontiguousarray(picture)).save(path)


def save_pages(path: Path, values: np.ndarray) -> None:
    pages = [Image.fromarray(band) for band in values]
    pages[0].save(path, save_all=True, append_images=pages[1:])


def save_array(path: Path, values: np.ndarray) -> None:
    np.save(path, values)


def folder(
    root: Path,
    write: Write,
    suffix: str,
    dtype: Any,
    *,
    low: float = 0,
    high: float = 255,
    bands: int = 1,
    classes: tuple[str, ...] = ("ant", "bee"),
    train: int = 12,
) -> Path:
    for split, count in {"train": train, "val": 6}.items():
        for label, name in enumerate(classes):
            (root / split / name).mkdir(parents=True, exist_ok=True)
            for i in range(count):
                values = drawn(label, i + 100 * (split == "val"), low, high, bands)
                values = (values if dtype == np.float32 else np.rint(values)).astype(dtype)
                write(root / split / name / f"{i:03}.{suffix}", values)
    return root


def source(root: Path, *overrides: str) -> Any:
    knobs = [f"data.img_size={SIDE}", "data.crop_pct=1.0", "data.val_size=4"]
    return build_source(configure("data=imagefolder", f"data.root='{root}'", *knobs, *overrides))


def everything(split: Any) -> torch.Tensor:
    return split.read(range(len(split)))[0]


def tiff(values: np.ndarray, photometric: int = 1) -> bytes:
    """Make an uncompressed TIFF of interleaved samples; further samples than grey or RGB are unspecified."""
    bands, height, width = values.shape
    held = np.ascontiguousarray(np.moveaxis(values, 0, 2)).tobytes()
    extra = bands - (3 if photometric == 2 else 1)
    tags = {256: [width], 257: [height], 258: [8 * values.itemsize] * bands, 259: [1], 262: [photometric], 273: [0]}
    tags |= {277: [bands], 278: [height], 279: [len(held)], 284: [1]} | ({338: [0] * extra} if extra else {})
    entries, longer = b"", b""
    start = 8 + 2 + 12 * len(tags) + 4
    for tag, numbers in sorted(tags.items()):
        packed = struct.pack(f"<{len(numbers)}H", *numbers)
        if len(packed) <= 4:
            entries += struct.pack("<HHI", tag, 3, len(numbers)) + packed.ljust(4, b"\0")
        else:
            entries += struct.pack("<HHII", tag, 3, len(numbers), start + len(longer))
            longer += packed
    at = entries.index(struct.pack("<HHI", 273, 3, 1)) + 8
    entries = entries[:at] + struct.pack("<I", start + len(longer)) + entries[at + 4 :]
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + struct.pack("<I", 0) + longer + held


def save_tiff(path: Path, values: np.ndarray, photometric: int = 1) -> None:
    path.write_bytes(tiff(values, photometric))


# Depth


@pytest.mark.parametrize(
    ("low", "high", "dtype", "write", "suffix"),
    [
        (776, 1009, np.uint16, save_image, "tif"),
        (0, 255, np.uint16, save_image, "png"),
        (0, 4095, np.uint16, save_image, "png"),
        (0, 65535, np.uint16, save_image, "tif"),
        (-500, 70000, np.int32, save_image, "tif"),
        (-2, 3, np.float32, save_image, "tif"),
        (776, 1009, np.uint16, save_array, "npy"),
        (0, 255, np.uint8, save_array, "npy"),
    ],
)
def test_deep_values_fill_all_levels_whatever_their_range_is(tmp_path, low, high, dtype, write, suffix):
    found = source(folder(tmp_path, write, suffix, dtype, low=low, high=high))
    splits = found.splits()
    images = everything(splits["train"])
    assert (int(images.min()), int(images.max())) == (0, 255)
    assert len(images.unique()) >= min(high - low, 200)
    assert 0.2 < found.std[0] < 0.35
    test, labels = splits["test"].read(range(12))
    brighter = test.float()[..., 8:].mean((1, 2, 3)) < test.float()[..., :8].mean((1, 2, 3))
    assert torch.equal(brighter.long(), labels)
    if dtype == np.uint8:
        assert found.range is None
        assert not found.remarks
    else:
        assert found.range[0] == pytest.approx([low, high], abs=0.02 * (high - low) + 1)
        [remark] = found.remarks
        assert "become black to white" in remark


def test_values_of_eight_bits_in_sixteen_are_as_those_of_eight(tmp_path):
    wide = folder(tmp_path / "wide", save_image, "png", np.uint16, train=40)
    plain = folder(tmp_path / "plain", save_image, "png", np.uint8, train=40)
    wide, plain = (everything(source(root).splits()["train"]).int() for root in (wide, plain))
    assert (wide - plain).abs().max() <= 2


def test_a_hot_pixel_does_not_set_the_range_and_nearly_equal_values_have_one():
    values = np.random.default_rng(0).uniform(776, 1009, 100_000).astype(np.float32)
    values[:3] = 65535
    assert value_range(values) == pytest.approx((776, 1009), abs=1)
    assert TAIL * len(values) > 3
    flat = np.full(100_000, 5, np.float32)
    flat[0] = 9
    assert value_range(flat) == (5, 9)


@pytest.mark.parametrize("mark", [-9999, 65535])
def test_values_that_mark_missing_pixels_do_not_take_the_levels_in_silence(tmp_path, mark):
    def marked(path: Path, values: np.ndarray) -> None:
        values[:, :2] = mark
        save_array(path, values)

    root = folder(tmp_path, marked, "npy", np.float32, low=776, high=1009)
    found = source(root)
    flat = everything(found.splits()["train"])[:, :, 4:]
    assert len(flat.unique()) <= FEW_LEVELS
    _, doubt = found.remarks
    assert "nine tenths" in doubt
    low, high = json.loads(doubt.rpartition("data.range=")[2])
    assert 776 <= low < 800
    assert 980 < high <= 1009
    found = source(root, f"data.range=[{low},{high}]")
    assert len(everything(found.splits()["train"])[:, :, 4:].unique()) > 200
    assert not found.remarks

    def flattened(path: Path, values: np.ndarray) -> None:
        marked(path, values / 1000)

    found = source(folder(tmp_path, flattened, "npy", np.float32, low=776, high=1009))
    train = found.splits()["train"]
    with pytest.raises(ValueError, match=rf"are the same .*; values from .*{mark}.*; .* set data\.range="):
        check_variety(train, found.remarks)


def test_a_given_range_is_taken_and_checked(tmp_path):
    root = folder(tmp_path, save_image, "png", np.uint16, low=0, high=1000)
    found = source(root, "data.range=[0,2000]")
    assert int(everything(found.splits()["train"]).max()) in (126, 127, 128)
    assert not found.remarks
    for wrong in ("7", "[2,1]", "[]", "[[1,2],[3]]", "[a,b]"):
        with pytest.raises(ValueError, match=r"data\.range=.* must be \[low,high\], or such a pair for each band"):
            source(root, f"data.range={wrong}")
    with pytest.raises(BadImage, match=r"has 1 bands, and data\.range=.* is for 2"):
        everything(source(root, "data.range=[[0,1],[0,1]]").splits()["train"])


def test_pictures_of_another_depth_than_the_others_are_refused(tmp_path):
    root = folder(tmp_path, save_image, "png", np.uint8, train=2 * HEADERS)
    late = root / "train" / "ant" / "zzz.png"
    Image.fromarray(drawn(0, 0, 0, 4095)[0].astype(np.uint16)).save(late)
    split = source(root, "data.mean=[0.5]", "data.std=[0.5]").splits()["train"]
    if split.album.paths.index(str(late)) in split.album_indices.tolist():
        with pytest.raises(
            BadImage, match=r"zzz\.png has values of uint16, and the pictures .* data\.range=\[low,high\]"
        ):
            everything(split)
    deep = folder(tmp_path / "deep", save_image, "png", np.uint16)
    save_image(deep / "train" / "ant" / "000.png", drawn(0, 0).astype(np.uint8))
    with pytest.raises(
        ValueError, match=r"has more than 8 bits, and \S+ant/000\.png has 8: save all alike, or set data\.r"
    ):
        source(deep)
    assert source(deep, "data.range=[0,255]").splits()


@pytest.mark.parametrize("deep", ["train", "val"])
def test_splits_of_different_depth_are_refused_before_any_is_read(tmp_path, deep):
    wide = folder(tmp_path / "wide", save_image, "png", np.uint16, high=4095)
    plain = folder(tmp_path / "plain", save_image, "png", np.uint8)
    other = "val" if deep == "train" else "train"
    (plain / deep).rename(tmp_path / "unused")
    (wide / deep).rename(plain / deep)
    with pytest.raises(ValueError, match=rf"pictures of {deep} have more than 8 bits, those of {other} have 8"):
        source(plain)
    assert source(plain, "data.range=[0,4095]").splits()


def test_a_range_that_nothing_reads_is_said(tmp_path):
    [remark] = source(folder(tmp_path, save_image, "png", np.uint8), "data.range=[0,1]").remarks
    assert remark.startswith("data.range is not used")


def test_values_that_are_no_numbers_are_named(tmp_path):
    root = folder(tmp_path, save_array, "npy", np.float32)
    values = drawn(0, 0).astype(np.float32)
    values[0, 3, 4] = np.nan
    np.save(root / "train" / "ant" / "000.npy", values)
    with pytest.raises(
        BadImage, match=r"000\.npy does not decode \(some values are not finite numbers: fill them in\)"
    ):
        [everything(split) for split in source(root).splits().values()]


def rgb16(path: Path, values: np.ndarray) -> None:
    save_tiff(path, values, photometric=2)


def test_colours_of_sixteen_bits_that_lose_their_levels_are_refused(tmp_path):
    full = source(folder(tmp_path / "full", rgb16, "tif", np.uint16, high=65535, bands=3))
    assert len(everything(full.splits()["train"]).unique()) > 200
    with pytest.raises(
        ValueError, match=r"with 16 bits only the upper 8 bits are read, and these reach 1[45] of 255 only"
    ):
        source(folder(tmp_path / "dark", rgb16, "tif", np.uint16, high=4095, bands=3)).splits()
    with pytest.raises(ValueError, match=r"these reach 1[45] of 255 only"):
        source(tmp_path / "dark", "data.mean=[.5,.5,.5]", "data.std=[.2,.2,.2]").splits()


# Bands


@pytest.mark.parametrize("bands", [1, 2, 4, 13])
@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("dtype", some([np.uint8, np.uint16, np.float32], np.uint16))
def test_arrays_are_read_with_all_their_bands(tmp_path, bands, first, dtype):
    def write(path: Path, values: np.ndarray) -> None:
        np.save(path, values if first else np.moveaxis(values, 0, 2))

    found = source(folder(tmp_path, write, "npy", dtype, bands=bands))
    images = everything(found.splits()["train"])
    assert images.shape[1:] == (bands, SIDE, SIDE)
    assert len(found.mean) == len(found.std) == found.in_chans == bands
    assert (images.amax((0, 2, 3)) >= 250).all()
    assert len({tuple(image[0].flatten().tolist()) for image in images}) == len(images)
    net = [*MICRO, "data=imagefolder", f"data.root='{tmp_path}'", "data.val_size=4"]
    if bands not in (1, 3):
        with pytest.raises(ValueError, match=rf"changes colours or greys, and the images have {bands} channels"):
            build_augment(configure(*net, "augment=three"), found)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_pages_of_a_tiff_are_bands_where_that_is_asked_for(tmp_path, dtype):
    root = folder(tmp_path, save_pages, "tif", dtype, bands=13)
    with pytest.raises(ValueError, match=r"000\.tif has 13 pages: set data\.channels .* data\.channels=13"):
        source(root)
    for wrong in (1, 3, 12):
        with pytest.raises(
            ValueError, match=rf"000\.tif has 13 channels, and data\.channels={wrong}: give data\.channels=13"
        ):
            source(root, f"data.channels={wrong}")
    images = everything(source(root, "data.channels=13").splits()["train"]).int()
    arrays = folder(tmp_path / "arrays", save_array, "npy", dtype, bands=13)
    assert torch.equal(images, everything(source(arrays).splits()["train"]).int())


def test_a_smaller_copy_of_a_picture_is_no_page(tmp_path):
    picture, copy = Image.effect_noise((SIDE, SIDE), 50), Image.effect_noise((8, 8), 50)
    copy.encoderinfo = {"tiffinfo": {254: 1}}
    picture.save(tmp_path / "a.tif", save_all=True, append_images=[copy])
    with Image.open(tmp_path / "a.tif") as file:
        assert file.n_frames == 2
        assert picture_info(file, None).channels == 1
        assert torch.equal(
            to_uint8(file, 1, None, grey=True, max_decoded=1)[0], v2.functional.pil_to_tensor(picture)[0]
        )


def test_pages_of_several_sizes_are_no_bands(tmp_path):
    pages = [Image.effect_noise((SIDE, SIDE), 50), Image.effect_noise((8, 8), 50)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    with Image.open(tmp_path / "a.tif") as file, pytest.raises(Mismatch, match="pages of several sizes"):
        to_uint8(file, 2, None, grey=False, max_decoded=1)


@pytest.mark.parametrize(("bands", "dtype"), [(13, np.uint16), (5, np.uint8), (2, np.uint16)])
def test_interleaved_bands_that_pillow_does_not_read_are_named_with_the_cure(tmp_path, bands, dtype):
    root = folder(tmp_path, save_tiff, "tif", dtype, bands=bands)
    with pytest.raises(BadImage, match=rf"a TIFF of {bands} samples a pixel, which Pillow does not read: save .*\.npy"):
        source(root).splits()


def save_near_infrared(path: Path, values: np.ndarray) -> None:
    save_tiff(path, values, photometric=2)


def test_near_infrared_beside_rgb_is_not_dropped_unasked(tmp_path):
    root = folder(tmp_path, save_near_infrared, "tif", np.uint8, bands=4)
    with pytest.raises(
        ValueError, match=r"000\.tif has 4 samples a pixel, of which Pillow reads 3: set data\.channels=3"
    ):
        source(root)
    with pytest.raises(
        ValueError, match=r"has 4 samples a pixel, of which Pillow reads 3: save it as an array \(\.npy"
    ):
        source(root, "data.channels=4")
    rgb = everything(source(root, "data.channels=3").splits()["train"])
    arrays = folder(tmp_path / "arrays", save_array, "npy", np.uint8, bands=4)
    assert torch.equal(rgb, everything(source(arrays).splits()["train"])[:, :3])


def test_bands_lie_along_the_first_or_the_last_axis(tmp_path):
    assert move_bands_first(np.zeros((5, 7)), None).shape == (1, 5, 7)
    assert move_bands_first(np.zeros((13, 64, 64)), None).shape == (13, 64, 64)
    assert move_bands_first(np.zeros((64, 64, 13)), None).shape == (13, 64, 64)
    assert move_bands_first(np.zeros((8, 64, 13)), 13).shape == (13, 8, 64), "as many as are asked for"
    assert move_bands_first(np.zeros((13, 64, 8)), 13).shape == (13, 64, 8)
    assert move_bands_first(np.zeros((4, 9, 4)), 4).shape == (4, 4, 9)
    for wrong in (
        np.zeros(3),
        np.zeros((2, 2, 2, 2)),
        np.zeros((0, 2)),
        np.zeros((2, 2), complex),
        np.zeros((2, 2), "O"),
    ):
        with pytest.raises(ValueError, match="is not a picture, H x W"):
            move_bands_first(wrong, None)


def test_an_array_that_is_damaged_is_named_and_none_runs_code(tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, drawn(0, 0, bands=3).astype(np.uint16))
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    for spoilt in [
        b"",
        whole[:50],
        whole[:-1],
        *[bytes(rng.integers(256, size=200, dtype=np.uint8)) for _ in range(20)],
    ]:
        path.write_bytes(spoilt)
        with pytest.raises((ValueError, OSError)):
            open_picture(str(path), str(path))
    np.save(path, np.array([{"a": 1}]), allow_pickle=True)
    with pytest.raises(ValueError, match="not an array that numpy can read"):
        open_picture(str(path), str(path))


# Alpha


@pytest.mark.parametrize("alpha", [0, 128, 255])
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_alpha_of_one_value_leaves_the_colours(tmp_path, alpha, suffix):
    colours = drawn(0, 0, bands=3).astype(np.uint8)
    save_image(tmp_path / f"a.{suffix}", np.concatenate([colours, np.full((1, SIDE, SIDE), alpha, np.uint8)]))
    picture = open_picture(str(tmp_path / f"a.{suffix}"), "")
    assert torch.equal(to_uint8(picture, 3, None, grey=False, max_decoded=1), torch.from_numpy(colours))
    picture = open_picture(str(tmp_path / f"a.{suffix}"), "")
    assert to_uint8(picture, 4, None, grey=False, max_decoded=1)[3].unique().tolist() == [alpha], (
        "as a band, where it is asked for"
    )


def test_alpha_is_remarked_on_once(tmp_path):
    found = source(folder(tmp_path, save_image, "png", np.uint8, bands=4))
    assert found.in_chans == 3
    [remark] = found.remarks
    assert "alpha channel" in remark
    assert not source(tmp_path, "data.channels=4").remarks


@pytest.mark.parametrize("suffix", ["gif", "webp", "png"])
def test_frames_that_are_not_read_are_said(tmp_path, suffix):
    def animated(path: Path, values: np.ndarray) -> None:
        frames = [Image.fromarray(np.moveaxis(each, 0, 2).astype(np.uint8)) for each in (values, 255 - values)]
        frames[0].save(path, save_all=True, append_images=frames[1:], lossless=True)

    remarks = source(folder(tmp_path, animated, suffix, np.uint8, bands=3)).remarks
    assert "some pictures are animated: only their first frame is read" in remarks


# Grey and colour


def mixed(root: Path, share: float) -> Path:
    """Make a folder of grey pictures with a share of colour pictures."""
    folder(root, save_image, "png", np.uint8, train=64)
    for name in ("ant", "bee"):
        for path in sorted((root / "train" / name).iterdir())[:: round(1 / share)]:
            Image.effect_noise((SIDE, SIDE), 60).convert("RGB").point([*range(256), *([0] * 512)]).save(path)
    return root


@pytest.mark.parametrize("share", [0.5, 0.25, 0.03125])
def test_a_set_with_colours_is_read_in_colour(tmp_path, share):
    root = mixed(tmp_path, share)
    assert source(root).in_chans == 3
    assert source(root, "data.channels=1").in_chans == 1
    assert everything(source(root, "data.channels=1").splits()["train"]).shape[1] == 1


def test_colours_found_later_in_a_grey_set_are_not_given_up_in_silence(tmp_path):
    root = folder(tmp_path, save_image, "png", np.uint8)
    found = source(root)
    assert found.in_chans == 1
    for path in (root / "val" / "ant").iterdir():
        Image.new("RGB", (SIDE, SIDE), (9, 9, 9)).save(path)
    assert everything(found.splits()["test"])[0].unique().tolist() == [9], "RGB without colours is grey"
    Image.new("RGB", (SIDE, SIDE), (9, 9, 10)).save(root / "val" / "ant" / "003.png")
    with pytest.raises(BadImage, match=r"003\.png has colours, and .* are grey: set data\.channels=3, or 1"):
        everything(found.splits()["test"])
    assert everything(source(root, "data.channels=1").splits()["test"]).shape[1] == 1
    assert not is_coloured(Image.new("RGB", (2, 2), (9, 9, 9)))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize(("write", "suffix"), [(save_image, "png"), (save_array, "npy")])
def test_grey_data_are_rgb_where_that_is_asked_for(tmp_path, dtype, write, suffix):
    root = folder(tmp_path, write, suffix, dtype)
    one, three = (everything(source(root, f"data.channels={n}").splits()["train"]) for n in ("auto", 3))
    assert torch.equal(one.expand(-1, 3, -1, -1), three)


@pytest.mark.parametrize("wrong", ["0", "-1", "true", "rgb", "1.5", "null"])
def test_other_channels_are_refused(tmp_path, wrong):
    with pytest.raises(
        ValueError, match=rf"data\.channels={wrong.capitalize() if wrong in ('true',) else ''}.* must be auto"
    ):
        source(folder(tmp_path, save_image, "png", np.uint8), f"data.channels={wrong}")


# What nothing can be learnt from


def small(root: Path, *overrides: str) -> Any:
    knobs = ["batch_size=4", "epochs=1", "data.val_size=4", "data.crop_pct=1.0", "logger=none"]
    return configure(*MICRO, *knobs, "data=imagefolder", f"data.root='{root}'", *overrides)


def test_training_images_that_are_all_alike_are_refused_and_a_dead_channel_is_said(tmp_path, capsys):
    flat = folder(tmp_path / "flat", lambda path, values: save_image(path, 0 * values + 7), "png", np.uint8)
    with pytest.raises(Refused, match=r"all of 20 training images .* are the same \(every pixel is 7 of 255\)"):
        train_in(small(flat), tmp_path / "run")
    assert not list(tmp_path.rglob("*.ckpt"))

    def dead(path: Path, values: np.ndarray) -> None:
        np.save(path, np.where(np.arange(13)[:, None, None] == 9, 3, values).astype(np.uint16))

    root = folder(tmp_path / "dead", dead, "npy", np.uint16, bands=13, low=776, high=1009)
    train_in(small(root), tmp_path / "run")
    printed = capsys.readouterr().out
    assert "channel 9 (from 0) of 13 had one value in all of 20 training images" in printed
    assert "13 bands) become black to white" in printed
    kept = record(tmp_path / "run")
    assert kept["config"]["data"]["channels"] == 13
    assert [round(end) for end in kept["config"]["data"]["range"][0]] == [776, 1009]
    assert kept["classes"] == ["ant", "bee"]
    again = restored(read_checkpoint(tmp_path / "run" / "best.ckpt")["patchbench"])
    assert again.data.range == kept["config"]["data"]["range"]


# The scale of training holds for other images


@pytest.mark.slow
def test_other_images_are_scaled_by_the_range_of_training(tmp_path, capsys):
    root = folder(tmp_path / "set", save_image, "tif", np.uint16, low=776, high=1009)
    train_in(small(root), tmp_path / "run")
    ckpt = tmp_path / "run" / "best.ckpt"
    brighter = folder(tmp_path / "other", save_image, "tif", np.uint16, low=1009, high=1242)
    cfg = restored(read_checkpoint(ckpt)["patchbench"], str(brighter))
    found = build_source(cfg)
    assert everything(found.splits()["test"]).unique().tolist() == [255], "all of them lie beyond the range"
    assert not found.remarks
    evaluated(ckpt, brighter)
    assert "all of 12 test images that were checked are the same (every pixel is 255 of" in capsys.readouterr().out
    prepare(source(root), tmp_path / "cache", made_from={}, command="", workers=0)
    meta = json.loads((tmp_path / "cache" / "meta.json").read_text())
    assert meta["range"] == source_range(root)
    cached = build_source(composed(["data=cached", f"data.root={tmp_path / 'cache'}"]))
    assert torch.equal(everything(cached.splits()["test"]), everything(source(root).splits()["test"]))
    assert cached.range == meta["range"]
    cfg = configure("data=cached", f"data.root={tmp_path / 'cache'}")
    kept = with_measured(origin_of(cfg, cfg.hydra.runtime.choices), cached)
    assert kept["config"]["data"]["range"] == meta["range"]
    assert build_source(restored(kept)).mean == cached.mean
    prepare(source(brighter), tmp_path / "brighter", made_from={}, command="", workers=0)
    with pytest.raises(ValueError, match=r"data\.range=\[\[776\.0, 1009\.0\]\] differs from .*brighter was prepared"):
        build_source(restored(kept, str(tmp_path / "brighter")))
    with pytest.raises(ValueError, match=r"data\.range=\[\[1, 2\]\] differs from .*data\.root=.* was prepared"):
        build_source(composed(["data=cached", f"data.root={tmp_path / 'cache'}", "data.range=[[1,2]]"]))


def source_range(root: Path) -> list:
    found = source(root)
    found.splits()
    return found.range


# Classes are known by name


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train a run with three classes; return its checkpoint."""
    where = tmp_path_factory.mktemp("trained")
    root = folder(where / "set", save_image, "png", np.uint8, classes=("ant", "bee", "cat"))
    train_in(small(root, "limit_batches=null"), where / "run")
    return where / "run" / "best.ckpt"


def evaluated(ckpt: Path, root: Path | None = None) -> dict[str, Any]:
    cpu = configure("trainer=cpu")
    return evaluate(ckpt, Machine(cpu.trainer, 0, 0.2, root and str(root)), cpu.eval)["result"]


@pytest.mark.slow
def test_a_set_that_lacks_classes_is_labelled_by_name(tmp_path, trained, capsys):
    names = ("ant", "bee", "cat")
    whole = evaluated(trained, folder(tmp_path / "whole", save_image, "png", np.uint8, classes=names))
    assert whole == evaluated(trained), "a copy of the images of training, which lie where they lay"
    (tmp_path / "whole" / "val" / "ant").rename(tmp_path / "ant")
    (tmp_path / "whole" / "train" / "ant").rename(tmp_path / "ant of train")
    part = evaluated(trained, tmp_path / "whole")
    assert "2 of the 3 classes are in these images" in capsys.readouterr().out
    cfg = restored(read_checkpoint(trained)["patchbench"], str(tmp_path / "whole"))
    split = build_source(cfg).splits()["test"]
    assert sorted(set(split.labels.tolist())) == [1, 2], "not 0 and 1"
    (tmp_path / "ant").rename(tmp_path / "whole" / "val" / "ant")
    (tmp_path / "ant of train").rename(tmp_path / "whole" / "train" / "ant")
    for name in ("bee", "cat"):
        for split in ("train", "val"):
            (tmp_path / "whole" / split / name).rename(tmp_path / f"{name} of {split}")
    rest = evaluated(trained, tmp_path / "whole")
    assert whole["test/acc"] * 18 == pytest.approx(part["test/acc"] * 12 + rest["test/acc"] * 6)


def test_other_names_of_classes_are_refused(tmp_path, trained):
    renamed = folder(tmp_path / "renamed", save_image, "png", np.uint8, classes=("Zed", "ant", "zzz"))
    with pytest.raises(
        Refused, match=r"the folders Zed, zzz in train/ are none of the 3 known classes \(ant, bee, cat\)"
    ):
        evaluated(trained, renamed)


@pytest.mark.slow
def test_names_of_classes_may_be_any_bytes(tmp_path):
    names = (os.fsdecode(b"\xb9\xb7"), "a b", "=x", "1e3", "NaN")
    try:
        root = folder(tmp_path / "set", save_image, "png", np.uint8, classes=names)
    except OSError:
        pytest.skip("this file system takes text alone")
    train_in(small(root, "data.val_size=0.2"), tmp_path / "run")
    assert sorted(record(tmp_path / "run")["classes"]) == sorted(names)
    assert evaluated(tmp_path / "run" / "best.ckpt")["test/images"] == 16


@pytest.mark.parametrize("name", ["???", "${seed}"])
def test_names_of_classes_that_no_checkpoint_can_keep_are_refused(tmp_path, name):
    root = folder(tmp_path, save_image, "png", np.uint8, classes=(name, "bee"))
    with pytest.raises(ValueError, match=rf"the folder {re.escape(name)} in train/ cannot be the name of a class"):
        source(root)


def test_a_cache_is_labelled_by_name_too(tmp_path):
    root = folder(tmp_path / "set", save_image, "png", np.uint8, classes=("bee", "cat"))
    prepare(source(root), tmp_path / "cache", made_from={}, command="", workers=0)

    def cached(classes: str) -> Any:
        return build_source(composed(["data=cached", f"data.root={tmp_path / 'cache'}", f"data.classes={classes}"]))

    assert cached("null").num_classes == 2
    found = cached("[ant,bee,cat]")
    assert found.num_classes == 3
    assert sorted(set(found.splits()["test"].labels.tolist())) == [1, 2]
    with pytest.raises(ValueError, match=r"the cache holds cat, none of the 2 known classes"):
        cached("[ant,bee]")


@pytest.mark.slow
def test_a_checkpoint_that_does_not_fit_and_data_without_a_folder_are_refused_in_one_line(tmp_path, trained):
    coloured = folder(tmp_path / "rgb", save_image, "png", np.uint8, bands=3, classes=("ant", "bee", "cat"))
    assert evaluated(trained, coloured), "made grey, as the images of training are"
    checkpoint = torch.load(trained, weights_only=True)
    del checkpoint["patchbench"]["classes"]  # as earlier versions wrote it
    AtomicCheckpoint().save_checkpoint(checkpoint, tmp_path / "old.ckpt")
    fewer = folder(tmp_path / "two", save_image, "png", np.uint8)
    with pytest.raises(Refused, match=r"old\.ckpt does not fit these data: net\.head\.weight is \[3, \d+\] there"):
        evaluated(tmp_path / "old.ckpt", fewer)
    train_in(configure(*MICRO, "epochs=1", "logger=none"), tmp_path / "digits")
    with pytest.raises(Refused, match=r"data_root=/nowhere: data=digits has no folder: leave it out"):
        evaluated(tmp_path / "digits" / "best.ckpt", Path("/nowhere"))


def test_a_class_of_which_nothing_decodes_is_said(tmp_path):
    root = folder(tmp_path / "set", save_image, "png", np.uint8)
    for path in (root / "val" / "bee").iterdir():
        path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(Refused, match=r"none of the \d+ images of the class bee in test decodes .* remove the class"):
        train_in(small(root, "data.on_error=skip", "data.max_skipped=1"), tmp_path / "run")
