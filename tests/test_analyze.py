"""The measurements of a trained network are right in cases with a known answer."""

import json
import math
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import matplotlib as mpl
import pytest
import torch
from planted import CountsPatches, ReadsPlaces
from support import configure, options, record, some, task_for, train_in
from torch import nn

from patchbench.commands.analyze import analyze
from patchbench.commands.build import build_augment, build_trainer
from patchbench.commands.reopen import Machine
from patchbench.config.errors import Refused
from patchbench.data.batches import Batches
from patchbench.data.source import InMemory
from patchbench.evaluate.robustness import Views, evaluate_views
from patchbench.measure import attention, field, readings, readout, spectrum
from patchbench.measure.kernels import measure_kernels
from patchbench.measure.network import measure
from patchbench.measure.position import bias_by_distance, positions, turns
from patchbench.measure.start import Starts
from patchbench.measure.summary import Measures
from patchbench.pages.analyze.figures import pictures
from patchbench.pages.analyze.page import CAPTIONS, SECTIONS
from patchbench.pages.plots import LOOK


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_effective_rank_counts_equal_directions():
    assert spectrum.effective_rank(torch.eye(7)) == pytest.approx(7)
    assert spectrum.effective_rank(torch.outer(noise(5), noise(9))) == pytest.approx(1, abs=1e-6)


def test_the_first_components_are_the_planted_patterns():
    patterns, _ = torch.linalg.qr(noise(48, 2))
    rows = 3 * noise(200, 1, seed=1) * patterns[:, 0] + noise(200, 1, seed=2) * patterns[:, 1] + 0.01 * noise(200, 48)
    axes, shares = spectrum.components(rows, 2)
    assert abs(axes[0] @ patterns[:, 0]) > 0.99
    assert abs(axes[1] @ patterns[:, 1]) > 0.99
    assert shares[0] > 0.8
    assert shares.sum() == pytest.approx(1)


def test_a_cosine_is_found_at_its_frequency():
    rows, cols = (torch.cos(math.pi * (torch.arange(8) + 0.5) * k / 8) for k in (3, 5))
    energy = spectrum.dct_energy((rows[:, None] * cols[None])[None, None].repeat(4, 3, 1, 1))
    assert energy[3, 5] == pytest.approx(1)
    assert spectrum.dct_frequency(energy) == pytest.approx(math.hypot(3, 5) / 7 / 2**0.5)
    white = spectrum.dct_energy(noise(500, 3, 8, 8))
    assert white.sub(1 / 64).abs().max() < 0.003
    waves = torch.cos(2 * math.pi * (2 * torch.arange(12)[:, None] + torch.arange(12)[None]) / 12)
    grid = spectrum.grid_energy(waves[..., None] * noise(5))
    assert grid[6 + 2, 6 + 1] + grid[6 - 2, 6 - 1] == pytest.approx(1)
    assert spectrum.grid_frequency(grid) == pytest.approx(math.hypot(2, 1) / 6 / 2**0.5)


def test_grey_kernels_have_all_in_common_and_opponent_ones_nothing():
    grey = noise(6, 1, 5, 5).expand(-1, 3, -1, -1)
    assert spectrum.common_share(grey) == pytest.approx(1)
    assert spectrum.common_share(grey * torch.tensor([1.0, -1, 0])[:, None, None]) == pytest.approx(0, abs=1e-6)
    assert spectrum.common_share(noise(4000, 3, 5, 5)) == pytest.approx(1 / 3, abs=0.01)


def uniform(layers, heads, tokens):
    return torch.full((layers, 2, heads, tokens, tokens), 1 / tokens)


@pytest.mark.parametrize("prefix", [0, 2])
def test_uniform_attention_has_the_mean_distance_of_all_pairs(prefix):
    n = 9
    row = attention.mean_distance(uniform(1, 3, n + prefix), attention.distances((1, n), (4.0, 4.0)))
    assert row.flatten().tolist() == pytest.approx([4 * (n * n - 1) / (3 * n)] * 3)
    places = [(4 * r, 2 * c) for r in range(3) for c in range(5)]
    pairs = [math.dist(a, b) for a in places for b in places]
    grid = attention.mean_distance(uniform(1, 1, 15 + prefix), attention.distances((3, 5), (4.0, 2.0)))
    assert grid.item() == pytest.approx(sum(pairs) / len(pairs))


def test_attention_to_itself_has_no_distance_and_to_the_neighbour_one_step():
    eye = torch.eye(6).expand(1, 1, 1, 6, 6)
    far = attention.distances((1, 6), (8.0, 8.0))
    assert attention.mean_distance(eye, far).item() == 0
    assert attention.mean_distance(eye.roll(1, -1), far).item() == pytest.approx(8 * (5 + 5) / 6)


def test_rollout_follows_attention_through_layers():
    eye = torch.eye(4).expand(2, 1, 1, 4, 4)
    assert attention.rollout(eye, "mean", 0)[0].tolist() == pytest.approx([0.25] * 4)
    to_first = torch.zeros(1, 1, 1, 4, 4)
    to_first[..., 0] = 1
    assert attention.rollout(to_first, "mean", 0)[0].tolist() == pytest.approx([0.625, 0.125, 0.125, 0.125])
    twice = attention.rollout(to_first.repeat(2, 1, 1, 1, 1), "mean", 0)[0]
    assert twice.tolist() == pytest.approx([0.8125, 0.0625, 0.0625, 0.0625])
    class_reads_last = torch.eye(4).clone()
    class_reads_last[0] = torch.tensor([0, 0, 0, 1.0])
    assert attention.rollout(class_reads_last[None, None, None], "cls", 1)[0].tolist() == pytest.approx([0, 0, 1])


@pytest.mark.parametrize("pos", ["none", "learned", "rope", "relbias", "peg"])
@pytest.mark.parametrize("prefix", [["model.num_prefix_tokens=2", "model.pool=cls"], []])
def test_recording_attention_changes_nothing_and_gives_distributions(build, pos, prefix):
    net = build("model=micro", "data.img_size=16", "patch=4", f"pos={pos}", *prefix).eval()
    images = noise(3, 3, 16, 16)
    before = net(images)
    with attention.recorded(net) as found:
        during = net(images)
    assert torch.allclose(before, during, atol=1e-5)
    tokens = 16 + 2 * bool(prefix)
    assert torch.stack(found).shape == (2, 3, 3, tokens, tokens)
    assert torch.stack(found).sum(-1).allclose(torch.ones(()), atol=1e-5)
    assert all(block.attn.fused_attn for block in net.blocks)


def test_a_convolution_has_the_field_of_its_kernel_and_two_have_a_wider_one():
    def grid(module):
        return lambda images: module(images).permute(0, 2, 3, 1)

    images = noise(4, 3, 33, 33)
    one = nn.Conv2d(3, 16, 5, stride=2)
    found = field.effective_field(grid(one), images)
    rows, cols = found.nonzero(as_tuple=True)
    assert (rows.max() - rows.min() + 1, cols.max() - cols.min() + 1) == (5, 5)
    assert found.sum() == pytest.approx(1)
    assert field.extent(found, 1.0) == 5
    assert field.extent(found, 0.5) < 4
    two = nn.Sequential(one, nn.Conv2d(16, 8, 3, stride=1))
    assert field.extent(field.effective_field(grid(two), images), 1.0) == 9


def test_an_even_field_extends_over_its_share():
    flat = torch.full((10, 10), 0.01)
    assert field.extent(flat, 0.25) == 5
    assert field.extent(flat, 1.0) == 10


def test_a_place_is_read_where_it_is_told_and_nowhere_else():
    grid = (4, 6)
    rows, cols = torch.meshgrid(torch.arange(4.0), torch.arange(6.0), indexing="ij")
    told = torch.stack([rows.flatten(), cols.flatten()], 1).expand(40, -1, -1)
    tokens = torch.cat([noise(40, 24, 10), told], 2)
    assert readout.read_position(tokens, grid) == pytest.approx((1, 1), abs=1e-3)
    assert max(readout.read_position(tokens[..., :10], grid)) < 0.05


def test_zero_padding_tells_place_and_circular_padding_does_not(build):
    images = noise(64, 3, 16, 16) + 2  # what is missing beyond the border must be missed
    scores = {}
    for padding in ("zeros", "circular"):
        net = build(
            "model=micro", "data.img_size=16", "patch=2", "pos=peg", f"pos.peg.between.padding={padding}"
        ).eval()
        for i, weight in enumerate(net.between.parameters()):
            weight.data = noise(*weight.shape, seed=i)
        depths = readout.token_depths(net, images)
        assert list(depths) == ["embedded", "block 0", "block 1"]
        scores[padding] = sum(readout.read_position(depths["block 1"], (8, 8)))
        assert max(readout.read_position(depths["embedded"], (8, 8))) < 0.05
    assert scores["zeros"] > 0.1 > scores["circular"] + 0.05


MICRO = ("model=micro", "data.img_size=16", "patch=4")
CPU = torch.device("cpu")


def measured(net) -> Measures:
    raw = torch.randint(256, (12, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return measure(net, raw, raw / 128 - 1, macs=10**6, device=CPU)


@pytest.mark.parametrize(
    "overrides",
    some(
        [f"embed={embed}" for embed in options("embed")] + [f"pos={pos}" for pos in options("pos")] + ["patch=16"],
        "embed=overlap",
        "embed=stem",
        "pos=rope",
        "pos=relbias",
        "patch=16",
    ),
)
def test_every_embedding_and_every_scheme_has_its_pictures(build, overrides):
    found = measured(build(*MICRO, overrides))
    assert found.kernels
    assert set(found.fields) == {"embedding", "network", "resnet18"}
    with mpl.rc_context(LOOK):
        drawn = pictures(found, {})
        for figure in drawn.values():
            figure.canvas.draw()
    reasons = {"none": "no scheme of position", "peg": "fills the place between", "alibi": "fills the place bias"}
    scheme = overrides.removeprefix("pos=")
    if scheme in reasons or "relbias" in scheme:
        assert reasons.get(scheme, "fills the place bias") in " ".join(found.left_out)
    elif overrides != "patch=16":
        assert not found.left_out
        assert found.positions
    assert ("bias" in drawn) == (scheme in ("alibi", "relbias", "relbias_mlp"))
    assert ("rotation" in drawn) == (scheme in ("rope", "rope_mixed"))
    assert not {f"analysis/{name}" for name in drawn} & set(found.numbers())
    assert set(drawn) <= {name for names in SECTIONS.values() for name in names} == set(CAPTIONS)


@pytest.mark.slow
@pytest.mark.parametrize("embed", options("embed"))
@pytest.mark.parametrize("pos", options("pos"))
def test_every_embedding_goes_with_every_scheme(build, embed, pos):
    assert measured(build(*MICRO, f"embed={embed}", f"pos={pos}")).numbers()


@pytest.mark.parametrize(
    ("model", "fields", "left_out"),
    [
        (
            "bag",
            {"embedding", "network", "resnet18"},
            ["no scheme of position", "attention: this network has no attention"],
        ),
        ("cnn", {"network", "resnet18"}, ["this network has no tokens"]),
        ("timm", set(), ["this network has no tokens", "gives no feature map"]),
    ],
)
def test_what_a_network_lacks_is_left_out_in_a_line(build, model, fields, left_out):
    found = measured(build(f"model={model}", "data.img_size=16", "patch=4"))
    assert set(found.fields) == fields
    assert not found.attention
    for line, words in zip(found.left_out, left_out, strict=True):
        assert words in line
    assert bool(found.kernels) == bool(found.readout) == ("embedding" in fields)
    assert set(pictures(found, {})) == ({"fields"} if fields else set()) | (
        {"kernels", "channels", "readout"} if found.kernels else set()
    )


def test_a_cnn_sees_as_far_as_it_is_told(build):
    found = measured(build("model=cnn", "data.img_size=16", "model.field=9"))
    rows, cols = (found.fields["network"] > 0).nonzero(as_tuple=True)
    assert (rows.max() - rows.min() + 1, cols.max() - cols.min() + 1) == (9, 9)


def test_bias_falls_with_distance_as_alibi_says(build):
    net = build("model=micro", "data.img_size=32", "patch=4", "pos=alibi")
    found = bias_by_distance(net, (32, 32))
    assert found.slopes[0].tolist() == pytest.approx([-(2**-4), -(2**-8), -(2**-2)], rel=1e-4)
    assert found.pixels[1] == 4
    assert found.means[0, :, 0].tolist() == [0, 0, 0]
    assert (found.means[0].diff(dim=-1) < 0).all()


def test_rotation_turns_at_its_frequencies_and_similarity_is_the_mean_cosine(build):
    net = build("model=micro", "data.img_size=32", "patch=4", "pos=rope")
    turned = turns(net)[0, 0]
    quarter = len(turned) // 2
    omega = (100.0 ** -(torch.arange(quarter) / quarter)).tolist()
    assert turned[:quarter, 0].tolist() == pytest.approx(omega, abs=1e-6)
    assert turned[quarter:, 1].tolist() == pytest.approx(omega, abs=1e-6)
    assert turned[:quarter, 1].abs().max() == turned[quarter:, 0].abs().max() == 0
    table = positions(net)["rotation"].table
    away = math.fsum(math.cos(3 * w) for w in omega)
    assert table.similarity[0, 0, 3, 0] == pytest.approx((away + quarter) / (2 * quarter), abs=1e-5)


def test_added_rows_and_columns_lie_on_the_axes_of_the_spectrum(build):
    net = build("model=micro", "data.img_size=32", "patch=4", "pos=factorized")
    found = positions(net)["tokens"]
    assert found.energy[4].sum() + found.energy[:, 4].sum() == pytest.approx(1, abs=1e-5)
    assert found.singular[14:].max() < 1e-6, "7 directions for rows, 7 for columns"


@pytest.fixture
def run(tmp_path, micro):
    def run(*overrides):
        cfg = configure(*micro, "epochs=1", "limit_batches=null", "trainer=cpu", *overrides, f"runs_dir={tmp_path}")
        train_in(cfg, tmp_path / "run")
        done = record(tmp_path)
        return SimpleNamespace(cfg=cfg, dir=tmp_path / "run", identity=done["identity"], result=done["result"])

    return run


def analysed(result):
    return {name: value for name, value in result.items() if name.startswith("analysis/")}


@pytest.mark.slow
def test_a_run_is_analysed_at_its_end_or_later_with_the_same_numbers(run, capsys):
    plain = run("logger=none")
    assert not analysed(plain.result)
    later = run("logger=none", "analyze=true")
    assert plain.identity == later.identity
    assert "done before" in capsys.readouterr().out
    at_end = run("logger=none", "analyze=true", "rerun=true")
    numbers = analysed(at_end.result)
    assert numbers == pytest.approx(analysed(later.result), rel=1e-4, abs=1e-4)
    assert {"analysis/robust/shuffled_patches/acc", "analysis/robust/scale20/acc"} <= set(numbers)
    assert numbers["analysis/robust/moved0/same"] == 1
    assert numbers["analysis/robust/moved0/acc"] == pytest.approx(at_end.result["test/acc"])
    assert numbers["analysis/robust/images"] == at_end.result["test/images"]
    assert json.loads((at_end.dir / "analysis" / "numbers.json").read_text()) == numbers
    text = (at_end.dir / "analysis.html").read_text()
    assert not re.findall(r'(?:src|href)="(?!data:)', text)
    assert text.index("In short") < text.index("shuffling the patches changes accuracy by") < text.index("<img")
    assert "Kernels count as hardly moved" in text
    shown = sorted(path.stem for path in (at_end.dir / "analysis").glob("*.png"))
    assert text.count("<img") == len(shown)
    assert shown == sorted(
        ["kernels", "channels", "positions_tokens", "distance", "rollout", "fields", "readout", "robustness"]
    )


@pytest.mark.slow
def test_wandb_is_given_the_pictures(run, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    done = run("logger=wandb", "analyze=true")
    images = {path.name.split("_")[0] for path in done.dir.parent.glob("wandb/*/files/media/images/analysis/*.png")}
    assert {"kernels", "fields", "robustness"} <= images


def test_too_few_images_are_refused(run):
    done = run("logger=none")
    with pytest.raises(Refused, match="images=3 are too few"):
        analyze(done.dir / "best.ckpt", done.dir, Machine(done.cfg.trainer, 0, 0.0), images=3)


# Sentences that read the measurements.


def bright_quarters(patch: int, size: int = 16) -> InMemory:
    """Return images with one bright patch each; the class is the quarter that contains the patch."""
    images = torch.zeros(64, 3, size, size, dtype=torch.uint8)
    side = size // patch
    for i in range(64):
        row, col = divmod(i % side**2, side)
        images[i, :, row * patch : (row + 1) * patch, col * patch : (col + 1) * patch] = 255
    rows, cols = (torch.arange(64) % side**2).div(side, rounding_mode="floor"), torch.arange(64) % side
    return InMemory(images, 2 * (rows >= side // 2).long() + (cols >= side // 2).long())


def bright_counts(patch: int, size: int = 16) -> InMemory:
    """Return images with 1 to 4 bright patches at random places; the class is their number."""
    side, generator = size // patch, torch.Generator().manual_seed(0)
    labels = 1 + torch.arange(64) % 4
    images = torch.zeros(64, 3, size, size, dtype=torch.uint8)
    for image, number in zip(images, labels.tolist(), strict=True):
        for place in torch.randperm(side**2, generator=generator)[:number].tolist():
            row, col = divmod(place, side)
            image[:, row * patch : (row + 1) * patch, col * patch : (col + 1) * patch] = 255
    return InMemory(images, labels)


@pytest.mark.parametrize(
    ("net", "split", "says"),
    [
        (ReadsPlaces(10), bright_quarters(4), "This network uses the position of patches:"),
        (CountsPatches(10, 4), bright_counts(4), "changes accuracy by 0.0 points"),
    ],
)
def test_a_network_made_to_use_position_is_told_from_one_made_not_to(net, split, says):
    source = SimpleNamespace(
        num_classes=10, in_chans=3, img_size=(16, 16), mean=[0.5] * 3, std=[0.5] * 3, mirrors=False,
        splits=lambda: {"train": split, "val": split, "test": split},
    )  # fmt: skip
    cfg = configure("trainer=cpu")
    data = Batches(source, build_augment(cfg, source), batch_size=32, seed=0, workers=0, limit=None, resident_bytes=0)
    data.setup("")
    task = task_for(net, 10, 1)
    trainer = data.trainer = build_trainer(cfg, Path(), [], epochs=0)
    views = Views((), ("patches",), (0, 1), (4, 4))
    seen = evaluate_views(trainer, task, data, views, lambda size: split)
    robust = {name.removeprefix("test/"): value for name, value in seen.items()} | {"images": len(split)}
    assert robust["moved0/acc"] == 1, "the network does what it was made for"
    assert says in readings.robustness(robust, 10, overlapping=False)
    assert ("windows" in readings.robustness(robust, 10, overlapping=True)) == ("uses" in says)
    assert ("does not use position" in readings.robustness(robust, 10, overlapping=False)) == ("0.0" in says)
    guessing = robust | {"moved0/acc": 0.1}
    assert "no more than guessing" in readings.robustness(guessing, 10, overlapping=False)


def robust_figures(images: int, plain: float, lost: float, gained: float) -> dict[str, float]:
    shuffled = {"acc": plain - lost + gained, "same": 1 - lost - gained, "lost": lost}
    return {f"shuffled_patches/{name}": value for name, value in shuffled.items()} | {
        "moved0/acc": plain,
        "images": images,
    }


@pytest.mark.parametrize(
    ("figures", "says"),
    [
        ((4000, 0.83, 0.6, 0.02), "by -58.0 points (95 % interval -59"),
        ((4000, 0.83, 0.6, 0.02), "This network uses the position of patches:"),
        ((4000, 0.9, 0.03, 0.01), "Position matters little"),
        ((4000, 0.9, 0.02, 0.02), "This network does not use position:"),
        ((4000, 0.9, 0.0, 0.0), "0.0 points (95 % interval 0.0 to 0.0"),
        ((360, 0.9, 0.0, 0.0), "0.0 points (95 % interval -0.5 to +0.5"),
        ((360, 0.9, 0.0, 0.0), "This network does not use position:"),
        ((40, 0.9, 0.1, 0.1), "too few to tell"),
        ((40, 0.9, 0.075, 0.0), "too few to tell"),
        ((4000, 0.5, 0.01, 0.1), "better without position"),
    ],
)
def test_a_change_is_told_from_the_noise_of_so_many_images(figures, says):
    assert says in readings.robustness(robust_figures(*figures), 10, overlapping=False)


def test_the_paired_interval_holds_the_true_change_in_19_of_20_cases():
    generator = torch.Generator().manual_seed(0)
    for lost, gained in ((0.3, 0.1), (0.05, 0.05), (0.02, 0.0)):
        shares = torch.tensor([lost, gained, 1 - lost - gained])
        held = 0
        for _ in range(2000):
            cells = torch.multinomial(shares, 300, replacement=True, generator=generator).bincount(minlength=3).tolist()
            _, low, high = readings.paired_change(cells[0], cells[1], 300)
            held += low <= gained - lost <= high
        assert 0.93 <= held / 2000 <= 0.99


def kernels_beside(start, now, other=None, trained=True):
    """Return the kernels of a convolution, with others as its start. start, now, other: weights d c P Q."""

    def embedding(weights):
        conv = nn.Conv2d(weights.shape[1], len(weights), weights.shape[2], stride=weights.shape[2], bias=False)
        conv.weight = nn.Parameter(weights, requires_grad=trained)
        return nn.Sequential(conv, Last())

    starts = Starts(embedding(start), embedding(noise(*start.shape, seed=9) if other is None else other))
    return measure_kernels(embedding(now), noise(2, start.shape[1], 32, 32), (4, 4), starts)


class Last(nn.Module):
    """Permute b d h w to b h w d."""

    def forward(self, x):
        return x.permute(0, 2, 3, 1)


def test_noise_is_called_noise_and_what_training_made_is_not():
    start = noise(48, 3, 8, 8)
    orthogonal = noise(48, 3, 8, 8, seed=1)
    hardly = kernels_beside(start, start + 0.16 * orthogonal)
    assert hardly.change.difference == pytest.approx(0.16, abs=0.01)
    assert hardly.change.cosine == pytest.approx(1 / math.hypot(1, 0.16), abs=0.01)
    assert "hardly moved" in readings.kernels(hardly)
    assert "they moved by 16% of their length" in readings.kernels(hardly)
    assert f"{1 / (1 + 0.16**2):.0%} of the picture is the start" in readings.kernels(hardly)
    assert "the noise of the start" in readings.kernels(hardly)
    other_noise = readings.kernels(kernels_beside(start, orthogonal))
    assert "no smoother" in other_noise
    assert "at the start it was 0.5" in other_noise
    assert "which was noise" in other_noise
    assert "look for" not in other_noise.lower()
    smooth = torch.cos(torch.arange(8) * math.pi / 8)[None, None, None].expand(48, 3, 8, 8) * noise(48, 3, 1, 1)
    assert "Look for edges, spots and colours." in readings.kernels(kernels_beside(start, smooth))
    basis = kernels_beside(start, start + 0.01 * orthogonal, other=start)
    assert "noise" not in readings.kernels(basis)
    assert "not random" in readings.kernels(basis)
    assert "not noise" in readings.before_training(basis.change)
    assert "they are noise" in readings.before_training(hardly.change)
    assert "Nothing in this embedding is trained" in readings.kernels(kernels_beside(start, start, trained=False))
    assert "Training hardly moved these responses" in readings.kernels(replace(hardly, affine=False))
    assert "not known here" in readings.kernels(replace(hardly, change=None))


def test_colour_is_told_from_brightness_and_grey_images_tell_nothing():
    grey = noise(40, 1, 4, 4).expand(-1, 3, -1, -1).contiguous()
    assert "brightness and hardly any colour" in readings.channels(kernels_beside(grey, grey), grey=False)
    opponent = grey * torch.tensor([1.0, -1, 0])[:, None, None]
    assert "colour more than brightness" in readings.channels(kernels_beside(opponent, opponent), grey=False)
    slices = noise(400, 3, 4, 4)
    assert "practically unrelated" in readings.channels(kernels_beside(slices, slices), grey=False)
    assert "channels of these images are equal" in readings.channels(kernels_beside(slices, slices), grey=True)


@pytest.mark.parametrize(("pos", "shows"), [("sincos", True), ("learned", False)])
def test_vectors_show_nearness_or_do_not(build, pos, shows):
    net = build("model=micro", "data.img_size=32", "patch=4", f"pos={pos}")
    said = readings.positions(positions(net)["tokens"])
    assert ("do not show" in said) != shows
    assert readings.nearness(math.nan, 0.0) == "There is one place, so there is nothing to compare."


def test_rotation_and_bias_that_do_nothing_are_told_from_those_that_do(build):
    alibi = bias_by_distance(build("model=micro", "data.img_size=32", "patch=4", "pos=alibi"), (32, 32))
    assert "In 2 of 3 heads the bias falls with distance" in readings.bias(alibi), "the third falls by 0.04 in all"
    flat = bias_by_distance(build("model=micro", "data.img_size=32", "patch=4", "pos=relbias"), (32, 32))
    assert "hardly shifts attention" in readings.bias(flat)
    assert "No head prefers near patches" in readings.bias(replace(alibi, means=-alibi.means, slopes=-alibi.slopes))
    rope = turns(build("model=micro", "data.img_size=32", "patch=4", "pos=rope"))
    assert "turns by 1 radians per patch, once around in 6 patches" in readings.rotation(rope, 8)
    assert "position has hardly any effect" in readings.rotation(rope * 1e-3, 8)


def test_attention_is_compared_with_uniform_attention_block_by_block():
    even = torch.full((6, 4, 4), 1 / 16)

    def said(*blocks):
        return readings.distance(attention.Attention(torch.tensor(blocks)[:, None] * 32.0, 32.0, even))

    assert "as wide as uniform attention in all 2 blocks" in said(1.0, 1.04)
    assert "as wide as uniform attention in the only block" in said(1.0)
    assert "nearer than uniform attention in 1 of 3 blocks" in said(1.0, 0.5, 1.0)
    assert "block 1 looks nearest, 16.0 px" in said(1.0, 0.5, 1.0)
    assert "farther than uniform attention in 1 of 2 blocks" in said(1.0, 1.2)
    assert "all patches about equally" in readings.rollout(even)
    one = even.clone()
    one[0, 0, 0] *= 2
    assert "some patches more than others" in readings.rollout(one)


def test_what_a_token_sees_grows_from_its_window_to_the_image():
    window = torch.zeros(32, 32)
    window[8:16, 8:16] = 1
    half = torch.zeros(32, 32)
    half[:, :16] = 1
    whole = torch.ones(32, 32)
    assert "little but its own window" in readings.fields({"embedding": window, "network": window})
    assert "more than its own window" in readings.fields({"embedding": window, "network": half})
    assert "sees the whole image" in readings.fields({"embedding": window, "network": whole})
    assert "a part of the image" in readings.fields({"network": half})


def test_a_place_that_is_read_is_told_from_one_that_is_not():
    depths = {"embedded": (0.0, 0.04), "placed": (0.99, 0.98), "block 0": (0.3, 0.3), "block 1": (0.2, 0.4)}
    said = readings.readout(depths, (4, 4))
    assert "after the embedding it cannot be read (R² 0.02)" in said
    assert "after the scheme it can be read (R² 0.98)" in said
    assert "after block 1 it can be read in part (R² 0.30)" in said
    assert "(R² 0.04)" in readings.readout(depths, (1, 4)), "one row is no place"
    assert "one token" in readings.readout(depths, (1, 1))
