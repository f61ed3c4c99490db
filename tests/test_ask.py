"""A trained network is evaluated on other sizes, shuffled and shifted images; the results are in its record."""

import pytest
import torch
from support import configure, options, record, train_in

from patchbench.commands.build import build_net, build_source
from patchbench.commands.evaluate import evaluate
from patchbench.commands.reopen import Machine
from patchbench.data.source import InMemory
from patchbench.evaluate.robustness import check_views, read_views
from patchbench.evaluate.views import ChangedSplit, Subset, place_on_canvas, shift_images, shuffle_patches

IMAGES = torch.randint(256, (6, 3, 8, 12), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
SPLIT = InMemory(IMAGES, torch.arange(6))


def read(change, numbers=range(6)):
    return ChangedSplit(SPLIT, change).read(list(numbers))[0]


def test_a_canvas_holds_the_image_somewhere_and_its_ground_elsewhere():
    canvas = read(place_on_canvas((16, 16)))
    for image, whole in zip(IMAGES, canvas, strict=True):
        windows = whole.unfold(1, 8, 1).unfold(2, 12, 1).permute(1, 2, 0, 3, 4)
        found = (windows == image).all(-1).all(-1).all(-1)
        assert found.sum() == 1
        rim = torch.cat([image[:, [0, -1]].flatten(1), image[:, :, [0, -1]].flatten(1)], 1)
        ground = whole[0].flatten()
        assert (ground == rim.median(1).values[0]).sum() >= 16 * 16 - 8 * 12
    with pytest.raises(ValueError, match=r"eval\.img_size=\[4,12\] is a smaller canvas"):
        read(place_on_canvas((4, 12)))


def test_a_shuffle_moves_whole_patches_and_each_image_by_itself():
    def tiles(images):
        return images.unfold(2, 4, 4).unfold(3, 4, 4).permute(0, 2, 3, 1, 4, 5).flatten(1, 2)

    for before, after in zip(tiles(IMAGES), tiles(read(shuffle_patches((4, 4)))), strict=True):
        assert sorted(t.flatten().tolist() for t in before) == sorted(t.flatten().tolist() for t in after)
    pixels = read(shuffle_patches((1, 1)))
    assert torch.equal(pixels.flatten(2).sort(2).values, IMAGES.flatten(2).sort(2).values)
    numbered = torch.arange(96, dtype=torch.uint8).reshape(1, 1, 8, 12).repeat(6, 1, 1, 1)
    orders = shuffle_patches((1, 1))(numbered, torch.arange(6)).flatten(1)
    assert len({tuple(order.tolist()) for order in orders}) == 6


def test_a_view_of_an_image_depends_on_its_number_alone():
    for change in (place_on_canvas((16, 16)), shuffle_patches((4, 4)), shift_images(3)):
        assert torch.equal(read(change)[[4, 2]], read(change, [4, 2]))


def test_moving_brings_in_again_what_leaves():
    assert torch.equal(read(shift_images(3)), torch.roll(IMAGES, (3, 3), (2, 3)))


def test_some_images_of_a_view_are_what_they_are_among_all():
    some = Subset(ChangedSplit(SPLIT, shuffle_patches((4, 4))), 3)
    assert len(some) == 3
    images, labels = some.read([0, 1, 2])
    assert labels.tolist() == [0, 2, 4]
    assert torch.equal(images, read(shuffle_patches((4, 4)))[[0, 2, 4]])
    assert len(Subset(SPLIT, 100)) == 6


def views(*overrides):
    cfg = configure(*overrides)
    return read_views(**cfg.eval, run_patch=cfg.patch)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("eval.shift=wider", r"eval\.shift=wider is unknown"),
        ("eval.shuffle=rows", r"eval\.shuffle=rows is unknown"),
        ("eval.move=[0]", r"eval\.move=\[0\] must list"),
        ("eval.move=some", r"eval\.move=some must list"),
        ("eval.img_size=[0]", r"eval\.img_size=0 is no size"),
    ],
)
def test_a_question_that_makes_no_sense_is_refused_by_its_option(override, message):
    with pytest.raises(ValueError, match=message):
        views(override)


def test_what_the_network_cannot_take_is_refused_before_training():
    cfg = configure("model=micro", "data.img_size=16", "patch=4", "eval.img_size=[18]")
    source = build_source(cfg)
    with torch.device("meta"):
        net = build_net(cfg, source)
    with pytest.raises(ValueError, match=r"eval\.img_size=18 does not fit this network"):
        check_views(read_views(**cfg.eval, run_patch=4), net, source)


def test_options_may_be_single_or_listed():
    assert views("eval.img_size=48", "eval.shuffle=pixels", "eval.move=2") == views(
        "eval.img_size=[48]", "eval.shuffle=[pixels]", "eval.move=[2]"
    )
    assert views("patch=4", "eval.move=all").moves == (1, 2, 3)


@pytest.mark.slow
@pytest.mark.parametrize("option", options("eval"))
def test_the_record_answers_and_may_be_asked_again(tmp_path, micro, option):
    def ask(*overrides):
        cfg = configure("trainer=cpu", "logger=csv", *micro, "limit_batches=null", "epochs=1", *overrides)
        train_in(cfg, tmp_path)
        return record(tmp_path)

    first = ask(f"eval={option}")
    more = ask(f"eval={option}", "eval.img_size=[16,[24,32]]", "eval.shift=[canvas,scale]", "eval.move=[16]")
    assert more["environment"] == first["environment"], "nothing was trained again"
    result = more["result"]
    assert result["test/acc"] == first["result"]["test/acc"]
    assert result["test/canvas16/acc"] == result["test/scale16/acc"] == pytest.approx(result["test/acc"])
    assert result["test/moved16/same"] == 1, "moved all the way round"
    assert {"test/canvas24x32/acc", "test/scale24x32/acc"} <= set(result)
    if option == "robust":
        assert {f"test/moved{k}/{what}" for k in (1, 2, 3) for what in ("acc", "same")} <= set(result)
        assert result["test/shuffled_pixels/acc"] < result["test/acc"]


def test_a_generated_set_is_asked_about_at_its_end_and_from_the_checkpoint(tmp_path):
    quick = ["model=micro", "patch=4", "epochs=1", "data.train_size=64", "data.val_size=32", "data.test_size=200"]
    cfg = configure("data=motif", *quick, "trainer=cpu", "logger=none", "eval.img_size=[24]", "eval.shift=[canvas]")
    train_in(cfg, tmp_path)
    result = record(tmp_path)["result"]
    wanted = {f"test/{view}acc" for view in ("", "inside/", "cut/", "canvas24/", "canvas24/inside/", "canvas24/cut/")}
    assert wanted <= set(result)
    inside = (200 * result["test/acc"] - 200 * result["test/cut/acc"]) / (
        result["test/inside/acc"] - result["test/cut/acc"]
    )
    assert inside == pytest.approx(round(inside), abs=1e-3), "the two parts make the whole"
    again = evaluate(tmp_path / "best.ckpt", Machine(cfg.trainer, 0, 0.2), cfg.eval)["result"]
    assert {name: again[name] for name in wanted} == {name: result[name] for name in wanted}
