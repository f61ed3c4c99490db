"""The page of scripts/explain.py: for every option, and with numbers that agree with the network."""

import re
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from omegaconf import open_dict
from PIL import Image
from support import configure, every, options, record, some
from torch import nn

from patchbench.commands.build import build_net, build_source
from patchbench.commands.draft import draft
from patchbench.commands.explain import explain as explain_command
from patchbench.commands.explain import one_image
from patchbench.config.errors import Refused
from patchbench.data.photographs import is_grey
from patchbench.data.source import InMemory
from patchbench.layout import Layout
from patchbench.measure import places
from patchbench.measure.response import is_affine, kernels, shares, windows
from patchbench.pages import plots
from patchbench.pages.explain.cutting import number_of_windows, pixels_lost, seams
from patchbench.pages.explain.walk import Walk, walk
from patchbench.words import count, listed

MICRO = ("model=micro", "data.img_size=32", "patch=8")
Explain = Callable[..., SimpleNamespace]


@pytest.fixture
def explain(tmp_path, capsys) -> Explain:
    """Run the command in this process; return its page, the text of the page, and its output."""

    def explain(*overrides: str) -> SimpleNamespace:
        cfg = configure(*overrides, f"runs_dir={tmp_path}", command="explain")
        with open_dict(cfg):
            choices = dict(cfg.pop("hydra").runtime.choices)
        path = explain_command(cfg, choices, overrides)
        page = path.read_text(encoding="utf-8")
        without_style = re.sub(r"<style>.*?</style>", "", page, flags=re.DOTALL)
        words = " ".join(re.sub(r"<[^>]*>", " ", without_style).split())
        return SimpleNamespace(cfg=cfg, path=path, page=page, words=words, printed=capsys.readouterr().out)

    return explain


def check_page(page: str) -> None:
    """Check that a page is complete and refers to no other file."""
    assert page.startswith("<!doctype html>")
    assert page.endswith("</html>\n")
    assert page.count("<img ") >= 3
    assert all(source.startswith("data:image/png;base64,") for source in re.findall(r'(?:src|href)="(.*?)"', page))
    assert not re.search(r"https?://|@import|<script|<link", page)
    assert all(re.findall(r'<img alt="(.*?)"', page))
    assert page.count("<img ") + page.count("<svg ") == page.count('<label class="zoom">'), (
        "a tap enlarges every figure"
    )
    assert not re.search(
        r"(?<![\d,.])1 (values|channels|patches|tokens|kernels|maps|weights|places|rows|columns)\b", page
    )
    assert "{" not in re.sub(r"<style>.*?</style>", "", page, flags=re.DOTALL), "a name is left unfilled"
    assert "nan" not in re.sub(r'"data:.*?"', "", page).split()


@pytest.mark.parametrize("embed", some(options("embed"), "conv", "overlap"))
def test_every_embedding_has_a_page_with_its_own_numbers(explain, embed):
    done = explain(f"embed={embed}", *MICRO, "pos=none", "model.num_prefix_tokens=2")
    check_page(done.page)
    cost = draft(done.cfg).cost
    for said in (done.words, done.printed):
        assert f"{cost.num_tokens:,}" in said
        assert f"{cost.params:,}" in said
        assert f"{cost.macs / 1e9:.4g}" in said
        assert ("once a step" in said) == (cost.macs_per_step > 0)
        assert f"{cost.macs_per_step / 1e9:.4g}" in said
        assert "×".join(map(str, cost.grid_size)) in said
    assert "no place is filled" in done.words


@pytest.mark.parametrize("pos", some([name for name in options("pos") if name != "none"], "learned", "rope"))
def test_every_scheme_has_a_picture_at_each_place_that_it_fills(explain, pos):
    done = explain(f"pos={pos}", *MICRO)
    check_page(done.page)
    net = build_net(done.cfg, build_source(done.cfg))
    filled = places.filled(net)
    assert filled
    for place in filled:
        assert f"[{place}] {pos}: " in done.words
        assert f"[{place}]: " in done.printed
    assert done.page.count('class="full"') == len(filled)


@pytest.mark.slow
def test_several_schemes_and_a_grid_that_is_not_square(explain):
    done = explain("pos=[learned,rope]", "model=micro", "data.img_size=[16,24]", "patch=[4,8]", "data=digits")
    check_page(done.page)
    assert "4×3 = 12" in done.words
    assert "<code>embed=conv &#x27;patch=[4,8]&#x27; &#x27;pos=[learned,rope]&#x27;" in done.page, "a shell reads it"
    assert "[tokens] learned" in done.words
    assert "[rotation] rope" in done.words


@pytest.mark.slow
def test_grey_images_have_a_page(explain):
    check_page(explain("data=random", "data.in_chans=1", "data.img_size=16", "patch=4", "model=micro", "pos=none").page)


def test_the_example_of_the_document(explain):
    done = explain("data=random", "patch=16", "model=base", "model.depth=1")
    for said in ("224×224×3", "14×14 = 196 patches", "16·16·3 = 768 values", "768 values → D = 768"):
        assert said in done.words


@pytest.mark.parametrize("augment", some(options("augment"), "light"))
def test_a_page_shows_what_training_shows_where_that_is_anything_else(explain, augment):
    done = explain(f"augment={augment}", "data=digits", *MICRO)
    check_page(done.page)
    assert ("What training shows" in done.words) == (augment != "none")
    assert ("6. What it costs" in done.words) == (augment != "none")
    assert ("the share of each class" in done.words) == (augment in ("deit", "three"))


@pytest.mark.slow
def test_q1_has_kernels_as_deep_as_the_image_and_their_sum_is_the_map(explain):
    done = explain("embed=overlap", "pos=sincos", *MICRO)
    assert "in truth a block of 5×5×3" in done.words
    assert "⌊(32 − 5)/2⌋ + 1 = 14 each way" in done.words
    assert "Row 31 and column 31 of the image are read by no window:" in done.words
    assert "so 63 pixels of 1,024 never reach the network" in done.words
    assert "Before training they are noise: another seed gives other kernels" in done.words
    assert "3×32×32 → 48×14×14" in done.words
    assert "per-channel 2-D convolutions, computed one by one, plus the bias, equals the layer's output" in done.words
    [difference] = re.findall(r"Largest difference: (\S+),", done.words)
    assert float(difference) < 1e-4


def walked(build: Callable[..., Any], *overrides: str) -> Walk:
    net = build("model=micro", "pos=none", *overrides)
    size = configure(*overrides).data.img_size
    pixels = torch.randint(256, (3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return walk(net, pixels, "noise", torch.full((3, 1, 1), 0.5), torch.ones(3, 1, 1), None)


@pytest.mark.parametrize("embed", every(options("embed"), 4))
def test_a_formula_is_given_only_where_it_gives_the_grid(build, embed):
    """Compute the numbers of the formula here, if the page has one."""
    seen = walked(build, f"embed={embed}", "data.img_size=32", "patch=8")
    formulas = re.findall(r"⌊\((\d+)(?: \+ 2·(\d+))? − (\d+)\)/(\d+)⌋ \+ 1 = (\d+)", number_of_windows(seen))
    for n, pad, kernel, stride, grid in formulas:
        assert (int(n) + 2 * int(pad or 0) - int(kernel)) // int(stride) + 1 == int(grid)
        assert int(grid) in seen.layout.grid_size
    if embed in ("conv", "overlap", "overlap_sum", "pixel"):
        assert formulas


@pytest.mark.parametrize(
    ("overrides", "rows", "words"),
    [
        (("embed=conv", "data.img_size=32", "patch=8"), [], ""),
        (("embed=overlap", "data.img_size=32"), [31], "Row 31 and column 31 of the image are read by no window"),
        (("embed=overlap", "data.img_size=33"), [], ""),
        (("embed=overlap", "data.img_size=33", "embed.stride=4"), [], ""),
        (("embed=overlap", "data.img_size=32", "embed.stride=5"), [30, 31], "Rows 30 to 31 and columns 30 to 31 of"),
        (("embed=overlap", "data.img_size=32", "embed.stride=9"), [5, 6, 7, 8, 14, 15, 16, 17, 23, 24, 25, 26], "gaps"),
    ],
)
def test_pixels_that_no_window_reads_are_named_and_change_no_token(build, overrides, rows, words):
    seen = walked(build, *overrides)
    assert seen.unread == (rows, rows)
    assert words in pixels_lost(seen)
    embed = build("model=micro", "pos=none", *overrides).embed.eval()
    image = torch.randn(1, 3, *seen.pixels.shape[1:], generator=torch.Generator().manual_seed(1))
    changed = image.clone()
    changed[:, :, rows] += 1
    changed[:, :, :, rows] += 1
    torch.testing.assert_close(embed(changed), embed(image), rtol=0, atol=0)
    if words:
        assert not seen.overlaps or "among the pixels that are read" in seams(seen)
    else:
        assert not seen.overlaps or seams(seen).endswith("at a seam.")


def test_the_image_is_in_colour_or_said_to_be_grey(explain, tmp_path):
    grey = explain(*MICRO, "pos=none", "image=0")
    assert "test image 0, class " in grey.words
    assert "This image is grey: its 3 channels are equal" in grey.words
    assert "The maps differ although the channels are equal" in grey.words
    assert "'pos=[sincos,rope]'" in grey.page, "zsh reads brackets that are not quoted as a pattern"
    source = build_source(grey.cfg)
    name, pixels, subject = one_image(source, None, colour=True)
    assert (name, subject) == ("flower", "the photograph flower, since test image 0 is grey (image=0 shows that one)")
    assert pixels.shape == (3, 32, 32)
    assert not is_grey(pixels)
    assert one_image(source, None, colour=False)[0] == 0
    Image.new("RGB", (50, 40), "red").save(tmp_path / "mine.png")
    mine = one_image(source, str(tmp_path / "mine.png"), colour=True)[1]
    assert (mine == torch.tensor([255, 0, 0])[:, None, None]).all()


def test_class_names_stand_in_place_of_numbers():
    images = torch.randint(256, (2, 3, 8, 8), dtype=torch.uint8)
    split = InMemory(images, torch.tensor([1, 0]))
    source: Any = SimpleNamespace(splits=lambda: {"test": split}, classes=["cat", "owl"], num_classes=2, mirrors=True)
    vars(source).update(img_size=(8, 8), in_chans=3, mean=[0.5] * 3, std=[0.5] * 3)
    assert one_image(source, None, colour=True)[2] == "test image 0, class owl"
    assert one_image(source, "1", colour=True)[2] == "test image 1, class cat"
    del source.classes
    assert one_image(source, "1", colour=True)[2] == "test image 1, class 0"


@pytest.mark.slow
def test_q1_at_224_pixels_counts_what_it_does_not_compute(explain):
    done = explain("embed=overlap", "pos=[learned,rope]", "data=random", "data.img_size=224", "model=micro")
    check_page(done.page)
    assert "110×110 = 12,100" in done.words
    assert "12,100" in done.printed


def test_maps_of_a_long_sequence_are_drawn_on_a_smaller_grid():
    class Bias(nn.Module):
        def forward(self, grid_size):
            n = grid_size[0] * grid_size[1]
            assert n <= places.MOST_PLACES
            return torch.zeros(3, n, n)

    assert places.bias_maps(Bias(), (110, 110)).grid_size == (40, 40)
    assert places.bias_maps(Bias(), (7, 5)).grid_size == (7, 5)


def test_the_window_of_a_convolution_is_its_kernel():
    torch.manual_seed(0)
    conv = nn.Sequential(nn.Conv2d(3, 8, 5, stride=2), Last())
    image = torch.randn(1, 3, 17, 21)
    [window] = windows(conv, (3, 17, 21), [(2, 3)])
    assert (window.top, window.left, window.height, window.width) == (4, 6, 5, 5)
    assert is_affine(conv, image)
    torch.testing.assert_close(kernels(conv, image, (2, 3), window, 8), conv[0].weight.detach())
    share = shares(conv[:1].append(Last()), image, 3)
    assert share.error < 1e-5
    assert not is_affine(nn.Sequential(conv, nn.GELU()), image)


class Last(nn.Module):
    """b d h w -> b h w d"""

    def forward(self, x):
        return x.permute(0, 2, 3, 1)


def test_each_place_is_drawn_whatever_fills_it():
    """Heads and blocks may have different angles and biases."""
    n, heads, head_dim = 12, 3, 8

    class Gives(nn.Module):
        def __init__(self, *shape: int) -> None:
            super().__init__()
            self.value = nn.Parameter(torch.randn(shape))

        def forward(self, grid_size):
            return self.value

    rotation, bias = Gives(heads, n, 2 * head_dim), Gives(heads, n, n)
    for held in (rotation, nn.ModuleList([rotation, Gives(1)]), nn.ModuleDict({"3": rotation})):
        assert places.modules(SimpleNamespace(rotation=held), "rotation")[0] is rotation
    for empty in (None, nn.Identity(), nn.ModuleList(), nn.ModuleDict()):
        assert not places.modules(SimpleNamespace(rotation=empty), "rotation")
    turn = places.rotation_maps(rotation, (3, 4))
    assert turn.num_heads == heads
    assert turn.score.shape == (heads, len(turn.queries), 3, 4)
    shift = places.bias_maps(bias, (3, 4))
    row, col = shift.queries[2]
    torch.testing.assert_close(shift.logits[0, 2], bias.value[0, row * 4 + col].detach().view(3, 4))


def test_what_is_added_is_read_off_zeros_and_told_from_what_depends_on_the_tokens():
    class Add(nn.Module):
        def forward(self, x):
            return x + torch.arange(x.shape[2])[:, None]

    class Mix(nn.Module):
        def forward(self, x):
            return x + 0.5 * x.roll(1, dims=1)

    layout = Layout((5, 6), 4, 1)
    table = places.table(Add(), layout.grid_size, layout.embed_dim)
    assert table.vectors[2, :, 0].tolist() == [0, 1, 2, 3, 4, 5]
    assert places.table(Mix(), layout.grid_size, layout.embed_dim) is None
    mixing = places.mixing(Mix(), layout.grid_size, layout.embed_dim)
    assert mixing.kernels[0, 2, 3] == 1
    assert mixing.kernels[0, 1, 3] == 0.5


@pytest.mark.slow
def test_trained_weights_come_with_their_configuration(command, micro, explain, tmp_path):
    assert command("train.py", *micro, "embed=linear", "epochs=1", "trainer=cpu", "logger=none").returncode == 0
    [best] = tmp_path.rglob("best.ckpt")
    done = explain(f"ckpt={best}", "image=3")
    assert "the weights are those that the run learnt" in done.words.lower()
    assert "Training hardly moved these kernels: they moved by " in done.words
    assert "embed=linear patch=4 pos=learned" in done.words
    assert record(tmp_path)["identity"] in done.path.name
    assert done.path.name.endswith("_trained_image3.html")
    with pytest.raises(Refused, match=r"leave out patch=8"):
        explain(f"ckpt={best}", "patch=8")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("image=360", ["image=360", "images 0 to 359"]),
        ("image=nowhere.png", ["image=nowhere.png is no file", "china, flower, astronaut"]),
        ("patch=7", ["patch=7", "embed.pad=true"]),
        ("embed=cnv", ["embed=cnv is no option", "embed=conv"]),
        ("imge=3", ["imge=3", "image"]),
        ("ckpt=/nowhere/best.ckpt", ["ckpt=/nowhere/best.ckpt", "no such file"]),
    ],
)
def test_what_cannot_be_explained_is_refused_in_one_line(command, tmp_path, arguments, said):
    done = command("scripts/explain.py", "model=micro" if "ckpt" not in arguments else "image=0", arguments)
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    [line] = done.stderr.splitlines()
    assert line.startswith("error: ")
    for words in said:
        assert words in line
    assert not (tmp_path / "runs").exists(), "nothing is left behind"


@pytest.mark.slow
def test_the_command_prints_a_table_and_where_the_page_is(command, tmp_path):
    done = command("scripts/explain.py", *MICRO, "pos=[sincos,rope]")
    assert done.returncode == 0, done.stderr
    [page] = (tmp_path / "runs" / "explain").glob("*.html")
    assert str(page.relative_to(tmp_path)) in done.stdout.splitlines()
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert done.stderr == ""


def test_a_number_agrees_with_its_noun():
    assert [count(n, "patch", "patches") for n in (0, 1, 1024)] == ["0 patches", "1 patch", "1,024 patches"]
    assert [count(n, "row") for n in (1, 2)] == ["1 row", "2 rows"]
    assert [listed(words) for words in ([], ["a"], ["a", "b"], ["a", "b", "c"])] == ["", "a", "a and b", "a, b and c"]


@pytest.mark.parametrize("shape", [(1, 1), (2, 1), (3, 40)])
def test_rows_and_columns_have_whole_numbers(shape):
    fig = plots.figure(3.0)
    ax = fig.subplots()
    ax.imshow(torch.zeros(shape).numpy())
    plots.whole_numbers(ax)
    fig.canvas.draw()
    assert all(tick == round(tick) for tick in [*ax.get_xticks(), *ax.get_yticks()])
