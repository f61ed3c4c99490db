"""Networks that are no ViT: what each can and cannot see, and that the whole framework takes them."""

import json
from dataclasses import fields
from pathlib import Path

import pytest
import timm
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf, open_dict
from support import configure, cut_at, options, record, shuffle_patches, some, train_in
from timm.layers import convert_sync_batchnorm
from torch import Tensor, nn

from patchbench.commands.build import build_net, build_source, compile_blocks
from patchbench.commands.evaluate import evaluate
from patchbench.commands.explain import explain
from patchbench.commands.export import export
from patchbench.commands.reopen import Machine
from patchbench.config.errors import Refused
from patchbench.config.identity import compared, factors_of, reads
from patchbench.config.names import display_name as called
from patchbench.config.names import run_name
from patchbench.config.options import Compared
from patchbench.layout import Layout
from patchbench.nets.bag import Bag
from patchbench.nets.cnn import Cnn, dilations
from patchbench.nets.cost import cost
from patchbench.nets.memory import memory
from patchbench.nets.vit import ViT
from patchbench.weights.load import load


def reads_both(model: str) -> bool:
    cfg = configure(f"model={model}")
    return reads(cfg, "embed") and reads(cfg, "pos")


VITS = [model for model in options("model") if reads_both(model)]
OTHERS = [model for model in options("model") if not reads_both(model)]
ALL = pytest.mark.parametrize("model", OTHERS)
ONE = pytest.mark.parametrize("model", some(OTHERS, "resnet"))
SMALL = ["data.img_size=32", "patch=8"]
TINY = {"timm": ["model.name=test_resnet"]}  # where the default would take long
RUN = [*SMALL, "epochs=2", "batch_size=16", "limit_batches=3", "log_every=1", "trainer=cpu", "logger=csv"]


def run(out_dir: Path, model: str, *overrides: str) -> dict:
    cfg = configure(*RUN, "keep_checkpoints=all", f"model={model}", *TINY.get(model, []), *overrides)
    train_in(cfg, out_dir)
    return json.loads((out_dir / "run.json").read_text())


def takes_larger_images(model: str) -> bool:
    cfg = configure(*RUN, f"model={model}", *TINY.get(model, []))
    with torch.device("meta"):
        net = build_net(cfg, instantiate(cfg.data)).eval()
        try:
            net(torch.empty(1, 3, 48, 48))
        except Exception:
            return False
    return True


def test_the_networks_here_take_larger_images():
    assert all(takes_larger_images(model) for model in ("bag", "cnn", "resnet", "convnext"))


def weights(ckpt: Path) -> dict[str, Tensor]:
    return torch.load(ckpt, weights_only=True)["state_dict"]


# The framework takes them.


@pytest.mark.parametrize("model", VITS)
def test_what_reads_a_position_is_a_vit(model):
    assert configure(f"model={model}").model._target_ == f"{ViT.__module__}.{ViT.__name__}"


@ALL
def test_every_parameter_learns_on_images_that_are_not_square(build, model):
    torch.manual_seed(0)
    net = build(f"model={model}", "data.img_size=[32,48]", "patch=[8,16]")
    images = torch.randn(8, 3, 32, 48)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    for _ in range(2):  # timm starts the last norm of a branch at 0, so that all before it waits a step
        optimizer.zero_grad()
        logits = net(images)
        assert logits.shape == (8, 10)
        logits.square().sum().backward()
        optimizer.step()
    assert [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()] == []


@ALL
def test_cost_and_memory_are_counted_without_computing(model):
    cfg = configure(f"model={model}", "data.img_size=[32,48]", "patch=8")
    source = build_source(cfg)
    with torch.device("meta"):
        net = build_net(cfg, source)
    counted = cost(net, net.layout, 3, source.img_size)
    assert counted.params == sum(p.numel() for p in net.parameters())
    assert counted.macs > 0
    if reads(cfg, "embed"):
        assert (counted.grid_size, counted.num_tokens) == ((4, 6), 24)
    else:
        assert (counted.grid_size, counted.num_tokens) == (None, None)
    assert ("model/tokens" in counted.facts()) == (net.layout is not None)
    held = memory(net, net.layout, 3, source.img_size, bf16=False)
    assert held.weights >= 16 * counted.params
    assert held.per_image > 0
    assert held.bias == 0
    assert net.training
    assert all(p.is_meta for p in net.parameters())


def test_memory_is_counted_without_a_look_for_a_gpu_at_each_operation(build, monkeypatch):
    asked = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: asked.append(1) or False)
    assert memory(build("model=micro"), None, 3, (224, 224), bf16=True).per_image > 0
    assert len(asked) < 20


def test_multiply_accumulates_of_the_cnn_are_those_of_its_convolutions_and_its_head():
    net = Cnn(img_size=(24, 20), in_chans=3, num_classes=2, width=8, depth=3, field=9, norm="batch")
    assert cost(net, None, 3, (24, 20)).macs == 24 * 20 * 9 * 8 * (3 + 8 + 8) + 8 * 2


@ONE
def test_compiles_and_runs_in_bf16(build, model):
    import jaxtyping

    torch.compiler.reset()  # the limit of recompilations counts over tests
    jaxtyping.config.update("jaxtyping_disable", True)  # the run-time shape checks are not traceable
    try:
        torch.manual_seed(0)
        net = build(f"model={model}", *SMALL).eval()
        images = torch.randn(4, 3, 32, 32)
        with torch.no_grad():
            expected = net(images)
        compiled = torch.compile(net, backend="eager", fullgraph=True)
        with torch.autocast("cpu", torch.bfloat16):
            logits = compiled(images)
        assert (logits.float() - expected).norm() < 0.04 * expected.norm()
        logits.float().sum().backward()
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)


@pytest.mark.parametrize("residual", ["float32", "bfloat16"])
def test_the_residual_stream_of_a_bag_has_the_type_that_is_asked_for(build, residual):
    net, seen = build("model=bag", f"residual={residual}", *SMALL), []
    net.norm.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].dtype))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        net(torch.randn(4, 3, 32, 32))
    assert seen == [getattr(torch, residual)]


@ALL
def test_compiling_covers_all_but_what_stands_at_the_ends(build, model):
    net = build(f"model={model}", *SMALL)
    compile_blocks(net)
    inside = {id(p) for block in net.blocks for p in block.parameters()}
    rest = {name.split(".")[0] for name, p in net.named_parameters() if id(p) not in inside}
    assert rest <= {"embed", "norm", "head"}


@ONE
def test_a_run_is_cut_off_goes_on_and_is_tested_again_to_the_bit(tmp_path, model, monkeypatch):
    whole = run(tmp_path / "whole", model)
    with monkeypatch.context() as patch:
        cut_at(patch, 4, "signal")
        with pytest.raises(SystemExit):
            run(tmp_path / "cut", model)
    again = run(tmp_path / "cut", model)
    torch.testing.assert_close(
        weights(tmp_path / "cut" / "last.ckpt"), weights(tmp_path / "whole" / "last.ckpt"), rtol=0, atol=0
    )
    larger = ["eval.img_size=[48]", "eval.shift=scale"] if takes_larger_images(model) else []
    cfg = configure("trainer=cpu", "eval.shuffle=[patches]", "eval.move=[1]", *larger)
    asked = evaluate(tmp_path / "whole" / "best.ckpt", Machine(cfg.trainer, 0, 0.0), cfg.eval)
    assert asked["result"]["test/acc"] == again["result"]["test/acc"] == whole["result"]["test/acc"]
    assert {"test/shuffled_patches/acc", "test/moved1/same"} <= set(asked["result"])
    assert ("test/scale48/acc" in asked["result"]) == bool(larger)
    assert ("final/tokens_per_s" in whole["result"]) == reads(configure(f"model={model}"), "embed")


@ALL
def test_a_shared_batch_norm_takes_the_place_of_each_and_keeps_all_else(build, model):
    net = build(f"model={model}", *SMALL)
    state, images = {k: v.clone() for k, v in net.state_dict().items()}, torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        before = net.eval()(images)
        convert_sync_batchnorm(net)
        torch.testing.assert_close(net(images), before)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in net.modules())
    torch.testing.assert_close(dict(net.state_dict()), state, rtol=0, atol=0)


@pytest.mark.slow
def test_batch_norms_of_the_trunk_are_refused_on_several_cpus_and_remarked_on_in_micro_batches(tmp_path, capsys):
    for model, cure in {
        "resnet": r"use trainer\.devices=1$",
        "cnn": r"use trainer\.devices=1, or model\.norm=layer$",
    }.items():
        with pytest.raises(Refused, match=rf"trainer\.devices=2: this network has batch norms.*{cure}"):
            run(tmp_path / model, model, "trainer=ddp", *TWO, "embed=stem")
        run(tmp_path / model, model, "trainer.accumulate=2", "epochs=1")
        assert "batch norms see one micro-batch at a time" in capsys.readouterr().out
    run(tmp_path / "layer", "cnn", "model.norm=layer", "trainer.accumulate=2", "epochs=1")
    assert "batch norms" not in capsys.readouterr().out


@pytest.mark.slow
def test_micro_batches_that_are_tried_leave_the_averages_of_batch_norms_as_they_were(tmp_path):
    whole, tried = (run(tmp_path / how, "cnn", f"trainer.micro_batch={how}") for how in ("null", "auto"))
    assert whole["result"]["test/loss"] == tried["result"]["test/loss"]


TWO = ["trainer.devices=2", "trainer.accelerator=cpu"]


@pytest.mark.slow
@pytest.mark.parametrize("trainer", ["ddp", "fsdp"])
@pytest.mark.parametrize("model", ["cnn model.norm=layer", "bag", "convnext"])
def test_two_devices_learn_what_one_does(command, tmp_path, model, trainer):
    arguments = [*(a for a in RUN if not a.startswith(("trainer", "limit"))), f"model={model.split()[0]}"]
    arguments += [*model.split()[1:], "limit_batches=8", "data.test_size=64"]
    for folder, how in {"one": ["trainer=cpu"], "two": [f"trainer={trainer}", *TWO]}.items():
        done = command("train.py", *arguments, *how, f"runs_dir={folder}")
        assert done.returncode == 0, done.stderr
    alone, two = (record(tmp_path / folder)["result"] for folder in ("one", "two"))
    for figure in ("test/loss", "val/loss", "test/acc"):
        assert two[figure] == pytest.approx(alone[figure], rel=1e-3), figure


# What a run is, and what it is called.


@pytest.mark.parametrize("model", VITS)
def test_nothing_drops_out_of_what_a_vit_is(model):
    cfg = configure(f"model={model}", "embed=linear", "pos=rope")
    found = compared(cfg, cfg.hydra.runtime.choices)
    assert {path.partition(".")[0] for path in found} == {field.name for field in fields(Compared)}
    knobs = OmegaConf.to_container(cfg.model, resolve=False)
    read = {f"model.{knob}" for knob, value in knobs.items() if knob[0] != "_" and "${" not in str(value)}
    assert read <= set(found)
    assert all(reads(cfg, option) for option in ("embed", "patch", "pos"))


@ONE
def test_options_that_the_network_does_not_read_change_nothing(build, model):
    def start(*overrides: str) -> tuple[str, dict[str, Tensor]]:
        torch.manual_seed(0)
        arguments = [f"model={model}", "data.img_size=32", *overrides]
        return run_name(_root_=configure(*arguments)), build(*arguments).state_dict()

    name, state = start("patch=16")
    changes = {"embed": ["embed=linear"], "patch": ["patch=8"], "pos": ["pos=[rope,learned]"]}
    for option, change in changes.items():
        if reads(configure(f"model={model}"), option):
            assert start("patch=16", *change)[0] != name
        else:
            other, weights = start("patch=16", *change)
            assert other == name
            torch.testing.assert_close(weights, state, rtol=0, atol=0)
    if not reads(configure(f"model={model}"), "embed"):
        assert start("embed=hmlp", "patch=7", "pos=[rope,rope_mixed]")[0] == name, "what is not read need not fit"
    assert start("patch=16", "seed=1")[0] != name


def test_patch_is_read_by_way_of_the_embedding_alone():
    def read(*overrides: str) -> bool:
        return reads(configure(*overrides), "patch")

    assert [read("model=bag"), read("model=bag", "embed=overlap"), read("model=cnn")] == [True, False, False]


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        ("model=micro", "micro conv/16 learned digits s0"),
        ("model=micro embed=overlap pos=none", "micro overlap none digits s0"),
        ("model=resnet embed=linear", "resnet digits s0"),
        ("model=timm model.name=resnet34", "timm-resnet34 digits s0"),
        ("model=convnext data=quadrant seed=3", "convnext quadrant s3"),
        ("model=bag patch=4", "bag conv/4 digits s0"),
        ("model=bag embed=overlap", "bag overlap digits s0"),
    ],
)
def test_a_run_is_called_by_what_it_reads(overrides, name):
    cfg = configure(*overrides.split())
    levels = factors_of(cfg, cfg.hydra.runtime.choices)
    assert called(levels) == name
    if "resnet" in name:
        assert levels["embed"] is levels["patch"] is levels["pos"] is None


@ONE
def test_what_is_made_for_a_vit_refuses_others_in_a_line(build, tmp_path, model):
    run(tmp_path / "run", model, "epochs=1")
    ckpt = tmp_path / "run" / "best.ckpt"
    refusals = []
    for given in ([f"model={model}"], [f"ckpt={ckpt}"]):
        cfg = configure(*given, f"runs_dir={tmp_path}", command="explain")
        with open_dict(cfg):
            choices = dict(cfg.pop("hydra").runtime.choices)
        with pytest.raises(Refused, match=rf"^model={model}\S* reads no position.*use model=tiny") as refused:
            explain(cfg, choices, given)
        refusals.append(refused)
    with pytest.raises(Refused, match=rf"^ckpt=.*is of model={model}.*state_dict") as refused:
        export(ckpt, tmp_path / "out.safetensors", data_root=None)
    refusals.append(refused)
    with pytest.raises(ValueError, match=r"^model\.init_from=.*contains no Vision Transformer: use ") as refused:
        load(build("model=micro", *SMALL), str(ckpt))
    refusals.append(refused)
    assert not any("\n" in str(refused.value) for refused in refusals)
    assert "init_from" not in configure(f"model={model}").model, "Hydra refuses it by name"


# The CNN sees as far as it is told.

FIELDS = [(1, 3), (2, 5), (2, 9), (3, 7), (3, 13), (3, 27), (4, 9), (4, 21), (4, 49), (4, 81)]


def cnn(depth: int, field: int, norm: str = "batch", width: int = 4, img_size=(24, 24)) -> Cnn:
    return Cnn(img_size=img_size, in_chans=3, num_classes=2, width=width, depth=depth, field=field, norm=norm)


@pytest.mark.parametrize("norm", ["batch", "layer", "none"])
@pytest.mark.parametrize(("depth", "field"), FIELDS)
def test_a_place_sees_all_of_its_field_and_nothing_else(depth, field, norm):
    """The gradient of the middle place with respect to every pixel shows the receptive field."""
    side = field + 10
    net = cnn(depth, field, norm, img_size=(side, side)).double().eval()
    with torch.no_grad():  # all that counts adds up, and no ReLU is off
        for p in net.trunk.parameters():
            p.abs_()
            if p.ndim > 1:
                p.mul_(1 + torch.rand_like(p))
            elif norm == "layer":
                p.add_(torch.rand_like(p) + 1)
    images = torch.rand(1, 3, side, side, dtype=torch.float64, requires_grad=True)
    weigh = torch.rand(4, dtype=torch.float64)
    (net.trunk(images)[0, :, side // 2, side // 2] @ weigh).backward()
    seen = images.grad.abs().sum((0, 1)) > 0
    own = torch.zeros(side, side, dtype=torch.bool)
    low = side // 2 - field // 2
    own[low : low + field, low : low + field] = True
    assert net.field == field
    assert torch.equal(seen, own)


def test_the_field_is_all_that_dilation_changes():
    nets = []
    for field in (9, 25, 81):
        torch.manual_seed(0)
        nets.append(cnn(4, field))
    for net in nets[1:]:
        torch.testing.assert_close(net.state_dict(), nets[0].state_dict(), rtol=0, atol=0)
        assert cost(net, None, 3, (24, 24)) == cost(nets[0], None, 3, (24, 24))
    assert {tuple(net.trunk(torch.randn(1, 3, 20, 28)).shape) for net in nets} == {(1, 4, 20, 28)}


@pytest.mark.parametrize("depth", [1, 2, 3, 4, 5])
def test_every_field_between_the_least_and_the_most_is_reached_without_a_gap(depth):
    for field in range(1 + 2 * depth, 3**depth + 1, 2):
        steps, seen = dilations(field, depth), 1
        assert len(steps) == depth
        for step in steps:
            assert 1 <= step <= seen, "a larger one would leave pixels out"
            seen += 2 * step
        assert seen == field
    for field in (2 * depth, 2 * depth - 1, 3**depth + 2, 3**depth + 1):
        with pytest.raises(ValueError, match=rf"^field={field} .* from {1 + 2 * depth} to .*use field="):
            dilations(field, depth)


def test_the_cure_for_a_field_is_one():
    with pytest.raises(ValueError, match=r"^field=99 .*use field=81 or depth=5$"):
        dilations(99, 4)
    assert len(dilations(99, 5)) == 5
    with pytest.raises(ValueError, match=r"^field=10 .*use field=11$"):
        dilations(10, 4)
    with pytest.raises(ValueError, match=r"^norm=group is unknown: use batch, layer, none"):
        cnn(2, 5, "group")
    with pytest.raises(ValueError, match=r"^width=0"):
        cnn(2, 5, width=0)


def together(net: nn.Module, left: Tensor, right: Tensor, ground: Tensor) -> Tensor:
    """What two parts say together beyond what each says alone."""
    with torch.no_grad():
        both, one, other, none = (net(image) for image in (left + right - ground, left, right, ground))
    return (both - one - other + none).abs().max()


@pytest.mark.parametrize("norm", ["batch", "layer", "none"])
@pytest.mark.parametrize("field", [9, 15, 17, 19, 25])
def test_parts_further_apart_than_the_field_add_up_and_nothing_more(norm, field):
    """The reason why same_different is at chance: with a sum, "both are A" is no more than "A" said twice."""
    torch.manual_seed(0)
    net = cnn(4, field, norm, width=16).double().eval()
    ground = torch.randn(1, 3, 24, 24, dtype=torch.float64)
    left, right = ground.clone(), ground.clone()
    left[..., :4] = torch.randn(4)  # 16 pixels lie between the two: a place needs 18 to see some of either
    right[..., -4:] = torch.randn(4)
    assert (together(net, left, right, ground) > 1e-9) == (field >= 18)


# A bag knows no more than its tokens.


def bag(patch: int = 4) -> Bag:
    cfg = configure("model=bag", f"patch={patch}", "data=same_different")
    torch.manual_seed(0)
    return build_net(cfg, build_source(cfg)).double().eval()


def test_a_bag_adds_up_what_its_patches_say():
    net = bag()
    ground = torch.randn(1, 3, 24, 24, dtype=torch.float64)
    left, right = ground.clone(), ground.clone()
    left[..., :4, :4] += 1
    right[..., :4, 4:8] += 1
    assert together(net, left, right, ground) < 1e-12
    within = ground.clone()
    within[..., 3, 3] += 1
    assert together(net, left, within, ground) > 1e-6, "but not what lies inside of one"


def test_the_order_of_patches_is_invisible_to_a_bag():
    net, images = bag(), torch.randn(2, 3, 24, 24, dtype=torch.float64)
    torch.testing.assert_close(net(images), net(shuffle_patches(images, 4)))
    assert not torch.allclose(net(images), net(shuffle_patches(images, 2)))


def test_a_bag_is_the_vit_without_attention_but_for_where_its_norm_stands(build):
    net, vit = build("model=bag", *SMALL).eval(), build("model=micro", "pos=none", *SMALL).eval()
    assert net.layout == Layout(vit.layout.grid_size, vit.layout.embed_dim, 0)
    with torch.no_grad():
        for ours, theirs in zip(net.blocks, vit.blocks, strict=True):
            ours.mlp.load_state_dict(theirs.mlp.state_dict())
            theirs.attn.proj.weight.zero_()
            theirs.attn.proj.bias.zero_()
        net.embed.load_state_dict(vit.embed.state_dict())
        images = torch.randn(2, 3, 32, 32)
        seen = []
        vit.norm.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        net.norm.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].mean(1)))
        vit(images)
        net(images)
    torch.testing.assert_close(*seen)


# timm's networks are timm's.


@pytest.mark.parametrize(
    "name", ["resnet18", "convnext_atto", "mobilenetv3_small_050", "vit_tiny_patch16_224", "mixer_s32_224"]
)
def test_it_is_timms_network_with_timms_start(build, name):
    torch.manual_seed(0)
    net = build("model=timm", f"model.name={name}", "data=random", "data.img_size=64")
    sized = {"img_size": (64, 64)} if name.startswith(("vit", "mixer")) else {}
    torch.manual_seed(0)
    theirs = timm.create_model(name, num_classes=1000, **sized)
    torch.testing.assert_close(net.net.state_dict(), theirs.state_dict(), rtol=0, atol=0)
    images = torch.randn(2, 3, 64, 64)
    assert torch.equal(net.eval()(images), theirs.eval()(images))
    assert net.training is False
    spared = theirs.no_weight_decay() if hasattr(theirs, "no_weight_decay") else set()
    assert net.no_weight_decay() == {f"net.{parameter}" for parameter in spared}
    assert ("net.pos_embed" in net.no_weight_decay()) == name.startswith("vit")


def test_the_small_resnet_starts_in_the_size_of_the_image(build):
    for small, sides in {"true": [32, 16, 8, 4], "false": [8, 4, 2, 1]}.items():
        net = build("model=resnet", f"model.small={small}", "data.img_size=32")
        seen = []
        for stage in range(1, 5):
            part = getattr(net.net, f"layer{stage}")
            part.register_forward_hook(lambda *args, seen=seen: seen.append(args[2].shape[2]))
        net.eval()(torch.randn(1, 3, 32, 32))
        assert seen == sides


def test_options_of_a_family_are_passed_on(build):
    net = build("model=convnext", "data.img_size=32", "model.options.dims=[8,16,24,32]", "model.options.patch_size=4")
    assert [stage.blocks[0].conv_dw.in_channels for stage in net.net.stages] == [8, 16, 24, 32]
    assert net.net.stem[0].stride == (4, 4)
    dropped = build("model=timm", "model.options={drop_path_rate:0.5}", "data.img_size=32")
    assert dropped.net.layer4[-1].drop_path.drop_prob == 0.5


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["model.name=resnet19"], r"^model\.name=resnet19 is not a model of timm: did you mean resnet"),
        (
            ["model.options={no_such:1}"],
            r"^model\.options=\{'no_such': 1\} cannot be .*no_such.*use model\.options=null",
        ),
        (["model.options={pretrained:true}"], r"^model\.options=.*pretrained"),
        (
            ["model.name=convnext_atto", "model.small=true"],
            r"^model\.small=true is for ResNets.*use model\.small=false",
        ),
        (["model.name=inception_v4"], r"^model\.name=inception_v4 cannot take images of data\.img_size=32 .*larger"),
    ],
    ids=str,
)
def test_what_timm_cannot_build_is_refused_in_a_line(build, overrides, said):
    with pytest.raises(ValueError, match=said) as refused:
        build("model=timm", "data.img_size=32", *overrides)
    assert "\n" not in str(refused.value)


def test_a_size_that_the_network_cannot_take_is_refused_before_it_is_asked(tmp_path):
    swin = ["model.name=swin_tiny_patch4_window7_224", "model.options={depths:[1,1,1,1],embed_dim:24}"]
    with pytest.raises(Refused, match=r"^eval\.img_size=48 does not fit this network: "):
        run(tmp_path, "timm", *swin, "data.img_size=32", "eval.img_size=[48]", "eval.shift=scale")


# What they are there for.


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arm", "solves"),
    [
        ("model=micro pos=none", True),
        ("model=bag", False),
        ("model=cnn model.field=9", False),
        ("model=cnn model.field=25", True),
    ],
)
def test_only_who_relates_places_far_apart_tells_whether_two_glyphs_are_the_same(tmp_path, arm, solves):
    """They lie 20 pixels apart, left edge to left edge."""
    data = ["data=same_different", "data.img_size=[8,24]", "data.scene.noise=8.0"]
    knobs = ["patch=4", "epochs=6", "optim.lr=3e-3", "trainer=cpu", "logger=csv"]
    train_in(configure(*data, *arm.split(), *knobs), tmp_path)
    result = record(tmp_path)["result"]
    if solves:
        assert result["test/acc"] > 0.95
    else:
        assert result["test/acc"] == pytest.approx(0.5, abs=0.05), "chance, but which errors it makes is its choice"


@pytest.mark.slow
@pytest.mark.parametrize("model", ["resnet", "convnext"])
def test_a_small_cnn_of_timms_learns_digits(tmp_path, model):
    budget = ["data.img_size=32", "epochs=6", "optim.lr=3e-3", "trainer=cpu", "logger=csv"]
    train_in(configure(f"model={model}", *budget), tmp_path)
    assert record(tmp_path)["result"]["test/acc"] > 0.9
