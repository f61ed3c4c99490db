"""The generated sets have the properties that their docstrings claim; test_shortcuts.py tests shortcuts."""

from itertools import pairwise

import pytest
import torch
from scipy.stats import binomtest, ks_2samp
from sklearn.linear_model import LogisticRegression
from support import configure, generated, record, some, train_in

from patchbench.commands.build import build_source
from patchbench.data.diagnostics.colour import HUE
from patchbench.data.diagnostics.stream import Diagnostic, Scene
from patchbench.data.draws import Images, eval_draws, train_draws
from patchbench.data.order import TrainOrder
from patchbench.data.source import InMemory, Source, Split
from patchbench.embed.channels import STANDARDS

PLACES = torch.arange(3000)


def load(name: str, *knobs: str) -> Diagnostic:
    return build_source(configure(f"data={name}", *knobs))


SETS = {name: load(name) for name in generated()}
SCENES = pytest.mark.parametrize("name", SETS)


def shown(source: Diagnostic, seed: int = 0, count: int = 3000) -> tuple[torch.Tensor, torch.Tensor]:
    return source.splits()["train"].read(range(count), train_draws(seed, 0, torch.arange(count)))


def patches(images: torch.Tensor, size: int = 4) -> torch.Tensor:
    """Cut images b c H W into patches b n (c size size)."""
    return images.unfold(2, size, size).unfold(3, size, size).permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(1, 2)


def probed(features: torch.Tensor, labels: torch.Tensor) -> tuple[int, int]:
    """Return the number of new labels that a linear classifier predicts correctly, and the number of all new labels."""
    features = ((features - features.mean(0)) / (features.std(0) + 1e-6)).numpy()
    half = len(labels) // 2
    probe = LogisticRegression(C=1e-3, max_iter=200).fit(features[:half], labels[:half].numpy())
    right = probe.predict(features[half:]) == labels[half:].numpy()
    return int(right.sum()), len(right)


def at_chance(right: int, count: int, chance: float) -> bool:
    return binomtest(right, count, chance, alternative="greater").pvalue > 1e-3


@SCENES
def test_is_a_source_with_three_splits_of_the_sizes_asked_for(name):
    source = SETS[name]
    assert isinstance(source, Source)
    assert isinstance(source.scene, Scene)
    splits = source.splits()
    assert {part: len(split) for part, split in splits.items()} == {
        "train": source.train_size,
        "val": source.val_size,
        "test": source.test_size,
    }
    assert source.test_size >= 2000
    for split in splits.values():
        assert isinstance(split, Split)
        images, labels = split.read([0, 3, 5])
        assert images.dtype == torch.uint8
        assert images.shape == (3, 3, *source.img_size)
        again, same = split.read([5, 0])
        assert torch.equal(again, images[[2, 0]])
        assert torch.equal(same, labels[[2, 0]])


@SCENES
def test_fixed_splits_are_the_same_each_time_and_hold_each_class_equally_often(name):
    one, other = (SETS[name].splits()["test"] for _ in range(2))
    assert torch.equal(one.images, other.images)
    assert torch.equal(one.labels, other.labels)
    counts = torch.bincount(one.labels, minlength=SETS[name].num_classes)
    assert counts.max() - counts.min() <= 1


@pytest.mark.parametrize("name", some(SETS, "left_of", "pointer"))
def test_each_seed_of_a_run_judges_by_images_of_its_own(name):
    """One number for all runs gives them the same images; null gives the images of runs before the knob existed."""

    def images(*knobs: str) -> tuple[torch.Tensor, ...]:
        splits = load(name, "data.val_size=8", "data.test_size=8", *knobs).splits()
        return splits["val"].images, splits["test"].images, splits["train"].read(range(8))[0]

    one, other = images("seed=1"), images("seed=2")
    fixed, old = images("seed=2", "data.eval_seed=1"), images("seed=2", "data.eval_seed=null")
    assert all(map(torch.equal, one, fixed))
    assert all(map(torch.equal, old, images("data.eval_seed=null")))
    draws, labels = eval_draws(Images.TEST, torch.arange(8)), torch.arange(8) % SETS[name].num_classes
    assert torch.equal(old[1], SETS[name].render(draws, labels, SETS[name].img_size, 1))
    for different in ((one, other), (one, old), (other, old)):
        assert not any(map(torch.equal, *different))
    with pytest.raises(ValueError, match="eval_seed=-1 must be at least 0"):
        load(name, "data.eval_seed=-1")


@SCENES
def test_a_training_image_depends_on_its_draw_alone(name):
    train, draws = SETS[name].splits()["train"], train_draws(1, 2, torch.arange(64))
    images, labels = train.read(range(64), draws)
    part, part_labels = train.read([7] * 8, draws[40:48])
    assert torch.equal(part, images[40:48])
    assert torch.equal(part_labels, labels[40:48])


@SCENES
def test_no_image_comes_twice_nor_in_two_splits(name):
    source = SETS[name]
    splits = source.splits()
    others = [load(name, f"data.eval_seed={seed}", "data.test_size=500").splits() for seed in (1, "null")]
    seen = [each[part].images for each in (splits, *others) for part in ("val", "test")]
    for seed, epoch in [(0, 0), (0, 1), (1, 0)]:
        order = TrainOrder(
            source.train_size,
            batch_size=500,
            seed=seed,
            rank=0,
            world_size=1,
            accumulate=1,
            repeats=1,
            limit=2,
            position=lambda epoch=epoch: 2 * epoch,
        )
        seen += [splits["train"].read(*chosen)[0] for chosen in order]
    images = [image.tobytes() for image in torch.cat(seen).numpy()]
    assert len(set(images)) == len(images)
    assert (train_draws(0, 0, PLACES) >= 0).all()
    assert (eval_draws(Images.TEST, PLACES) < 0).all()


@SCENES
def test_pixels_are_scaled_as_said_and_rarely_clipped(name):
    source = SETS[name]
    images, labels = shown(source)
    assert ((images == 0) | (images == 255)).float().mean() < 1e-5
    assert (images / 255).mean().item() == pytest.approx(source.mean[0], abs=0.03), "grey on the whole"
    assert source.mean == [128 / 255] * 3
    counts = torch.bincount(labels).tolist()
    assert all(abs(count - 3000 / source.num_classes) < 4 * 3000**0.5 / 2 for count in counts)


@pytest.mark.parametrize("name", some(SETS, "isoluminant", "pointer", "quadrant"))
def test_chance_is_a_blind_guess_and_the_ceiling_falls_with_noise(name):
    source = SETS[name]
    assert source.chance == 1 / source.num_classes
    knobs = configure(f"data={name}").data.scene
    if "contrast" in knobs:
        ceilings = [load(name, f"data.scene.contrast={contrast}").ceiling for contrast in (1e-4, 2.0, 8.0, 15.0)]
    else:
        ceilings = [load(name, f"data.scene.majority={majority}").ceiling for majority in (0.50001, 0.52, 0.55, 0.7)]
    assert ceilings[0] == pytest.approx(source.chance, abs=1e-3)
    assert ceilings[-1] > 0.7
    assert all(low < high or high == 1 for low, high in pairwise(ceilings))
    assert 0.9 < source.ceiling <= 1


def means(name: str) -> tuple[torch.Tensor, torch.Tensor]:
    images, labels = SETS[name].splits()["test"].read(range(SETS[name].test_size))
    return images.float(), labels


@SCENES
def test_no_class_has_other_patches_than_another_where_it_must_not(name):
    """Compare mean, largest and smallest pixel of all patches of a class, without their places."""
    images, labels = means(name)
    if name in ("texture", "stripes", "motif", "correlated_channels", "isoluminant", "pointer"):
        pytest.skip("the label lies inside patches")
    flat = patches(images[:2000])
    for statistic in (flat.mean(2), flat.amax(2), flat.std(2)):
        for label in range(1, SETS[name].num_classes):
            one, other = (statistic[labels[:2000] == k].flatten() for k in (0, label))
            assert ks_2samp(one.numpy(), other.numpy()).pvalue > 1e-3


@SCENES
def test_classes_have_the_same_mean_image_unless_place_or_hue_is_the_label(name):
    images, labels = means(name)
    # Contrast of each class' mean image to the mean of all, in standard errors, summed over pixels.
    by_class = torch.stack([images[labels == k].mean(0) for k in range(SETS[name].num_classes)])
    error = images.std(0) * (SETS[name].num_classes / len(images)) ** 0.5
    largest = ((by_class - by_class.mean(0)) / error).abs().max().item()
    if name == "quadrant":
        assert largest > 5.5
    elif name not in {"left_of", "isoluminant", "pointer"}:
        assert largest < 5.5


def bag(images: torch.Tensor) -> torch.Tensor:
    """Return a bag of patches: random features of each patch, rectified and averaged, without places."""
    flat = patches((images.float() - 128) / 25)
    weights = torch.randn(flat.shape[2], 300, generator=torch.Generator().manual_seed(0)) / flat.shape[2] ** 0.5
    return (flat @ weights).relu().mean(1)


def test_hues_have_one_luminance_to_the_last_bit():
    assert [round(1000 * weight) for weight in STANDARDS["rec601"]] == [299, 587, 114]
    assert 299 * HUE[0] + 587 * HUE[1] + 114 * HUE[2] == 0
    images, labels = shown(SETS["isoluminant"])
    grey = (images.long() * torch.tensor([299, 587, 114])[:, None, None]).sum(1)
    assert (grey % 1000 == 0).all(), "luminance is whole, as noise is: no rounding depends on the hue"
    assert at_chance(*probed(grey.float().flatten(1), labels), 0.5)
    spread = [grey[labels == k].float().std().item() for k in range(2)]
    assert spread[0] == pytest.approx(spread[1], rel=0.01)
    assert len(set(SETS["isoluminant"].std)) == len(set(SETS["isoluminant"].mean)) == 1


def test_isoluminant_ends_at_its_exact_ceiling_for_whoever_counts_pixels():
    source = SETS["isoluminant"]
    images, labels = source.splits()["test"].read(range(source.test_size))
    votes = (images[:, 0].long() - images[:, 1].long()).sign().sum((1, 2))
    right = int(((votes > 0) == (labels == 1)).sum())
    assert binomtest(right, len(labels), source.ceiling).pvalue > 1e-3


def test_correlated_channels_end_at_their_exact_ceiling_and_one_channel_at_chance():
    source = SETS["correlated_channels"]
    images, labels = source.splits()["test"].read(range(source.test_size))
    cells = torch.nn.functional.avg_pool2d(images.float() - 128, source.scene.cell)
    right = int((((cells[:, 0] * cells[:, 1]).sum((1, 2)) > 0) == (labels == 1)).sum())
    assert binomtest(right, len(labels), source.ceiling).pvalue > 1e-3
    images, labels = shown(source, count=4000)
    for channel in range(3):
        assert at_chance(*probed(bag(images[:, [channel]]), labels), 0.5)
        assert at_chance(*probed(images[:, channel].float().square().flatten(1), labels), 0.5)


@pytest.mark.parametrize("noise_chans", [1, 3])
def test_stripes_end_at_their_exact_ceiling_for_whoever_sums_them(noise_chans):
    source = load("stripes", "data.scene.contrast=2.0", f"data.scene.noise_chans={noise_chans}")
    images, labels = source.splits()["test"].read(range(source.test_size))
    grey, sign = images.float().mean(1) - 128, 1 - 2 * (torch.arange(source.img_size[0]) % 2).float()
    down, across = (grey * sign).sum((1, 2)).abs(), (grey * sign[:, None]).sum((1, 2)).abs()
    assert binomtest(int(((across > down) == (labels == 1)).sum()), len(labels), source.ceiling).pvalue > 1e-3


def test_the_best_observers_of_squares_stay_under_their_ceiling():
    for contrast in (10.0, 16.0):
        source = load("quadrant", f"data.scene.contrast={contrast}", "data.scene.noise=24.0", "data.img_size=24")
        images, labels = source.splits()["test"].read(range(4000))
        cells = torch.nn.functional.avg_pool2d(images[:, :1].float() - 128, 4)[:, 0] * 16 * contrast / 24**2
        odds = cells.unflatten(2, (2, 3)).unflatten(1, (2, 3)).exp().sum((2, 4)).flatten(1)
        accuracy = (odds.argmax(1) == labels).float().mean().item()
        assert accuracy < source.ceiling + 0.02
        assert accuracy > 0.3


@pytest.mark.parametrize(
    ("name", "knobs"),
    [
        ("arrangement", ["data.scene.contrast=8.0"]),
        ("arrangement", ["data.scene.contrast=8.0", "data.img_size=24"]),
        ("left_of", ["data.scene.contrast=8.0"]),
        ("motif", ["data.scene.contrast=16.0"]),
        ("motif", ["data.scene.contrast=12.0", "data.scene.noise_chans=3"]),
        ("pointer", []),
        ("quadrant", ["data.scene.contrast=8.0"]),
        ("same_different", ["data.scene.contrast=8.0"]),
        ("texture", ["data.scene.contrast=2.0"]),
        ("texture", ["data.scene.contrast=3.0", "data.scene.noise=30.0", "data.scene.noise_chans=3"]),
    ],
)
def test_whoever_knows_all_but_the_label_ends_at_the_ceiling(name, knobs):
    """Choose the label with the drawing that is nearest to the image."""
    source = load(name, *knobs)
    images, labels = source.splits()["test"].read(range(source.test_size))
    draws = eval_draws(Images.TEST, torch.arange(source.test_size), source.eval_seed)
    noisy = images[:, : source.scene.noise_chans].float() - 128
    drawings = [
        source.scene.draw(draws, torch.full_like(labels, k), source.img_size).round() for k in range(source.num_classes)
    ]
    distance = torch.stack([(noisy - drawing).square().sum((1, 2, 3)) for drawing in drawings], 1)
    right = int((distance.argmin(1) == labels).sum())
    assert binomtest(right, source.test_size, source.ceiling).pvalue > 1e-3
    assert source.ceiling < 0.995


def test_a_pointer_names_one_value_and_the_label_is_its_sign():
    source = load("pointer", "data.scene.contrast=30.0", "data.scene.pointer=100.0", "data.scene.noise=4.0")
    images, labels = source.splits()["test"].read(range(2000))
    one, other = patches(images.float() - 128, 2).unbind(1)
    pointer = torch.where((one.amax(1) > other.amax(1))[:, None], one, other)
    signs = one + other - pointer
    named = pointer.argmax(1, keepdim=True)
    assert torch.equal((signs.gather(1, named)[:, 0] > 0).long(), labels)
    assert torch.bincount(named[:, 0], minlength=12).min() > 2000 / 12 / 1.5, "each value is asked for as often"
    assert torch.linalg.matrix_rank(torch.cov(signs.T)) == 12
    assert abs(torch.corrcoef(signs.T) - torch.eye(12)).max() < 0.1


@pytest.mark.parametrize("kept", ["random", "some of the values", "sums of neighbours"])
def test_no_projection_of_a_cell_tells_more_than_its_rank_allows(kept):
    """Apply Bayes' rule to the numbers that a projection keeps; the selected value is known."""
    source, values, count = load("pointer"), 12, 4000
    scene, generator = source.scene, torch.Generator().manual_seed(0)
    images, labels = source.splits()["test"].read(range(count))
    one, other = patches(images.float() - 128, 2).unbind(1)
    pointer = torch.where((one.amax(1) > other.amax(1))[:, None], one, other)
    signs, named = one + other - pointer, pointer.argmax(1, keepdim=True)
    every = 2.0 * (torch.arange(2**values)[:, None] >> torch.arange(values) & 1) - 1
    scores = {}
    for rank in (1, 2, 3, 6, 9, 12):
        if kept == "random":
            rows = torch.linalg.qr(torch.randn(values, rank, generator=generator)).Q.T
        elif kept == "some of the values":
            rows = torch.eye(values)[:rank]
        else:
            rows = torch.eye(values).view(values, rank, -1).sum(2).T if values % rank == 0 else torch.eye(values)[:rank]
            rows = rows / rows.norm(dim=1, keepdim=True)
        seen, expected = signs @ rows.T, scene.contrast * every @ rows.T
        odds = (-torch.cdist(seen, expected).square() / (2 * scene.noise**2)).softmax(1) @ every
        scores[rank] = ((odds.gather(1, named)[:, 0] > 0) == (labels == 1)).double().mean().item()
    for rank, score in scores.items():
        assert binomtest(round(score * count), count, scene.ceiling_of(rank), alternative="greater").pvalue > 1e-3
    assert all(low < high for low, high in pairwise(scores.values()))
    assert binomtest(round(scores[12] * count), count, source.ceiling).pvalue > 1e-3, "with all of them it is reached"
    assert scene.ceiling_of(1) < 0.7
    assert scene.ceiling_of(0) == pytest.approx(0.5)


@pytest.mark.parametrize("name", ["motif", "stripes", "texture"])
@pytest.mark.parametrize(("noise_chans", "rank"), [(1, 16), (3, 48)])
def test_noise_of_each_channels_own_triples_the_rank_of_a_patch(name, noise_chans, rank):
    source = load(name, f"data.scene.noise_chans={noise_chans}")
    images, _ = shown(source)
    assert torch.linalg.matrix_rank(torch.cov(patches(images.float()).flatten(0, 1).T)) == rank
    with pytest.raises(ValueError, match=r"^data\.scene\.noise_chans=2 must be 1, .*, or 3, independent$"):
        load(name, "data.scene.noise_chans=2")


@pytest.mark.parametrize(
    ("name", "rank"),
    [("arrangement", 16), ("same_different", 16), ("quadrant", 16), ("left_of", 48), ("correlated_channels", 48)],
)
def test_a_patch_has_the_rank_that_its_set_states(name, rank):
    images, _ = shown(SETS[name])
    assert torch.linalg.matrix_rank(torch.cov(patches(images.float()).flatten(0, 1).T)) == rank
    hues = patches(shown(SETS["isoluminant"])[0].float()).flatten(0, 1)
    assert torch.linalg.matrix_rank(torch.cov(hues.T)) == 32


def test_arrangements_and_glyphs_are_labelled_by_direction_by_parity_and_by_equality():
    clear = ("data.scene.contrast=100.0", "data.scene.noise=1.0", "data.img_size=24")
    images, labels = load("arrangement", "data.scene.orders=all", *clear).splits()["test"].read(range(500))
    rings, ways = load("arrangement", *clear).splits()["test"].read(range(500))
    source = load("same_different", *clear)
    glyphs, same = source.splits()["test"].read(range(500))
    from patchbench.data.diagnostics.canvas import tiles

    def named(images: torch.Tensor) -> list[list[int]]:
        scores = patches(images[:, :1].float() - 128) @ tiles(4).flatten(1).T / 1600
        return [[int(score.argmax()) for score in image if score.max() > 0.5] for image in scores]

    for order, label in zip(named(images), labels.tolist(), strict=True):
        assert sorted(order) == [0, 1, 2, 3]
        assert sum(order[i] > order[j] for i in range(4) for j in range(i + 1, 4)) % 2 == label
    for order, way in zip(named(rings), ways.tolist(), strict=True):
        clockwise = [order[0], order[1], order[3], order[2]]
        assert all((b - a) % 4 == (3 if way else 1) for a, b in pairwise(clockwise))
    for (one, other), label in zip(named(glyphs), same.tolist(), strict=True):
        assert (one != other) == label


@SCENES
def test_images_of_other_sizes_are_made_or_refused_with_the_cure(name):
    images, labels = shown(load(name, "data.img_size=[16,24]"), count=16)
    assert images.shape == (16, 3, 16, 24)
    assert labels.max() < SETS[name].num_classes
    if name not in ("isoluminant",):
        with pytest.raises(ValueError, match=r"data\.img_size=1 .*data\.img_size=\d+|data\.img_size=1 .* \d"):
            load(name, "data.img_size=1")


@SCENES
def test_a_scene_gets_more_room_or_grows_with_the_image(name):
    source = SETS[name]
    doubled = [2 * n for n in source.img_size]
    canvas, scaled = source.test_at(doubled, "canvas"), source.test_at(doubled, "scale")
    test = source.splits()["test"]
    for split in (canvas, scaled):
        assert isinstance(split, InMemory)
        assert split.images.shape[2:] == tuple(doubled)
        assert torch.equal(split.labels, test.labels)
    assert not torch.equal(canvas.images, scaled.images)
    assert torch.equal(source.test_at(source.img_size, "scale").images, test.images)
    assert torch.equal(source.test_at(source.img_size, "canvas").images, test.images)
    # What is drawn is the same, twice as large; its noise is not.
    drawn = source.scene.draw(
        eval_draws(Images.TEST, torch.arange(200), source.eval_seed), test.labels[:200], source.img_size
    )
    large = drawn.repeat_interleave(2, 2).repeat_interleave(2, 3).round()
    rest = scaled.images[:200].float() - 128 - large
    assert rest.std().item() == pytest.approx(source.scene.noise, rel=0.05)
    neighbours = torch.corrcoef(torch.stack([rest[..., ::2].flatten(), rest[..., 1::2].flatten()]))[0, 1]
    assert abs(neighbours) < 0.05
    assert source.test_at([source.img_size[0], doubled[1]], "canvas").images.shape[3] == doubled[1]
    with pytest.raises(ValueError, match=r"is no whole multiple .*use .* or shift=canvas"):
        source.test_at([source.img_size[0], doubled[1]], "scale")
    with pytest.raises(ValueError, match="shift=zoom is unknown: use canvas or scale"):
        source.test_at(doubled, "zoom")


@pytest.mark.parametrize("patch", [4, 8])
def test_motifs_inside_a_patch_are_told_from_those_cut_by_its_border(patch):
    clear = load("motif", "data.scene.contrast=100.0", "data.scene.noise=1.0")
    for split, size in ((clear.splits()["test"], 3), (clear.test_at(48, "scale"), 6), (clear.test_at(48, "canvas"), 3)):
        parts = split.groups((patch, patch))
        assert torch.equal(parts["inside"], ~parts["cut"])
        bright = patches(split.images[:500, :1], patch).amax(2) > 190
        assert torch.equal(bright.sum(1) == 1, parts["inside"][:500]) or patch < size
        if size <= patch:
            # A cut that no bright pixel tells: the diagonal's box crosses a corner, yet its pixels stay inside.
            assert (bright.sum(1)[parts["inside"][:500]] == 1).all()
    assert {"inside", "cut"} == set(clear.test_at(24, "canvas").groups((8, 4)))
    assert load("stripes").splits()["test"].groups is None
    halves = clear.splits()["test"].groups((4, 4))["inside"].float().mean().item()
    assert halves == pytest.approx((12 / 22) ** 2, abs=0.03)


@pytest.mark.parametrize(
    ("name", "knob", "message"),
    [
        (
            "quadrant",
            "data.img_size=[24,20]",
            r"data\.img_size=\[24,20\] does not fit a scene .* multiples of 8 from 8 on, such as",
        ),
        ("left_of", "data.scene.cell=5", r"data\.scene\.cell=5 must be an even number"),
        ("quadrant", "data.scene.noise=40.0", r"contrast \+ 4 \* noise must not exceed 127"),
        (
            "same_different",
            "data.scene.distance=6",
            r"data\.scene\.distance=6 must be a multiple of data\.scene\.cell=4",
        ),
        ("same_different", "data.scene.distance=40", r"data\.img_size=24 does not fit a scene"),
        ("stripes", "data.img_size=23", r"data\.img_size=23 must be even.* use data\.img_size=24"),
        ("texture", "data.scene.wavelength=-1.0", r"data\.scene\.wavelength=-1\.0 must be a number above 0"),
        ("texture", "data.img_size=4", r"must hold two waves"),
        ("isoluminant", "data.scene.majority=0.5", r"must be a share above 0\.5"),
    ],
)
def test_what_cannot_be_drawn_is_refused_in_a_line_with_its_cure(name, knob, message):
    with pytest.raises(ValueError, match=message) as refused:
        load(name, knob)
    assert "\n" not in str(refused.value)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "pos", "embed"),
    [
        ("quadrant", "rope", "conv"),
        ("left_of", "rope", "conv"),
        ("arrangement", "[learned,rope]", "conv"),
        ("texture", "none", "conv"),
        ("same_different", "none", "conv"),
        ("motif", "none", "conv"),
        ("correlated_channels", "none", "conv"),
        ("isoluminant", "none", "conv"),
        ("stripes", "none", "conv"),
        ("pointer", "none", "conv"),
    ],
)
def test_an_arm_that_can_solve_it_does_so_in_one_short_run_but_not_quite(tmp_path, name, pos, embed):
    patch = 2 if name == "pointer" else 4
    budget = ["model=micro", f"patch={patch}", "optim.lr=3e-3", "trainer=cpu", "logger=csv"]
    train_in(configure(f"data={name}", f"pos={pos}", f"embed={embed}", *budget), tmp_path)
    result = record(tmp_path)["result"]
    assert 0.9 <= result["test/acc"] <= 0.992
    assert result["test/acc_low"] < SETS[name].ceiling, "nobody does better than can be done"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "lacking"),
    [
        ("quadrant", "pos=none"),
        ("left_of", "pos=none"),
        ("arrangement", "pos=none"),
        ("isoluminant", "embed=luminance"),
    ],
)
def test_an_arm_that_lacks_what_is_needed_stays_at_chance(tmp_path, name, lacking):
    budget = ["model=micro", "patch=4", "optim.lr=3e-3", "trainer=cpu", "logger=csv"]
    pos = [] if lacking.startswith("pos") else ["pos=none"]
    train_in(configure(f"data={name}", lacking, *pos, *budget), tmp_path)
    result = record(tmp_path)["result"]
    assert result["test/acc"] == pytest.approx(SETS[name].chance, abs=0.03)
