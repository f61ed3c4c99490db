"""Crops of photographs are functions of draws, splits share no photograph, and only colour and place give the label."""

import pytest
import torch
from sklearn.linear_model import LogisticRegression
from support import configure

from patchbench.commands.build import build_source
from patchbench.data import photographs
from patchbench.data.draws import train_draws
from patchbench.data.photographs import PHOTOGRAPHS, photograph_file
from patchbench.data.sets.faded_photos import (
    BRIGHTNESS,
    SPLITS,
    Crops,
    FadedPhotos,
    halves,
    load_photograph,
    orientations,
    scaled_sizes,
)

DRAWS = train_draws(900, 0, torch.arange(600))


def source(*overrides: str) -> FadedPhotos:
    return build_source(configure("data=faded_photos", "data.test_size=200", "data.val_size=100", *overrides))


def crops(kept: float = 0.0) -> Crops:
    return Crops(SPLITS["train"], 32, (0.1, 0.7), kept)


@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_every_photograph_is_there_with_its_licence(name):
    assert photograph_file(name).is_file()
    assert PHOTOGRAPHS[name].licence.startswith(("CC BY 2.0", "CC0", "public domain"))


def test_a_package_that_is_missing_is_named(monkeypatch):
    monkeypatch.setattr(photographs, "find_spec", lambda package: None)
    with pytest.raises(OSError, match=r"^the photograph astronaut comes with scikit-image, .* pip install"):
        source()


def test_photographs_that_train_choose_and_judge_are_different_ones():
    names = [name for names in SPLITS.values() for name in names]
    assert len(names) == len(set(names))
    assert set(names) <= set(PHOTOGRAPHS)


def test_a_crop_follows_from_its_draw_alone_and_none_returns():
    train = source().splits()["train"]
    images, labels = train.read(range(600), DRAWS)
    again, same = train.read(range(5), DRAWS[300:305])
    assert torch.equal(images[300:305], again)
    assert torch.equal(labels[300:305], same)
    assert len(images.flatten(1).unique(dim=0)) == 600
    assert labels.bincount().min() > 110
    fixed, _ = train.read(range(5))
    assert torch.equal(fixed, train.read(range(5))[0])


def test_test_crops_stay_for_a_seed_and_are_others_for_another():
    splits, same, others = (source(f"seed={seed}").splits() for seed in (1, 1, 2))
    for name, count in {"val": 100, "test": 200}.items():
        assert torch.equal(splits[name].images, same[name].images)
        assert splits[name].labels.bincount().tolist() == [count // 4] * 4
        both = torch.cat([splits[name].images, others[name].images]).flatten(1)
        assert len(both.unique(dim=0)) == 2 * count
    assert torch.equal(splits["test"].images, source("seed=3", "data.eval_seed=1").splits()["test"].images)


def test_the_faded_half_keeps_its_brightness_and_the_other_everything():
    labels = torch.arange(600) % 4
    whole, faded, paler = (crops(kept).faded(DRAWS, labels) for kept in (1.0, 0.0, 0.5))
    assert torch.equal(whole, crops().cut(DRAWS))
    mask = halves(32)[labels][:, None].expand_as(whole)
    assert torch.equal(faded[~mask], whole[~mask])
    weights = torch.tensor(BRIGHTNESS)[:, None, None]
    seen = [(images * weights).sum(1) for images in (whole, faded)]
    assert (seen[0] - seen[1]).abs().max() <= 0.5 + 1e-3
    for images, share in ((faded, 0.0), (paler, 0.5)):
        spread, before = (x.amax(1).float() - x.amin(1).float() for x in (images, whole))
        assert ((spread - share * before).abs() * mask[:, 0]).max() <= 1


def test_halves_are_called_as_they_lie():
    upper, right, lower, left = halves(4)
    assert FadedPhotos.classes == ("upper", "right", "lower", "left")
    assert upper[:2].all()
    assert right[:, 2:].all()
    assert lower[2:].all()
    assert left[:, :2].all()
    assert halves(4).sum((1, 2)).tolist() == [8] * 4


def test_crops_are_parts_of_the_scaled_photograph_in_eight_ways():
    ways = orientations(torch.arange(9).view(3, 3))
    assert len({tuple(way.flatten().tolist()) for way in ways}) == 8
    name = "chelsea"
    one = Crops([name], 32, (0.7, 0.7), 1.0)
    [(height, width)] = scaled_sizes(name, 32, (0.7, 0.7))
    assert round(32 / min(height, width), 1) == 0.7
    whole = one.pixels.view(3, height, width)
    assert torch.allclose(whole.float().mean((1, 2)), load_photograph(name).float().mean((1, 2)), atol=1)
    windows = whole.unfold(1, 32, 1).unfold(2, 32, 1).permute(1, 2, 0, 3, 4).reshape(-1, 3, 32, 32)
    for image in one.cut(DRAWS[:20]):
        found = [
            (windows == image[:, way // 32, way % 32]).all((1, 2, 3)).any()
            for way in orientations(torch.arange(1024).view(32, 32))
        ]
        assert any(found)


def test_mean_colours_without_places_say_nothing_and_with_places_something():
    train, test = (source("data.test_size=2000").splits()[name] for name in ("train", "test"))
    images, labels = train.read(range(3000), train_draws(900, 0, torch.arange(3000)))

    def accuracy(features) -> float:
        fitted = LogisticRegression(C=0.1, max_iter=300).fit(features(images), labels)
        return fitted.score(features(test.images), test.labels)

    def patches(x):
        return x.float().unfold(2, 8, 8).unfold(3, 8, 8).mean((4, 5)) / 255

    assert accuracy(lambda x: patches(x).mean((2, 3))) < 0.29
    assert accuracy(lambda x: patches(x).flatten(2).sort(2).values.flatten(1)) < 0.29
    assert accuracy(lambda x: (patches(x).amax(1) - patches(x).amin(1)).flatten(1)) > 0.95


def test_the_normalisation_is_that_of_training_crops():
    train = source().splits()["train"]
    pixels = train.read(range(4000), train_draws(0, 0, torch.arange(4000)))[0] / 255
    assert (float(pixels.mean()), float(pixels.std())) == pytest.approx(
        (FadedPhotos.mean[0], FadedPhotos.std[0]), abs=0.01
    )


@pytest.mark.parametrize(
    ("knobs", "said"),
    [
        ("data.img_size=31", r"^data\.img_size=31 cannot be rotated and halved: use an even number"),
        ("data.img_size=[16,24]", r"^data\.img_size=\[16,24\] cannot be rotated"),
        ("data.img_size=400", r"^data\.img_size=400 would enlarge a photograph, .* use data\.img_size=\d+ or less"),
        ("data.crop=[0.5,2.0]", r"^data\.crop=\[0\.5, 2\.0\] must be two numbers above 0 and none above 1"),
        ("data.kept=1.5", r"^data\.kept=1\.5 must be between 0 and 1"),
        ("data.train_size=0", r"^data\.train_size=0 must be at least 1"),
    ],
)
def test_what_cannot_be_is_refused_by_name(knobs, said):
    with pytest.raises(ValueError, match=said):
        source(knobs)


def test_the_largest_size_that_a_refusal_names_is_taken():
    with pytest.raises(ValueError, match="or less") as refused:
        source("data.img_size=400")
    most = int(str(refused.value).split("data.img_size=")[-1].split()[0])
    assert source(f"data.img_size={most}", "data.test_size=4").splits()["test"].images.shape == (4, 3, most, most)
