"""The network against timm's, weight for weight."""

import pytest
import timm
import torch
from timm.models.eva import EvaBlock
from timm.models.vision_transformer import Block

from patchbench.nets.cost import cost

CLASS_TOKEN = ["model.num_prefix_tokens=1", "model.pool=cls", "data=random", "data.img_size=224", "patch=16"]


def copy_from_timm(net: torch.nn.Module, vit: torch.nn.Module) -> None:
    """timm's class token has a position of its own, which folds into the token."""
    state = {name: w for name, w in vit.state_dict().items() if name.split(".")[0] in ("blocks", "norm", "head")}
    position = vit.pos_embed.unflatten(1, (1, -1))[0, 0]
    state["prefix"] = vit.cls_token[0] + position[:1]
    state["tokens.table"] = position[1:].unflatten(0, net.embed.grid_size)
    weight = vit.patch_embed.proj.weight
    state["embed.proj.weight"] = weight if net.embed.proj.weight.ndim == 4 else weight.flatten(1)
    state["embed.proj.bias"] = vit.patch_embed.proj.bias
    net.load_state_dict(state)


@pytest.mark.parametrize("embed", ["conv", "linear"])
@pytest.mark.parametrize(("model", "img_size", "patch"), [("tiny", "[96,160]", 16), ("tiny", "64", 8)])
def test_logits_equal_timms(build, embed, model, img_size, patch):
    net = build(*CLASS_TOKEN, f"embed={embed}", f"model={model}", f"data.img_size={img_size}", f"patch={patch}").eval()
    h, w = eval(img_size) if "[" in img_size else (int(img_size),) * 2
    vit = timm.create_model(f"vit_{model}_patch16_224", img_size=(h, w), patch_size=patch).eval()
    copy_from_timm(net, vit)
    images = torch.randn(2, 3, h, w)
    torch.testing.assert_close(net(images), vit(images), rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def vit_base() -> torch.nn.Module:
    return timm.create_model("vit_base_patch16_224").eval()


@pytest.mark.parametrize("embed", ["conv", "linear"])
def test_logits_equal_timms_vit_base_patch16_224(build, vit_base, embed):
    with torch.device("meta"):
        net = build(*CLASS_TOKEN, "model=base", f"embed={embed}").eval()
    copy_from_timm(net.to_empty(device="cpu"), vit_base)
    images = torch.randn(1, 3, 224, 224)
    torch.testing.assert_close(net(images), vit_base(images), rtol=1e-4, atol=1e-5)


def test_average_pooling_equals_timms(build):
    net = build("model=tiny", "data=random", "data.img_size=64").eval()
    vit = timm.create_model(
        "vit_tiny_patch16_224", img_size=64, global_pool="avg", class_token=False, num_classes=1000
    ).eval()
    state = {name.replace("fc_norm", "norm"): w for name, w in vit.state_dict().items()}
    state["prefix"] = net.prefix
    state["tokens.table"] = state.pop("pos_embed")[0].unflatten(0, (4, 4))
    state = {name.replace("patch_embed", "embed"): w for name, w in state.items()}
    net.load_state_dict(state)
    images = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(net(images), vit(images), rtol=1e-4, atol=1e-5)


def test_block_without_position_is_the_plain_vit_block():
    plain, ours = Block(64, 4, qkv_bias=True).eval(), EvaBlock(64, 4, attn_type="rope", num_prefix_tokens=0).eval()
    ours.load_state_dict(plain.state_dict())
    x = torch.randn(2, 17, 64)
    assert torch.equal(plain(x), ours(x))


@pytest.mark.parametrize(
    ("model", "params", "gmacs"),
    [
        ("tiny", 5_717_416, 1.2537),
        ("small", 22_050_664, 4.5989),
        ("base", 86_567_656, 17.5638),
        ("large", 304_326_632, 61.5547),
    ],
)
def test_parameters_and_macs_are_timms(build, model, params, gmacs):
    with torch.device("meta"):
        net = build(*CLASS_TOKEN, f"model={model}")
    counted = cost(net, net.layout, 3, (224, 224))
    assert counted.params == params - net.layout.embed_dim  # the class token's position is folded into the token
    assert counted.num_tokens == 197
    assert counted.macs / 1e9 == pytest.approx(gmacs, abs=6e-5)


def test_pooling_by_attention_costs_its_projections_and_its_mlp(build):
    mean, attending = (
        build("model=micro", "patch=4", "data.img_size=16", pool) for pool in ("model.pool=mean", "model.pool=map")
    )
    tokens, width = 16, mean.layout.embed_dim
    hidden = attending.attn_pool.mlp.fc1.out_features
    more = width * width * (1 + 2 * tokens + 1) + 2 * tokens * width + 2 * width * hidden
    macs = [cost(net, net.layout, 3, (16, 16)).macs for net in (mean, attending)]
    assert macs[1] - macs[0] == more
    assert all(weight.requires_grad for weight in attending.parameters())


def test_scales_of_branches_are_counted_and_at_one_they_change_nothing(build):
    small = ["model=micro", "patch=4", "data.img_size=16"]
    plain, scaled = (build(*small, f"model.layer_scale={scale}").eval() for scale in ("null", "1e-5"))
    counted = [cost(net, net.layout, 3, (16, 16)) for net in (plain, scaled)]
    assert counted[1].params - counted[0].params == 2 * 2 * 48, "two branches of two blocks, a number for each channel"
    assert counted[1].macs == counted[0].macs, "as of norms, of which no product is a matrix's"
    names = [name for name in scaled.state_dict() if name not in plain.state_dict()]
    assert names == [f"blocks.{i}.gamma_{n}" for i in (0, 1) for n in (1, 2)]
    assert all((scaled.get_parameter(name) == 1e-5).all() for name in names)
    images = torch.randn(2, 3, 16, 16)
    state = plain.state_dict() | {name: torch.ones(48) for name in names}
    scaled.load_state_dict(state)
    assert torch.equal(scaled(images), plain(images))
    for name in names:  # branches that count for nothing
        state[name] = torch.zeros(48)
    scaled.load_state_dict(state)
    tokens = plain.tokens(plain.embed(images)).flatten(1, 2)
    torch.testing.assert_close(scaled(images), plain.head(plain.norm(tokens.mean(1))))


@pytest.mark.parametrize("residual", ["float32", "bfloat16"])
def test_scales_of_branches_leave_the_type_of_the_residual_stream(build, residual):
    net = build("model=micro", "patch=4", "data.img_size=16", "model.layer_scale=0.1", f"residual={residual}")
    seen = []
    net.blocks[1].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].dtype))
    with torch.autocast("cpu", torch.bfloat16):
        net(torch.randn(2, 3, 16, 16))
    assert seen == [getattr(torch, residual)]


def test_weights_decay_and_nothing_else(build):
    net = build("model=micro", "pos=[learned,rope]", "model.num_prefix_tokens=2")
    spared = net.no_weight_decay()
    decayed = {name for name, p in net.named_parameters() if p.ndim > 1 and name not in spared}
    assert spared == {"prefix", "tokens.table"}
    assert {name.rpartition(".")[2] for name in decayed} == {"weight"}
    assert "embed.proj.weight" in decayed


@pytest.mark.parametrize(
    "overrides",
    [
        ["model.pool=cls"],
        ["model.pool=max"],
        ["model.num_heads=5"],
        ["model.embed_dim=6", "model.num_heads=1", "pos=sincos"],
        ["model.embed_dim=18", "model.num_heads=3", "pos=rope"],
        ["model.embed_dim=18", "model.num_heads=3", "pos=rope_mixed"],
        ["model.embed_dim=9", "model.num_heads=3", "pos=sincos1d"],
        ["model.embed_dim=9", "model.num_heads=3", "pos=factorized", "pos.factorized.tokens.combine=concat"],
    ],
    ids=" ".join,
)
def test_refuses_what_cannot_be(build, overrides):
    with pytest.raises(ValueError, match=r"model\.\w+=.* use "):
        build("model=micro", *overrides)


@pytest.mark.parametrize(
    "overrides",
    [
        ["pos=factorized", "pos.factorized.tokens.combine=mul"],
        ["pos=fourier", "pos.fourier.tokens.num_features=7"],
        ["pos=peg", "pos.peg.between.padding=reflect"],
        ["pos=peg", "pos.peg.between.kernel_size=4"],
        ["pos=peg", "pos.peg.between.padding=circular", "pos.peg.between.kernel_size=11", "data.img_size=64"],
        ["pos=peg", "pos.peg.after=[2]"],
        ["pos=peg", "pos.peg.after=[0,0]"],
    ],
    ids=" ".join,
)
def test_refuses_a_scheme_that_cannot_be(build, overrides):
    with pytest.raises(ValueError, match=r"^pos\.\w+\.\S+=.* use .*$") as refused:
        build("model=micro", *overrides)
    assert "\n" not in str(refused.value)
