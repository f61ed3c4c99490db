"""Positional schemes against independent implementations."""

import math

import pytest
import torch
from timm.layers import (
    RelPosMlp,
    RotaryEmbeddingCat,
    RotaryEmbeddingDinoV3,
    RotaryEmbeddingMixed,
    apply_rot_embed_cat,
    build_sincos2d_pos_embed,
    resample_abs_pos_embed,
)
from timm.layers.pos_embed_rel import resize_rel_pos_bias_table_levit
from timm.models.eva import Eva
from timm.models.twins import PosConv
from timm.models.vision_transformer_relpos import VisionTransformerRelPos
from torchvision.models.swin_transformer import ShiftedWindowAttention

from patchbench.layout import Layout
from patchbench.pos.alibi import Alibi2d
from patchbench.pos.fourier import Fourier
from patchbench.pos.grid import resample
from patchbench.pos.learned import Factorized, Learned
from patchbench.pos.peg import PEG
from patchbench.pos.relbias import RelBias, RelBiasMlp, relative_index
from patchbench.pos.rope import AxialRope, MixedRope
from patchbench.pos.sincos import SinCos1d, SinCos2d

GRIDS = [(4, 4), (3, 7)]


def attention(rope: torch.Tensor, q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
    """Return logits, [heads] n n: the same query at every place i with the same key at every place j."""
    n = rope.shape[-2]
    turned = [apply_rot_embed_cat(x.expand(*rope.shape[:-2], n, -1), rope) for x in (q, k)]
    return turned[0] @ turned[1].mT


@pytest.mark.parametrize("grid_size", GRIDS)
def test_sincos_is_timms(grid_size):
    scheme = SinCos2d(Layout(grid_size, 48, 3), temperature=1e4, resize="extrapolate")
    ours = scheme(torch.zeros(1, *grid_size, 48))[0].flatten(0, 1)
    torch.testing.assert_close(ours, build_sincos2d_pos_embed(list(grid_size), 48))


@pytest.mark.parametrize("grid_size", GRIDS)
def test_rope_is_timms(grid_size):
    scheme = AxialRope(Layout(grid_size, 48, 3), temperature=100.0, span=None, offset=0.0, resize="extrapolate")
    theirs = RotaryEmbeddingCat(16, temperature=100, in_pixels=False)
    torch.testing.assert_close(scheme(grid_size), theirs.get_embed(list(grid_size)))
    torch.testing.assert_close(scheme((5, 2)), theirs.get_embed([5, 2]))


@pytest.mark.parametrize("grid_size", GRIDS)
def test_rope_over_a_span_is_that_of_eva02_and_of_dinov3(grid_size):
    layout, knobs = Layout(grid_size, 48, 3), {"temperature": 100.0, "resize": "extrapolate"}
    eva = RotaryEmbeddingCat(16, temperature=100, in_pixels=False, ref_feat_shape=[16, 16], grid_offset=1.0)
    ours = AxialRope(layout, span=16.0, offset=1.0, **knobs)
    torch.testing.assert_close(ours(grid_size), eva.get_embed(list(grid_size)), rtol=1e-4, atol=1e-5)
    dino = RotaryEmbeddingDinoV3(16, temperature=100.0, rotate_half=False)
    ours = AxialRope(layout, span=4 * math.pi, offset="centre", **knobs)
    torch.testing.assert_close(ours(grid_size), dino.get_embed(list(grid_size)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("knobs", [{"span": 0.0}, {"offset": "middle"}], ids=str)
def test_a_span_or_offset_that_is_none_is_refused(knobs):
    with pytest.raises(ValueError, match=next(iter(knobs))):
        AxialRope(
            Layout((2, 2), 48, 3), **{"temperature": 1.0, "span": None, "offset": 0.0, "resize": "extrapolate"} | knobs
        )


@pytest.mark.parametrize("grid_size", [(8, 8), (3, 9)])
def test_a_resampled_table_is_timms(grid_size):
    scheme = Learned(Layout((4, 4), 48, 3), std=0.02)
    ours = scheme(torch.zeros(1, *grid_size, 48)).flatten(1, 2)
    table = scheme.table.flatten(0, 1)[None]
    theirs = resample_abs_pos_embed(table, new_size=list(grid_size), old_size=[4, 4], num_prefix_tokens=0)
    torch.testing.assert_close(ours, theirs)


def test_sincos1d_is_the_formula():
    ours = SinCos1d(Layout((3, 5), 16, 1), temperature=1e4, resize="extrapolate")(torch.zeros(1, 3, 5, 16))[0]
    for r, c, k in [(0, 0, 0), (0, 4, 3), (2, 1, 7), (1, 0, 5)]:
        angle = (5 * r + c) / 1e4 ** (2 * k / 16)
        assert ours[r, c, k].item() == pytest.approx(math.sin(angle), abs=1e-6)
        assert ours[r, c, 8 + k].item() == pytest.approx(math.cos(angle), abs=1e-6)


@pytest.mark.parametrize(("old", "new"), [((4, 1), (8, 1)), ((6, 3), (2, 1)), ((5, 4), (1, 1))])
def test_a_grid_of_one_column_is_resampled_like_one_of_one_row(old, new):
    table = torch.randn(*old, 5)
    torch.testing.assert_close(resample(table, new), resample(table.transpose(0, 1), new[::-1]).transpose(0, 1))


@pytest.mark.parametrize("combine", ["add", "concat"])
@pytest.mark.parametrize("grid_size", [(4, 6), (8, 3)])
def test_factorized_is_a_table_of_sums_or_of_pairs(combine, grid_size):
    scheme = Factorized(Layout((4, 6), 8, 1), combine=combine, std=1.0)
    pairs = [[(scheme.rows[r], scheme.cols[c]) for c in range(6)] for r in range(4)]
    table = torch.stack([torch.stack([a + b if combine == "add" else torch.cat([a, b]) for a, b in p]) for p in pairs])
    theirs = resample_abs_pos_embed(table.flatten(0, 1)[None], list(grid_size), [4, 6], num_prefix_tokens=0)
    torch.testing.assert_close(scheme(torch.zeros(1, *grid_size, 8)).flatten(1, 2), theirs)


@pytest.mark.parametrize("grid_size", GRIDS)
def test_fourier_is_the_algorithm_of_the_paper(grid_size):
    scheme = Fourier(Layout(grid_size, 20, 1), num_features=12, hidden_dim=8, gamma=2.0, resize="interpolate")
    x = torch.cartesian_prod(torch.arange(grid_size[0]), torch.arange(grid_size[1])).float()
    angles = x @ scheme.freqs
    features = torch.cat([angles.cos(), angles.sin()], dim=1) / math.sqrt(12)
    theirs = torch.nn.functional.gelu(features @ scheme.fc1.weight.T + scheme.fc1.bias) @ scheme.fc2.weight.T
    torch.testing.assert_close(scheme(torch.zeros(1, *grid_size, 20))[0].flatten(0, 1), theirs + scheme.fc2.bias)


@pytest.mark.parametrize("grid_size", GRIDS)
def test_rope_mixed_is_timms(grid_size):
    theirs = RotaryEmbeddingMixed(48, depth=2, num_heads=3, temperature=10.0)
    scheme = MixedRope(Layout(grid_size, 48, 3), temperature=10.0, resize="extrapolate")
    torch.testing.assert_close(scheme.freqs.norm(dim=0), theirs.freqs[:, 0].norm(dim=0))  # from random directions
    scheme.load_state_dict({"freqs": theirs.freqs[:, 1]})
    torch.testing.assert_close(scheme(grid_size), theirs.get_embed(list(grid_size))[1])
    torch.testing.assert_close(scheme((5, 2)), theirs.get_embed([5, 2])[1])


def test_interpolated_rope_gives_the_attention_of_timms():
    """timm scales from the corner of the grid, we from the centre of the first patch: distances are the same."""
    ours = AxialRope(Layout((4, 4), 16, 1), temperature=100.0, span=None, offset=0.0, resize="interpolate")((8, 6))
    theirs = RotaryEmbeddingCat(16, temperature=100, in_pixels=False, ref_feat_shape=[4, 4]).get_embed([8, 6])
    q, k = torch.randn(2, 16)
    torch.testing.assert_close(attention(ours, q, k), attention(theirs, q, k), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("name", "rope_type"), [("rope", "cat"), ("rope_mixed", "mixed")])
@pytest.mark.parametrize("registers", [0, 4])
@pytest.mark.parametrize("absolute", [True, False])
def test_logits_with_rope_equal_evas(build, name, rope_type, registers, absolute):
    """Class token, registers and learned positions are there too; the grid is not square."""
    eva = Eva(
        img_size=(32, 48),
        patch_size=8,
        num_classes=10,
        embed_dim=48,
        depth=2,
        num_heads=3,
        mlp_ratio=2.0,
        attn_type="rope",
        use_abs_pos_emb=absolute,
        use_rot_pos_emb=True,
        rope_type=rope_type,
        rope_temperature=100.0,
        rope_grid_indexing="ij" if rope_type == "cat" else "xy",
        global_pool="token",
        num_reg_tokens=registers,
        no_embed_class=True,
        head_init_scale=1.0,
    ).eval()
    state = {k: w for k, w in eva.state_dict().items() if k.split(".")[0] in ("blocks", "norm", "head")}
    state["prefix"] = torch.cat([eva.cls_token[0], eva.reg_token[0]] if registers else [eva.cls_token[0]])
    state |= {"embed.proj.weight": eva.patch_embed.proj.weight, "embed.proj.bias": eva.patch_embed.proj.bias}
    if absolute:
        state["tokens.table"] = eva.pos_embed[0].unflatten(0, (4, 6))
    if rope_type == "mixed":
        eva.rope.freqs.data.mul_(1.5)
        state |= {f"rotation.{i}.freqs": eva.rope.freqs[:, i] for i in range(2)}
    net = build(
        f"pos=[learned,{name}]" if absolute else f"pos={name}",
        f"pos.{name}.rotation.temperature=100.0",
        "model=micro",
        "data.img_size=[32,48]",
        "patch=8",
        f"model.num_prefix_tokens={1 + registers}",
        "model.pool=cls",
    ).eval()
    net.load_state_dict(state)
    images = torch.randn(2, 3, 32, 48)
    torch.testing.assert_close(net(images), eva(images), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("name", "rel_pos_type"), [("relbias", "bias"), ("relbias_mlp", "mlp-swin")])
@pytest.mark.parametrize("per_layer", [True, False])
def test_logits_with_a_relative_bias_equal_timms(build, name, rel_pos_type, per_layer):
    vit = VisionTransformerRelPos(
        img_size=(32, 48),
        patch_size=8,
        num_classes=10,
        embed_dim=48,
        depth=2,
        num_heads=3,
        mlp_ratio=2.0,
        init_values=None,
        fc_norm=True,
        rel_pos_type=rel_pos_type,
        rel_pos_dim=512,
        shared_rel_pos=not per_layer,
    ).eval()
    for key, w in vit.named_parameters():
        if "rel_pos" in key:
            w.data.add_(torch.randn_like(w) * 0.2)
    state = {}
    for key, w in vit.state_dict().items():
        key = key.replace("patch_embed", "embed").replace("fc_norm", "norm").replace("shared_rel_pos", "bias.0")
        if key.startswith("blocks") and "rel_pos" in key:
            key = f"bias.{key[7]}" + key.partition("rel_pos")[2]
        if key.endswith("relative_position_bias_table"):
            key, w = key.replace("relative_position_bias_table", "table"), w.unflatten(0, (7, 11))
        state[key.replace(".mlp.fc", ".fc") if key.startswith("bias") else key] = w
    size = ["model=micro", "data.img_size=[32,48]", "patch=8"]
    net = build(f"pos={name}", f"pos.{name}.per_layer={per_layer}", *size).eval()
    net.load_state_dict(state | {"prefix": net.prefix})
    images = torch.randn(2, 3, 32, 48)
    torch.testing.assert_close(net(images), vit(images), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("grid_size", GRIDS)
def test_relative_index_is_swins(grid_size):
    theirs = ShiftedWindowAttention(8, list(grid_size), [0, 0], 2)
    assert torch.equal(relative_index(grid_size, grid_size).flatten(), theirs.relative_position_index)
    scheme = RelBias(Layout(grid_size, 8, 2), std=0.02, resize="interpolate")
    scheme.table.data.copy_(theirs.relative_position_bias_table.view_as(scheme.table))
    assert torch.equal(scheme(grid_size), theirs.get_relative_position_bias()[0])


def test_a_resampled_relative_table_is_timms():
    scheme = RelBias(Layout((4, 4), 8, 2), std=1.0, resize="interpolate")
    theirs = resize_rel_pos_bias_table_levit(scheme.table.flatten(0, 1), (11 * 11, 2))
    torch.testing.assert_close(scheme((6, 6)), theirs[relative_index((6, 6), (6, 6))].permute(2, 0, 1))


def test_an_extrapolated_relative_table_goes_on_as_at_its_edge():
    scheme = RelBias(Layout((2, 3), 8, 2), std=1.0, resize="extrapolate")
    bias = scheme((5, 6)).unflatten(2, (5, 6)).unflatten(1, (5, 6))
    assert torch.equal(bias[:, 4, 0, 0, 5], scheme.table[2, 0])  # 4 rows below counts as 1, 5 columns left as 2
    assert torch.equal(bias[:, 2, 2, 1, 3], scheme.table[2, 1])


@pytest.mark.parametrize("grid_size", [(4, 4), (3, 7), (9, 6)])
def test_the_continuous_bias_is_timms_with_no_favour_to_patches(grid_size):
    theirs = RelPosMlp(grid_size, 3, hidden_dim=32, mode="swin", pretrained_window_size=(4, 4)).eval()
    scheme = RelBiasMlp(Layout((4, 4), 48, 3), hidden_dim=32, gain=16.0, std=0.02, resize="extrapolate")
    scheme.load_state_dict({name.removeprefix("mlp."): w for name, w in theirs.state_dict().items()})
    torch.testing.assert_close(scheme(grid_size), theirs.get_bias()[0] - 8)


def test_alibi_is_the_distance_times_the_slopes_of_the_paper():
    bias = Alibi2d(Layout((3, 4), 64, 8), resize="extrapolate")((3, 4))
    places = [(r, c) for r in range(3) for c in range(4)]
    for head, i, j in [(0, 0, 11), (3, 5, 2), (7, 10, 1), (4, 6, 6)]:
        assert bias[head, i, j].item() == pytest.approx(-math.dist(places[i], places[j]) / 2 ** (head + 1))


# -log2 of the slopes of get_slopes, in the code of Press et al. (attention_with_linear_biases) and of Fuller (CROMA).
POWERS_OF_TWO = {
    1: [8],
    2: [4, 8],
    4: [2, 4, 6, 8],
    8: [1, 2, 3, 4, 5, 6, 7, 8],
    16: [0.5, 1, 1.5, 2, 2.5, 3, 3.5, 4, 4.5, 5, 5.5, 6, 6.5, 7, 7.5, 8],
}
OTHERS = {3: [2], 5: [1], 6: [1, 3], 7: [1, 3, 5], 9: [0.5], 10: [0.5, 1.5], 11: [0.5, 1.5, 2.5]}
OTHERS |= {12: [0.5, 1.5, 2.5, 3.5], 13: [0.5, 1.5, 2.5, 3.5, 4.5], 14: [0.5, 1.5, 2.5, 3.5, 4.5, 5.5]}
OTHERS |= {15: [0.5, 1.5, 2.5, 3.5, 4.5, 5.5, 6.5]}


@pytest.mark.parametrize("heads", range(1, 17))
def test_the_slopes_of_alibi_are_those_of_the_published_code(heads):
    below = max(n for n in POWERS_OF_TWO if n <= heads)
    expected = POWERS_OF_TWO[below] + OTHERS.get(heads, [])
    bias = Alibi2d(Layout((1, 2), 4 * heads, heads), resize="extrapolate")((1, 2))
    assert (-(-bias[:, 0, 1]).log2()).tolist() == pytest.approx(expected)


@pytest.mark.parametrize("grid_size", GRIDS)
def test_peg_is_timms(grid_size):
    scheme, theirs = PEG(Layout(grid_size, 8, 1), kernel_size=3, padding="zeros"), PosConv(8, 8)
    theirs.load_state_dict({name.replace("conv", "proj.0"): w for name, w in scheme.state_dict().items()})
    x = torch.randn(2, *grid_size, 8)
    torch.testing.assert_close(scheme(x).flatten(1, 2), theirs(x.flatten(1, 2), grid_size))


def test_learned_positions_that_go_along_with_their_patches_change_nothing(build):
    net = build("pos=learned", "model=micro", "data.img_size=32", "patch=8").eval()
    images = torch.randn(2, 3, 32, 32)
    logits = net(images)
    order = torch.randperm(16)
    patches = images.unflatten(3, (4, 8)).unflatten(2, (4, 8)).permute(2, 4, 0, 1, 3, 5).flatten(0, 1)
    shuffled = patches[order].unflatten(0, (4, 4)).permute(2, 3, 0, 4, 1, 5).flatten(4, 5).flatten(2, 3)
    assert not torch.allclose(net(shuffled), logits, atol=1e-5)
    net.tokens.table.data = net.tokens.table.flatten(0, 1)[order].unflatten(0, (4, 4))
    torch.testing.assert_close(net(shuffled), logits, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("padding", ["zeros", "circular"])
@pytest.mark.parametrize("prefix", [0, 1])
def test_only_the_border_shows_peg_where_it_is(build, padding, prefix):
    knobs = [f"pos.peg.between.padding={padding}", "pos.peg.after=null", f"model.num_prefix_tokens={prefix}"]
    net = build("pos=peg", *knobs, "model=micro", "data.img_size=[24,32]", "patch=8").eval()
    images = torch.randn(2, 3, 24, 32)
    shifted = images.roll((8, 16), (2, 3))
    assert torch.allclose(net(images), net(shifted), rtol=1e-4, atol=1e-6) == (padding == "circular")


def test_prefix_tokens_start_on_a_level_with_patches():
    """The bias of prefix tokens is zero; at the start the bias of patches is zero on average too."""
    layout = Layout((6, 6), 48, 3)
    for scheme in (
        RelBias(layout, std=0.02, resize="interpolate"),
        RelBiasMlp(layout, hidden_dim=512, gain=16.0, std=0.02, resize="extrapolate"),
    ):
        assert scheme((6, 6)).abs().mean() < 0.1
