"""Every optimizer of conf/optim, and the losses of training."""

import pytest
import torch
import torch.nn.functional as F
from support import NOISY, command_in, configure, cut_at, metrics, options, run, some, task_for, weights
from timm.loss import BinaryCrossEntropy

from patchbench.commands.build import build_net, build_source, check_options
from patchbench.commands.values import check_values
from patchbench.train.groups import parameter_groups
from patchbench.train.task import loss_of

OPTIMS = options("optim")


def network(*overrides: str) -> torch.nn.Module:
    cfg = configure("model=micro", "data.img_size=16", "patch=4", *overrides)
    return build_net(cfg, build_source(cfg))


def optimizer_of(net: torch.nn.Module, *overrides: str) -> torch.optim.Optimizer:
    task = task_for(net, 10, 4, *overrides)
    return task.optimizer(parameter_groups(net, muon="optim=muon" in overrides))


@pytest.mark.parametrize("optim", OPTIMS)
def test_norms_biases_and_positions_are_not_decayed_and_all_else_is(optim):
    net = network("model.num_prefix_tokens=5", "pos=[learned,relbias]", "model.layer_scale=0.1")
    names = {parameter: name for name, parameter in net.named_parameters()}
    groups = optimizer_of(net, f"optim={optim}").param_groups
    decayed = {names[p] for group in groups if group["weight_decay"] for p in group["params"]}
    assert sorted(names[p] for group in groups for p in group["params"]) == sorted(names.values())
    assert decayed == {name for p, name in names.items() if p.ndim > 1} - net.no_weight_decay()
    assert {"embed.proj.weight", "head.weight", "blocks.0.attn.qkv.weight"} < decayed


def test_muon_moves_the_matrices_of_blocks_and_adamw_all_else():
    net = network("model.num_prefix_tokens=5", "model.pool=map")
    optimizer = optimizer_of(net, "optim=muon")
    net(torch.randn(2, 3, 16, 16)).sum().backward()
    optimizer.step()
    by_muon = {name for name, p in net.named_parameters() if optimizer.state[p]["use_muon"]}
    assert by_muon == {name for name, p in net.blocks.named_parameters(prefix="blocks") if p.ndim == 2}


@pytest.mark.parametrize("optim", some(OPTIMS, "adamw", "muon"))
def test_it_moves_every_parameter_and_goes_on_to_the_bit(tmp_path, micro, monkeypatch, optim):
    arguments = [*micro, f"optim={optim}", NOISY, "model.layer_scale=0.1", "limit_batches=3"]
    run(tmp_path / "whole", *arguments)
    with monkeypatch.context() as patch:
        cut_at(patch, 4, "signal")
        with pytest.raises(SystemExit):
            run(tmp_path / "cut", *arguments)
    run(tmp_path / "cut", *arguments)
    for name in ("last.ckpt", "best.ckpt"):
        torch.testing.assert_close(weights(tmp_path / "whole", name), weights(tmp_path / "cut", name), rtol=0, atol=0)
    assert [name.lower() for name in metrics(tmp_path / "whole") if name.startswith("lr-")] == [f"lr-{optim}"]
    torch.manual_seed(0)
    start, end = network("model.layer_scale=0.1").state_dict(), weights(tmp_path / "whole")
    assert [name for name, weight in start.items() if weight.numel() and (weight == end[f"net.{name}"]).all()] == []


@pytest.mark.slow
@pytest.mark.parametrize("optim", OPTIMS)
@pytest.mark.parametrize("trainer", ["ddp", "fsdp"])
def test_two_devices_learn_what_one_does_and_go_on_from_its_checkpoint(tmp_path, micro, monkeypatch, optim, trainer):
    arguments = [*micro, f"optim={optim}", "model.num_prefix_tokens=1", "limit_batches=6", "epochs=1", "log_every=1"]
    run(tmp_path / "alone", *arguments)
    with monkeypatch.context() as patch:
        cut_at(patch, 3, "signal")
        with pytest.raises(SystemExit):
            run(tmp_path / "cut", *arguments)
    expected = metrics(tmp_path / "alone")["train/loss"]
    two = [f"trainer={trainer}", "trainer.devices=2", "trainer.accelerator=cpu", "logger=csv", "keep_checkpoints=all"]
    for start, ckpt in {"anew": "null", "resumed": tmp_path / "cut" / "last.ckpt"}.items():
        done = command_in(tmp_path, "train.py", *arguments, *two, f"runs_dir={start}", f"ckpt={ckpt}")
        assert done.returncode == 0, done.stderr
        [folder] = (tmp_path / start).iterdir()
        losses = metrics(folder)["train/loss"].dropna()
        assert losses.index.tolist() == ([4, 5, 6] if start == "resumed" else [1, 2, 3, 4, 5, 6])
        assert losses.tolist() == pytest.approx(expected[losses.index].tolist(), rel=1e-4)


LOGITS = 3 * torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([0, 1, 2, 3, 4, 0])
MIXED = torch.lerp(F.one_hot(LABELS.flip(0), 5).float(), F.one_hot(LABELS, 5).float(), 0.7)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_binary_loss_of_classes_is_timms(smoothing):
    expected = BinaryCrossEntropy(smoothing)(LOGITS, LABELS)
    torch.testing.assert_close(loss_of(LOGITS, LABELS, "bce", smoothing=smoothing, threshold=None), expected)


@pytest.mark.parametrize("threshold", [None, 0.0, 0.5])
def test_the_binary_loss_of_mixed_images_is_timms(threshold):
    expected = BinaryCrossEntropy(target_threshold=threshold)(LOGITS, MIXED)
    torch.testing.assert_close(loss_of(LOGITS, MIXED, "bce", smoothing=0.0, threshold=threshold), expected)


@pytest.mark.parametrize("loss", ["cross_entropy", "bce"])
def test_a_class_is_a_share_of_one_whatever_the_loss(loss):
    whole = F.one_hot(LABELS, 5).float()
    for smoothing in (0.0, 0.1):
        losses = [loss_of(LOGITS, each, loss, smoothing=smoothing, threshold=None) for each in (LABELS, whole)]
        torch.testing.assert_close(*losses)


def test_smoothed_labels_have_the_same_targets_in_both_losses():
    """Each loss is least where the probabilities of its classes are the targets."""
    targets = 0.9 * MIXED + 0.02
    for loss, logits in (("cross_entropy", targets.log()), ("bce", targets.logit())):
        logits = logits.clone().requires_grad_()
        loss_of(logits, MIXED, loss, smoothing=0.1, threshold=None).backward()
        torch.testing.assert_close(logits.grad, torch.zeros_like(logits), rtol=0, atol=1e-7)


def test_a_run_is_trained_on_the_binary_loss_and_judged_by_the_other(tmp_path, micro):
    rows = {}
    for loss in ("cross_entropy", "bce"):
        run(tmp_path / loss, *micro, f"optim.loss={loss}", "augment.mix.mixup=0.8", "epochs=1", "optim.lr=1e-9")
        rows[loss] = metrics(tmp_path / loss)
    for name, same in {"train/loss": False, "val/loss": True, "train/acc": True}.items():
        one, other = (rows[loss][name].dropna().tolist() for loss in rows)
        assert (other == pytest.approx(one, rel=1e-4)) == same, name


def test_a_threshold_that_nothing_reads_is_refused():
    with pytest.raises(ValueError, match=r"^optim\.target_threshold=0\.2 is read with optim\.loss=bce alone"):
        check_options(configure("optim.target_threshold=0.2", "trainer=cpu"))
    with pytest.raises(ValueError, match=r"^optim\.target_threshold=2 must be between 0 and 1$"):
        check_options(configure("optim.target_threshold=2", "optim.loss=bce", "trainer=cpu"))
    with pytest.raises(ValueError, match=r"^optim\.loss=bca must be cross_entropy or bce"):
        check_values(configure("optim.loss=bca"))
