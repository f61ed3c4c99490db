"""A part of a network that is not trained stays as it starts, and all else is trained."""

from contextlib import nullcontext

import pytest
import torch
from support import NOISY, command_in, configure, cut_at, options, run, some, train_in, weights

from patchbench.commands.build import build_net, build_source, check_options
from patchbench.commands.draft import draft
from patchbench.config.errors import Refused
from patchbench.nets.freeze import PARTS
from patchbench.nets.memory import memory
from patchbench.train.groups import parameter_groups

PLACES = "pos=[learned,rope_mixed,relbias,peg]"
FROZEN = {"trunk": {"blocks", "norm", "norm_pre", "prefix"}, "embed": {"embed"}}  # first words of names


@pytest.mark.parametrize("part", PARTS)
def test_a_part_and_nothing_else_is_no_part_of_the_optimizer(build, part):
    kinds = [PLACES, "model.num_prefix_tokens=1", "model.pre_norm=true", "model.layer_scale=0.1"]
    net = build("model=micro", *kinds, f"freeze={part}")
    words = {name.split(".")[0] for name, p in net.named_parameters() if not p.requires_grad}
    assert words == FROZEN[part]
    assert all(p.requires_grad == (name.split(".")[0] not in FROZEN[part]) for name, p in net.named_parameters())
    trained = {p for group in parameter_groups(net, muon=False) for p in group["params"]}
    assert trained == {p for p in net.parameters() if p.requires_grad}


@pytest.mark.parametrize("part", PARTS)
def test_it_stays_as_it_starts_and_the_rest_moves_and_goes_on_to_the_bit(tmp_path, micro, monkeypatch, capsys, part):
    pretrained, arguments = tmp_path / "first" / "best.ckpt", [*micro, "limit_batches=3", "model.num_prefix_tokens=1"]
    run(tmp_path / "first", *arguments, "seed=1", "epochs=1")
    start = weights(tmp_path / "first", "best.ckpt")
    arguments += [f"freeze={part}", f"model.init_from={pretrained}", NOISY]
    capsys.readouterr()
    run(tmp_path / "whole", *arguments)
    net = build_of(*arguments)
    still, total = (sum(p.numel() for p in net.parameters() if every or not p.requires_grad) for every in (0, 1))
    assert f"freeze={part}: {still:,} of {total:,} parameters are not trained" in capsys.readouterr().out
    end = weights(tmp_path / "whole")
    for name, parameter in net.named_parameters():
        assert torch.equal(start[f"net.{name}"], end[f"net.{name}"]) == (not parameter.requires_grad), name
    with monkeypatch.context() as patch:
        cut_at(patch, 4, "signal")
        with pytest.raises(SystemExit):
            run(tmp_path / "cut", *arguments)
    run(tmp_path / "cut", *arguments)
    torch.testing.assert_close(weights(tmp_path / "cut"), end, rtol=0, atol=0)


def build_of(*overrides: str) -> torch.nn.Module:
    cfg = configure(*overrides)
    return build_net(cfg, build_source(cfg))


def test_batch_norms_of_a_frozen_embedding_keep_their_averages(tmp_path, micro):
    run(tmp_path, *micro, "embed=hybrid", "data.img_size=32", "freeze=embed", "epochs=1", "limit_batches=2")
    torch.manual_seed(0)
    start = build_of(*micro, "embed=hybrid", "data.img_size=32").embed.state_dict()
    assert any("running_mean" in name for name in start)
    end = weights(tmp_path)
    assert [name for name, value in start.items() if not torch.equal(value, end[f"net.embed.{name}"])] == []


NOTHING_LEFT = {("trunk", "timm"), ("trunk", "resnet"), ("trunk", "convnext")}
NOTHING_THERE = {("embed", model) for model in ("timm", "resnet", "convnext", "cnn")}


@pytest.mark.parametrize("model", some(options("model"), "cnn", "micro", "resnet"))
def test_every_network_has_a_part_to_freeze_or_says_that_it_has_none(build, model):
    for part in PARTS:
        refused = (part, model) in NOTHING_LEFT | NOTHING_THERE
        said = pytest.raises(ValueError, match=rf"^freeze={part}: this network .*: use freeze=null$")
        with torch.device("meta"), said if refused else nullcontext():
            net = build(f"model={model}", "data.img_size=32", "patch=4", f"freeze={part}")
            assert {p.requires_grad for p in net.parameters() if p.numel()} == {True, False}


@pytest.mark.slow
def test_memory_holds_no_gradients_and_no_averages_of_what_is_not_trained():
    held = {part: draft(configure("model=tiny", f"freeze={part}")) for part in ("null", "trunk")}
    size = {part: sum(p.numel() * p.element_size() for p in each.net.parameters()) for part, each in held.items()}
    taken = {part: memory(each.net, each.net.layout, 3, (64, 64), bf16=False) for part, each in held.items()}
    frozen = sum(p.numel() * p.element_size() for p in held["trunk"].net.parameters() if not p.requires_grad)
    assert size["null"] == size["trunk"]
    assert taken["null"].weights - taken["trunk"].weights == 3 * frozen
    assert taken["trunk"].per_image < taken["null"].per_image


def test_what_cannot_be_frozen_is_refused_in_a_line(tmp_path, micro):
    with pytest.raises(ValueError, match=r"^freeze=head is unknown: use trunk or embed or null$"):
        check_options(configure("freeze=head", "trainer=cpu"))
    with pytest.raises(Refused, match=r"^freeze=embed: this network learns nothing in its embed: use freeze=null$"):
        train_in(configure(*micro, "model=cnn", "freeze=embed", "trainer=cpu", "logger=none"), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("trainer", ["ddp", "fsdp"])
@pytest.mark.parametrize("part", PARTS)
def test_two_devices_leave_it_as_it_starts(tmp_path, micro, trainer, part):
    arguments = [*micro, f"freeze={part}", "epochs=1", "limit_batches=3", "keep_checkpoints=all"]
    run(tmp_path / "alone", *arguments)
    two = [f"trainer={trainer}", "trainer.devices=2", "trainer.accelerator=cpu", "logger=none", "runs_dir=two"]
    done = command_in(tmp_path, "train.py", *arguments, *two)
    assert done.returncode == 0, done.stderr
    [folder] = (tmp_path / "two").iterdir()
    torch.testing.assert_close(weights(folder), weights(tmp_path / "alone"), rtol=1e-3, atol=1e-4)
    torch.manual_seed(0)
    for name, parameter in build_of(*arguments).named_parameters():
        if not parameter.requires_grad:
            assert torch.equal(weights(folder)[f"net.{name}"], parameter), name
