"""Weights from timm and to timm: equal logits, or one line with the reason."""

import argparse
import math
import os
from pathlib import Path

import pytest
import timm
import timm_family
import torch
from safetensors.torch import save_file
from support import configure, every, some, train_in
from timm.models.eva import Eva
from torch import nn

from patchbench.train.checkpoint import read_checkpoint
from patchbench.weights.export import export, to_timm
from patchbench.weights.knobs import spell_ratio
from patchbench.weights.load import fit, load
from patchbench.weights.read import net_state
from patchbench.weights.timm import from_timm, grid_of, metadata_of

ONE = ["model.num_prefix_tokens=1", "model.pool=cls"]
ARMS = {
    "class token": (ONE, {}),
    "mean": ([], {"global_pool": "avg", "class_token": False}),
    "mean beside a class token": (["model.num_prefix_tokens=1"], {"global_pool": "avg"}),
    "registers": (
        ["model.num_prefix_tokens=5", "model.pool=cls"],
        {"reg_tokens": 4, "no_embed_class": True},
    ),
    "placed registers": (["model.num_prefix_tokens=5", "model.pool=cls"], {"reg_tokens": 4}),
    "unplaced class token": (ONE, {"no_embed_class": True}),
    "layer scale": (ONE, {"init_values": 0.1}),
    "layer scale as it is": ([*ONE, "model.layer_scale=1e-5"], {"init_values": 0.1}),
    "no position": ([*ONE, "pos=none"], {"pos_embed": "none"}),
    "no bias": (ONE, {"qkv_bias": False}),
    "norm before the blocks": ([*ONE, "model.pre_norm=true"], {"pre_norm": True}),
    "norm before the average": (
        ["model.final_norm=tokens"],
        {"global_pool": "avg", "class_token": False, "fc_norm": False},
    ),
    "no last norm": ([*ONE, "model.final_norm=none"], {"final_norm": False}),
    "attention pool": (
        ["model.pool=map", "model.final_norm=tokens"],
        {"global_pool": "map", "class_token": False},
    ),
    "tanh": ([*ONE, "model.act=gelu_tanh"], {"act_layer": "gelu_tanh"}),
    "quick": ([*ONE, "model.act=quick_gelu"], {"act_layer": "quick_gelu"}),
    "norms inside": (
        [*ONE, "model.scale_attn_norm=true", "model.scale_mlp_norm=true"],
        {"scale_attn_norm": True, "scale_mlp_norm": True},
    ),
}
ROPE = {"use_rot_pos_emb": True, "ref_feat_shape": (16, 16)}
DINO = {"use_rot_pos_emb": True, "rope_type": "dinov3", "rope_temperature": 100.0, "rope_rotate_half": True}
EVAS = {  # arguments of timm's Eva
    "eva": {},
    "eva of CLIP": {"global_pool": "token"},
    "eva02": ROPE | {"swiglu_mlp": True},
    "eva02 base": ROPE | {"swiglu_mlp": True, "scale_mlp": True, "qkv_fused": False},
    "eva02 of CLIP": ROPE | {"swiglu_mlp": True, "scale_mlp": True, "scale_attn_inner": True, "qkv_fused": False},
    "axial alone": ROPE | {"init_values": 0.1, "use_abs_pos_emb": False, "num_reg_tokens": 1, "class_token": False},
    "columns first": ROPE | {"attn_type": "rope", "rope_grid_indexing": "xy", "ref_feat_shape": None},
    "mixed": {"use_rot_pos_emb": True, "rope_type": "mixed", "rope_grid_indexing": "xy", "attn_type": "rope"},
    "dinov3": DINO | {"init_values": 0.1, "use_abs_pos_emb": False, "num_reg_tokens": 4, "use_fc_norm": False},
    "dinov3 with a gate": DINO
    | {"swiglu_mlp": True, "swiglu_align_to": 8, "qkv_bias": False, "use_abs_pos_emb": False},
    "perception encoder": ROPE
    | {"use_pre_transformer_norm": True, "use_post_transformer_norm": False, "use_fc_norm": False}
    | {"rope_grid_indexing": "xy", "rope_grid_offset": 1.0, "attn_type": "rope"},
}
MICRO = {"embed_dim": 48, "depth": 2, "num_heads": 3, "mlp_ratio": 2.0}


def timms(seed: int = 0, **arguments) -> nn.Module:
    """Build timm's ViT with the size of model=micro, without zero weights."""
    torch.manual_seed(seed)
    vit = timm.create_model("vit_tiny_patch16_224", **(MICRO | {"num_classes": 10} | arguments)).eval()
    with torch.no_grad():
        for name, p in vit.named_parameters():
            p.add_(0.1 * torch.randn_like(p)) if ".ls" not in name else p.uniform_(0.5, 1.5)
    return vit


def saved(vit: nn.Module, folder: Path) -> str:
    path = folder / "vit.safetensors"
    save_file({name: w.contiguous() for name, w in vit.state_dict().items()}, path)
    return str(path)


SIZES = [((16, 16), (4, 4)), ((16, 24), (4, 4)), ((16, 24), (4, 8))]


@pytest.mark.parametrize("embed", some(["conv", "linear"], "conv"))
@pytest.mark.parametrize(("img_size", "patch", "arm"), every([(*sizes, arm) for arm in ARMS for sizes in SIZES], 3))
def test_timms_logits_are_ours(build, tmp_path, embed, arm, img_size, patch):
    ours, theirs = ARMS[arm]
    vit = timms(img_size=img_size, patch_size=patch, **theirs)
    sizes = [f"data.img_size=[{img_size[0]},{img_size[1]}]", f"patch=[{patch[0]},{patch[1]}]"]
    net = build("model=micro", f"embed={embed}", *sizes, *ours).eval()
    assert fit(net, from_timm(vit.state_dict(), metadata_of(vit), net.layout.grid_size)) == []
    images = torch.randn(3, 3, *img_size)
    torch.testing.assert_close(net(images), vit(images), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("arguments", every(EVAS.values(), 3), ids=EVAS)
def test_evas_logits_are_ours_with_the_options_that_refusals_name(arguments):
    torch.manual_seed(0)
    sizes = {"img_size": (16, 24), "patch_size": (4, 4), "num_classes": 10}
    vit = timm_family.disturbed(Eva(**sizes, **MICRO, head_init_scale=0.0, **arguments))
    net, remarks, overrides = timm_family.loaded(vit)
    assert not remarks, overrides
    assert timm_family.difference(net, vit) < 1e-5


def test_a_folder_in_the_form_of_the_hub_is_loaded_by_all_that_its_config_says(build, tmp_path):
    kinds = {"act_layer": "gelu_tanh", "img_size": [16, 64], "patch_size": 4, "num_classes": 10}
    vit = timms(**kinds)
    timm.models.save_for_hf(vit, tmp_path, model_args=MICRO | kinds)
    sizes = ["model=micro", "data.img_size=[16,64]", "patch=4", *ONE]
    with pytest.raises(ValueError, match=r"use model\.act=gelu_tanh"):
        load(build(*sizes), f"local-dir:{tmp_path}")
    net = build(*sizes, "model.act=gelu_tanh").eval()
    assert load(net, f"local-dir:{tmp_path}") == f"starting from local-dir:{tmp_path}"
    images = torch.randn(2, 3, 16, 64)
    torch.testing.assert_close(net(images), vit(images), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_each_network_of_timms_family_is_loaded_exactly_or_refused_with_its_reason():
    """`python tests/timm_family.py` prints the counts."""
    rows = timm_family.table(timm_family.names())
    assert not [row for row in rows if row.verdict == "wrong"]
    assert not [row for row in rows if row.verdict == "refused" and timm_family.CURE.search(row.reason)]
    assert sum(row.tags for row in rows if row.verdict == "exact") > 0.6 * sum(row.tags for row in rows)


@pytest.mark.parametrize("embed", ["conv", "linear"])
@pytest.mark.parametrize("pos", ["learned", "none", "sincos", "sincos1d", "factorized", "fourier"])
@pytest.mark.parametrize("prefix", some(["0 mean", "1 cls", "1 mean", "5 cls", "5 mean"], "0 mean", "5 cls"))
def test_ours_exported_is_timms(build, tmp_path, embed, pos, prefix):
    number, pool = prefix.split()
    knobs = [f"model.num_prefix_tokens={number}", f"model.pool={pool}", f"embed={embed}", f"pos={pos}"]
    net = build("model=micro", "data.img_size=[16,24]", "patch=[4,8]", *knobs).eval()
    arguments, state = to_timm(net, img_size=(16, 24), num_classes=10)
    vit = timm.create_model(**arguments).eval()
    vit.load_state_dict(state, strict=True)
    if number == "1" and pos != "none":
        assert not vit.pos_embed[0, 0].any(), "the class token has no position of its own"
    images = torch.randn(3, 3, 16, 24)
    torch.testing.assert_close(vit(images), net(images), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("model", ["tiny", "small", "base", "large"])
def test_the_default_networks_have_a_name_in_timm(build, model):
    with torch.device("meta"):
        net = build(f"model={model}", "data=random", "patch=16", "pos=none", *ONE).to_empty(device="cpu")
    arguments, _ = to_timm(net, img_size=(224, 224), num_classes=1000)
    assert arguments == {"model_name": f"vit_{model}_patch16_224", "pos_embed": "none"}


@pytest.mark.parametrize(
    "options",
    [["model.act=gelu_tanh"], ["model.act=quick_gelu", "model.scale_attn_norm=true"], ["model.layer_scale=0.3"]],
)
@pytest.mark.parametrize("final", ["model.final_norm=tokens", "model.final_norm=none", "model.pool=map"])
def test_ours_of_other_kinds_exported_are_timms(build, tmp_path, options, final):
    net = build("model=micro", "data.img_size=16", "patch=4", *options, final).eval()
    arguments, state = to_timm(net, img_size=(16, 16), num_classes=10)
    vit = timm.create_model(**arguments).eval()
    vit.load_state_dict(state, strict=True)
    images = torch.randn(3, 3, 16, 16)
    torch.testing.assert_close(vit(images), net(images), rtol=1e-4, atol=1e-5)


def test_patch_and_grid_are_resampled_to_those_asked_for(build, tmp_path):
    vit = timms(img_size=32, patch_size=8)
    net = build("model=micro", "data.img_size=[32,48]", "patch=4", *ONE)
    said = load(net, saved(vit, tmp_path))
    assert "patch 8 resampled to 4" in said
    assert "4x4 patches resampled to 8x12" in said
    asked = timms(seed=1, img_size=(32, 48), patch_size=4)
    kernel = timm.layers.resample_patch_embed(vit.patch_embed.proj.weight, [4, 4])
    torch.testing.assert_close(net.embed.proj.weight, kernel)
    table = timm.layers.resample_abs_pos_embed(vit.pos_embed, [8, 12], [4, 4])
    asked.load_state_dict({**vit.state_dict(), "patch_embed.proj.weight": kernel, "pos_embed": table})
    images = torch.randn(2, 3, 32, 48)
    torch.testing.assert_close(net.eval()(images), asked(images), rtol=1e-4, atol=1e-5)


def test_a_distilled_network_brings_its_second_token_as_a_register(build, tmp_path):
    vit = timm.create_model(
        "deit_tiny_distilled_patch16_224", img_size=16, patch_size=4, num_classes=10, **MICRO
    ).eval()
    nn.init.normal_(vit.pos_embed)
    net = build("model=micro", "data.img_size=16", "patch=4", "model.num_prefix_tokens=2", "model.pool=cls").eval()
    assert "its second head is left out: its own logits are the mean of two" in load(net, saved(vit, tmp_path))
    images = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(net(images), vit.head(vit.forward_features(images)[:, 0]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("prefix", [1, 4])
@pytest.mark.parametrize("asked", [(3, 5), (2, 6), (2, 8), (4, 5), (4, 4)])
def test_a_table_is_read_as_a_square_before_it_is_read_as_the_grid_asked_for(build, tmp_path, prefix, asked):
    registers = {"reg_tokens": prefix - 1, "no_embed_class": True}
    vit = timms(img_size=16, patch_size=4, **registers)
    knobs = [f"model.num_prefix_tokens={prefix}", "model.pool=cls"]
    net = build("model=micro", f"data.img_size=[{4 * asked[0]},{4 * asked[1]}]", "patch=4", *knobs).eval()
    said = load(net, saved(vit, tmp_path))
    assert ("resampled to" in said) == (asked != (4, 4))
    assert ("are read" in said) == (math.prod(asked) in (16, 16 - prefix) and asked != (4, 4))
    table = timm.layers.resample_abs_pos_embed(vit.pos_embed, list(asked), [4, 4], num_prefix_tokens=0)
    torch.testing.assert_close(net.tokens.table.flatten(0, 1), table[0], rtol=1e-4, atol=1e-5)


def test_a_table_that_is_no_square_is_taken_for_the_grid_asked_for(build, tmp_path):
    vit = timms(img_size=(16, 32), patch_size=4)
    net = build("model=micro", "data.img_size=[16,32]", "patch=4", *ONE)
    assert "positions of 4x8 patches, as which its 32 places are read, are taken as they are" in load(
        net, saved(vit, tmp_path)
    )
    with pytest.raises(ValueError, match="no square"):
        grid_of(33, 1, None, (4, 7))


def test_knobs_that_a_file_does_not_say_are_said_to_be_assumed(build, tmp_path):
    vit = timms(img_size=16, patch_size=4, embed_dim=128, num_heads=4)
    net = build("model=micro", "model.embed_dim=128", "model.num_heads=4", "data.img_size=16", "patch=4", *ONE)
    said = load(net, saved(vit, tmp_path))
    assert "does not say, and these are assumed: model.num_heads=4 (most networks of this width have 2" in said
    assert "model.act=gelu, model.norm_eps=1e-06, no rotation of q and k" in said


def test_rotary_weights_in_a_file_are_never_read_as_a_plain_network_in_silence(build, tmp_path):
    vit = timm_family.disturbed(
        Eva(**MICRO, img_size=16, patch_size=4, num_classes=10, attn_type="rope", use_abs_pos_emb=False, **ROPE)
    )
    sizes = ["model=micro", "data.img_size=16", "patch=4", "model.num_prefix_tokens=1"]
    turned = ["pos=rope", "pos.rope.rotation.temperature=1e4", "pos.rope.rotation.span=16.0"]
    assert "no rotation of q and k" in load(build(*sizes, "pos=none"), saved(vit, tmp_path))
    net = build(*sizes, *turned).eval()
    assert "q and k turned by pos=rope" in load(net, saved(vit, tmp_path))
    images = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(net(images), vit(images), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("channels", "said"), [(1, "summed to one"), (2, "repeated for 2"), (5, "repeated for 5")])
@pytest.mark.parametrize("embed", ["conv", "linear"])
def test_kernels_are_adapted_to_other_channels_as_timm_does(build, tmp_path, channels, said, embed):
    vit = timms(img_size=16, patch_size=4)
    sizes = ["data=random", "data.num_classes=10", f"data.in_chans={channels}", "data.img_size=16", "patch=4"]
    net = build("model=micro", f"embed={embed}", *sizes, *ONE)
    assert f"the kernels of its 3 channels are {said}" in load(net, saved(vit, tmp_path))
    kernel = timm.models.adapt_input_conv(channels, vit.patch_embed.proj.weight)
    torch.testing.assert_close(net.embed.proj.weight.flatten(1), kernel.flatten(1))


@pytest.mark.parametrize("patch", [(8, 1), (1, 8), (16, 1), (2, 1), (1, 1)])
def test_kernels_are_resampled_to_patches_one_pixel_wide(build, tmp_path, patch):
    """Resampling commutes with transposition of kernel and patch."""
    vit = timms(img_size=16, patch_size=16)
    weights = []
    for size, turn in ((patch, False), (patch[::-1], True)):
        kernel = vit.patch_embed.proj.weight.mT if turn else vit.patch_embed.proj.weight
        state = vit.state_dict() | {"patch_embed.proj.weight": kernel.contiguous()}
        net = build("model=micro", "data.img_size=16", f"patch=[{size[0]},{size[1]}]", *ONE)
        fit(net, from_timm(state, metadata_of(vit), net.layout.grid_size))
        weights.append(net.embed.proj.weight.mT if turn else net.embed.proj.weight)
    torch.testing.assert_close(weights[0], weights[1])
    if patch[1] > 1:  # timm meets an error of torch for images of one column
        theirs = timm.layers.resample_patch_embed(vit.patch_embed.proj.weight, list(patch))
        torch.testing.assert_close(weights[0], theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("embed_dim", [48, 192, 384, 1152, 1408, 1536])
def test_a_ratio_is_spelt_so_that_the_width_comes_back(embed_dim):
    for hidden in (*range(embed_dim, 4 * embed_dim, 97), 2 * embed_dim, int(embed_dim * 8 / 3), 4304, 6144, 8960):
        assert int(float(spell_ratio(hidden / embed_dim, embed_dim)) * embed_dim) == hidden
    assert spell_ratio(4.0, embed_dim) == "4.0"


def test_a_head_for_other_classes_is_left_out_and_said(build, tmp_path):
    vit = timms(img_size=16, patch_size=4, num_classes=7)
    net = build("model=micro", "data.img_size=16", "patch=4", *ONE)
    fresh = net.head.weight.clone()
    assert "the head is new: 7 classes there, 10 here" in load(net, saved(vit, tmp_path))
    assert torch.equal(net.head.weight, fresh)
    torch.testing.assert_close(net.blocks[1].attn.qkv.weight, vit.blocks[1].attn.qkv.weight)


@pytest.mark.parametrize("kind", ["pth", "model", "state_dict"])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "_orig_mod.module."])
def test_pickled_state_dicts_load_as_well(build, tmp_path, kind, prefix):
    vit = timms(img_size=16, patch_size=4)
    path = tmp_path / "vit.pth"
    state = {prefix + name: w for name, w in vit.state_dict().items()}
    torch.save(state if kind == "pth" else {kind: state}, path)
    net = build("model=micro", "data.img_size=16", "patch=4", *ONE).eval()
    load(net, str(path))
    images = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(net(images), vit(images), rtol=1e-4, atol=1e-5)


def test_the_arguments_of_timms_training_tell_what_its_state_dict_does_not(build, tmp_path):
    arguments = MICRO | {"act_layer": "gelu_tanh", "patch_size": 4}
    vit = timms(img_size=(16, 64), **arguments)
    given = argparse.Namespace(
        model="vit_tiny_patch16_224", model_kwargs=arguments, img_size=(16, 64), num_classes=10, in_chans=None, gp=None
    )
    torch.save({"arch": given.model, "state_dict": vit.state_dict(), "args": given}, tmp_path / "last.pth.tar")
    sizes = ["model=micro", "data.img_size=[16,64]", "patch=4", *ONE]
    with pytest.raises(ValueError, match=r"was not trained with model\.act=gelu: use model\.act=gelu_tanh"):
        load(build(*sizes), str(tmp_path / "last.pth.tar"))
    net = build(*sizes, "model.act=gelu_tanh").eval()
    assert load(net, str(tmp_path / "last.pth.tar")) == f"starting from {tmp_path / 'last.pth.tar'}"
    images = torch.randn(2, 3, 16, 64)
    torch.testing.assert_close(net(images), vit(images), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["model.embed_dim=96", *ONE], r"model\.embed_dim=96: use model\.embed_dim=48"),
        (["model.depth=3", *ONE], r"model\.depth=3: use model\.depth=2"),
        (["model.depth=0", *ONE], r"model\.depth=0: use model\.depth=2"),
        (["model.mlp_ratio=4.0", *ONE], r"use model\.mlp_ratio=2"),
        ([], r"model\.num_prefix_tokens=0: use model\.num_prefix_tokens=1"),
        (["pos=sincos", *ONE], r"use pos=learned or pos=none"),
        (["pos=[learned,rope_mixed]", *ONE], r"use pos=learned or pos=none"),
        (["model.pre_norm=true", *ONE], r"model\.pre_norm=true: use model\.pre_norm=false"),
        (["model.act=swiglu", "model.scale_mlp_norm=true", *ONE], r"use model\.scale_mlp_norm=false"),
        (["embed=overlap", *ONE], r"use embed=conv or embed=linear"),
    ],
    ids=" ".join,
)
def test_what_does_not_match_is_named_with_what_would(build, tmp_path, overrides, said):
    vit = timms(img_size=16, patch_size=4)
    net = build("model=micro", "data.img_size=16", "patch=4", *overrides)
    with pytest.raises(ValueError, match=r"model\.init_from=.*" + said):
        load(net, saved(vit, tmp_path))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"qk_norm": True}, "has a norm of q and k"),
        ({"norm_layer": "rmsnorm"}, "has norms of another kind"),
        ({"embed_norm_layer": "layernorm"}, "has a norm in its patch embedding"),
    ],
    ids=str,
)
def test_another_kind_of_transformer_is_refused(build, tmp_path, arguments, said):
    net = build("model=micro", "data.img_size=16", "patch=4", *ONE)
    with pytest.raises(ValueError, match=said):
        load(net, saved(timms(img_size=16, patch_size=4, **arguments), tmp_path))


def test_a_name_or_file_that_is_none_is_refused(build, tmp_path):
    net = build("model=micro", "data.img_size=16", "patch=4", *ONE)
    (tmp_path / "text.pth").write_text("no weights")
    save_file({"some": torch.zeros(1)}, tmp_path / "some.safetensors")
    for given, said in {
        "vit_tiny_patch16_242": "did you mean vit_tiny_patch16_224",
        str(tmp_path / "none.safetensors"): "no such file",
        str(tmp_path / "text.pth"): "cannot be read",
        str(tmp_path / "some.safetensors"): "no Vision Transformer",
    }.items():
        with pytest.raises(ValueError, match=said):
            load(net, given)


NOT_TIMMS = ["embed=overlap", "pos=rope", "embed.pad=true patch=5", "model.act=swiglu", "model.pre_norm=true"]


@pytest.mark.parametrize("overrides", [*map(str.split, NOT_TIMMS), ["model.norm_eps=1e-5"]], ids=" ".join)
def test_what_timm_does_not_have_is_not_exported(build, overrides):
    net = build("model=micro", "data.img_size=16", "patch=4", *overrides)
    with pytest.raises(ValueError, match=r"timm.* exported"):
        to_timm(net, img_size=(16, 16), num_classes=10)


@pytest.mark.slow
def test_a_trained_network_is_the_start_of_another_at_other_sizes(build, tmp_path, micro, capsys):
    knobs = [*micro, "trainer=cpu", "logger=none", "epochs=1"]
    train_in(configure(*knobs), tmp_path / "one")
    init_from = f"model.init_from={tmp_path / 'one' / 'best.ckpt'}"
    train_in(configure(*knobs, "patch=8", "data.img_size=24", "embed=linear", init_from), tmp_path / "two")
    said = capsys.readouterr().out
    assert "starting from" in said
    assert "patch 4 resampled to 8; positions of 4x4 patches resampled to 3x3" in said
    same = build(*micro).eval()
    load(same, str(tmp_path / "one" / "best.ckpt"))
    trained = torch.load(tmp_path / "one" / "best.ckpt", weights_only=True)["state_dict"]
    torch.testing.assert_close(same.state_dict(), {n.removeprefix("net."): w for n, w in trained.items()})


@pytest.mark.parametrize(("there", "here"), [("0.5", "0.5"), ("0.5", "null"), ("null", "0.5")])
def test_a_network_with_scaled_branches_starts_one_without_and_the_other_way_round(build, tmp_path, micro, there, here):
    sizes = [*micro, "model.num_prefix_tokens=1"]
    train_in(configure(*sizes, "trainer=cpu", "logger=none", "epochs=1", f"model.layer_scale={there}"), tmp_path)
    theirs, ours = (build(*sizes, f"model.layer_scale={scale}").eval() for scale in (there, here))
    said = load(ours, str(tmp_path / "best.ckpt"))
    assert said.endswith("those of model.layer_scale start at 1") == ((there, here) == ("null", "0.5"))
    theirs.load_state_dict(net_state(read_checkpoint(tmp_path / "best.ckpt")))
    images = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(ours(images), theirs(images), rtol=1e-4, atol=1e-5)


def test_an_exported_file_is_as_open_to_others_as_the_umask_says(build, micro, tmp_path):
    before = os.umask(0o022)
    try:
        export(build(*micro), tmp_path / "vit.safetensors", img_size=(16, 16), num_classes=10)
    finally:
        os.umask(before)
    assert (tmp_path / "vit.safetensors").stat().st_mode & 0o777 == 0o644


@pytest.mark.slow
def test_the_command_prints_the_call_that_loads_the_file_it_wrote(command, build, micro, tmp_path):
    sizes = ["data.img_size=[16,24]", "patch=[4,8]", "model.num_prefix_tokens=1", "model.pool=cls"]
    assert command("train.py", *micro, *sizes, "trainer=cpu", "logger=none", "epochs=1").returncode == 0
    [best] = tmp_path.rglob("best.ckpt")
    done = command("scripts/export.py", f"ckpt={best}", "out=vit.safetensors")
    assert done.returncode == 0, done.stderr
    call = done.stdout.splitlines()[-1].replace("'vit.safetensors'", repr(str(tmp_path / "vit.safetensors")))
    vit = eval(call, {"timm": timm}).eval()
    net = build(*micro, *sizes).eval()
    assert load(net, str(tmp_path / "vit.safetensors")) == f"starting from {tmp_path / 'vit.safetensors'}"
    images = torch.randn(2, 3, 16, 24)
    torch.testing.assert_close(net(images), vit(images), rtol=1e-4, atol=1e-5)
    trained = torch.load(best, weights_only=True)["state_dict"]
    torch.testing.assert_close(net.head.weight, trained["net.head.weight"])


@pytest.mark.parametrize(
    ("script", "arguments", "said"),
    every(
        [
            ("train.py", "model.init_from=vit_tiny_patch16_224 model=tiny", ["vit_tiny_patch16_224", "file"]),
            ("scripts/export.py", "ckpt=none.ckpt out=a.safetensors", ["no such file"]),
            ("scripts/export.py", "ckpt=none.ckpt", ["out must be given"]),
            ("scripts/export.py", "ckpt=none.ckpt out=a.bin", ["out=a.safetensors"]),
        ],
        4,
    ),
)
def test_what_cannot_be_is_one_line(command, script, arguments, said):
    done = command(script, *arguments.split(), HF_HUB_OFFLINE="1")
    assert done.returncode == 2, done.stderr
    [line] = done.stderr.splitlines()
    for words in said:
        assert words in line
