"""Weights in from timm and out to it: the same logits, and one line where that cannot be."""

import os
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from support import configure, train_in
from torch import nn

from patchbench.weights.export import export, to_timm
from patchbench.weights.load import load

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
    "no position": ([*ONE, "pos=none"], {"pos_embed": "none"}),
}
MICRO = {"embed_dim": 48, "depth": 2, "num_heads": 3, "mlp_ratio": 2.0}


def timms(seed: int = 0, **arguments) -> nn.Module:
    """timm's ViT of the size of model=micro, nothing in it zero."""
    torch.manual_seed(seed)
    vit = timm.create_model("vit_tiny_patch16_224", **(MICRO | {"num_classes": 10} | arguments)).eval()
    with torch.no_grad():
        for name, p in vit.named_parameters():
            p.add_(0.1 * torch.randn_like(p)) if "ls" not in name else p.uniform_(0.5, 1.5)
    return vit


def saved(vit: nn.Module, folder: Path) -> str:
    path = folder / "vit.safetensors"
    save_file({name: w.contiguous() for name, w in vit.state_dict().items()}, path)
    return str(path)


@pytest.mark.parametrize("embed", ["conv", "linear"])
@pytest.mark.parametrize("arm", ARMS)
@pytest.mark.parametrize(("img_size", "patch"), [((16, 16), (4, 4)), ((16, 24), (4, 4)), ((16, 24), (4, 8))])
def test_timms_logits_are_ours(build, tmp_path, embed, arm, img_size, patch):
    ours, theirs = ARMS[arm]
    vit = timms(img_size=img_size, patch_size=patch, **theirs)
    sizes = [f"data.img_size=[{img_size[0]},{img_size[1]}]", f"patch=[{patch[0]},{patch[1]}]"]
    net = build("model=micro", f"embed={embed}", *sizes, *ours).eval()
    said = load(net, saved(vit, tmp_path))
    assert said == f"starting from {tmp_path / 'vit.safetensors'}" or arm == "mean beside a class token"
    images = torch.randn(3, 3, *img_size)
    torch.testing.assert_close(net(images), vit(images), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("embed", ["conv", "linear"])
@pytest.mark.parametrize("pos", ["learned", "none", "sincos", "sincos1d", "factorized", "fourier"])
@pytest.mark.parametrize("prefix", ["0 mean", "1 cls", "1 mean", "5 cls", "5 mean"])
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
    load(net, saved(vit, tmp_path))
    images = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(net(images), vit.head(vit.forward_features(images)[:, 0]), rtol=1e-4, atol=1e-5)


def test_a_head_for_other_classes_is_left_out_and_said(build, tmp_path):
    vit = timms(img_size=16, patch_size=4, num_classes=7)
    net = build("model=micro", "data.img_size=16", "patch=4", *ONE)
    fresh = net.head.weight.clone()
    assert "the head is new: 7 classes there, 10 here" in load(net, saved(vit, tmp_path))
    assert torch.equal(net.head.weight, fresh)
    torch.testing.assert_close(net.blocks[1].attn.qkv.weight, vit.blocks[1].attn.qkv.weight)


@pytest.mark.parametrize("kind", ["pth", "model", "state_dict"])
def test_pickled_state_dicts_load_as_well(build, tmp_path, kind):
    vit = timms(img_size=16, patch_size=4)
    path = tmp_path / "vit.pth"
    torch.save(vit.state_dict() if kind == "pth" else {kind: vit.state_dict()}, path)
    net = build("model=micro", "data.img_size=16", "patch=4", *ONE).eval()
    load(net, str(path))
    images = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(net(images), vit(images), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["model.embed_dim=96", *ONE], r"model\.embed_dim=96: use model\.embed_dim=48"),
        (["model.depth=3", *ONE], r"model\.depth=3: use model\.depth=2"),
        (["model.mlp_ratio=4.0", *ONE], r"use model\.mlp_ratio=2"),
        ([], r"model\.num_prefix_tokens=0: use model\.num_prefix_tokens=1"),
        (["pos=sincos", *ONE], r"use pos=learned or pos=none"),
        (["pos=[learned,rope]", *ONE], r"use pos=learned or pos=none"),
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
        ({"qk_norm": True}, "q_norm"),
        ({"pre_norm": True}, "norm_pre"),
        ({"qkv_bias": False}, "qkv.bias is only here"),
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


@pytest.mark.parametrize("overrides", [["embed=overlap"], ["pos=rope"], ["embed.pad=true", "patch=5"]], ids=" ".join)
def test_what_timm_does_not_have_is_not_exported(build, overrides):
    net = build("model=micro", "data.img_size=16", "patch=4", *overrides)
    with pytest.raises(ValueError, match=r"timm.* exported"):
        to_timm(net, img_size=(16, 16), num_classes=10)


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


def test_an_exported_file_is_as_open_to_others_as_the_umask_says(build, micro, tmp_path):
    before = os.umask(0o022)
    try:
        export(build(*micro), tmp_path / "vit.safetensors", img_size=(16, 16), num_classes=10)
    finally:
        os.umask(before)
    assert (tmp_path / "vit.safetensors").stat().st_mode & 0o777 == 0o644


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
    [
        ("train.py", "model.init_from=vit_tiny_patch16_224 model=tiny", ["vit_tiny_patch16_224", "file"]),
        ("scripts/export.py", "ckpt=none.ckpt out=a.safetensors", ["no such file"]),
        ("scripts/export.py", "ckpt=none.ckpt", ["out must be given"]),
        ("scripts/export.py", "ckpt=none.ckpt out=a.bin", ["out=a.safetensors"]),
    ],
)
def test_what_cannot_be_is_one_line(command, script, arguments, said):
    done = command(script, *arguments.split(), HF_HUB_OFFLINE="1")
    assert done.returncode == 2, done.stderr
    [line] = done.stderr.splitlines()
    for words in said:
        assert words in line
