"""Gradients and losses that are not finite never reach weights, checkpoints or records."""

import itertools
import json
import signal

import pytest
import pytorch_lightning as pl
import torch
from support import command_in, configure, metrics, options, poison, run, some, weights
from torch import nn

from patchbench.commands.build import check_options
from patchbench.config.errors import CellFailed
from patchbench.runs.records import status_from_log
from patchbench.track.finite import Diverged, FiniteSteps, check_losses
from patchbench.train.checkpoint import read_checkpoint

FUSED = "optim.optimizer.fused"


def finite(state: dict) -> bool:
    return all(value.isfinite().all() for value in state.values() if value.is_floating_point())


@pytest.mark.parametrize("fused", ["true", "false"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_run_stops_before_the_step_and_keeps_the_last_good_checkpoint(
    tmp_path, micro, monkeypatch, capsys, fused, value
):
    poison(monkeypatch, 5, value=value)
    with pytest.raises(CellFailed):
        run(tmp_path, *micro, f"{FUSED}={fused}")
    error = capsys.readouterr().err
    assert f"diverged at step 6 (epoch 2, batch 2): the norm of its gradient is {value}" in error
    assert "Traceback" not in error
    assert not (tmp_path / "run.json").exists()
    assert finite(weights(tmp_path))


@pytest.mark.parametrize("step", range(4, 8))
def test_a_signal_between_a_bad_step_and_its_row_saves_nothing_of_it(tmp_path, micro, monkeypatch, step):
    poison(monkeypatch, 4)
    original = pl.LightningModule.on_train_batch_end

    def on_train_batch_end(self, *args):
        if self.trainer.global_step == step + 1:
            signal.raise_signal(signal.SIGTERM)
        original(self, *args)

    monkeypatch.setattr(pl.LightningModule, "on_train_batch_end", on_train_batch_end)
    with pytest.raises(CellFailed):
        run(tmp_path, *micro, "log_every=100")
    assert read_checkpoint(tmp_path / "last.ckpt")["global_step"] == 4
    assert finite(weights(tmp_path))


@pytest.mark.parametrize("epochs", [1, 2])
def test_a_bad_last_step_leaves_no_record(tmp_path, micro, monkeypatch, epochs):
    poison(monkeypatch, 4 * epochs - 1)
    with pytest.raises(CellFailed):
        run(tmp_path, *micro, f"epochs={epochs}", "log_every=100")
    assert not (tmp_path / "run.json").exists()
    assert (tmp_path / "last.ckpt").exists() == (epochs == 2)


def test_weights_that_overflow_at_a_finite_gradient_leave_no_checkpoint(tmp_path, micro, capsys):
    with pytest.raises(CellFailed):
        run(tmp_path / "run", *micro, "optim.lr=1e30", "optim.warmup=0.0", "limit_batches=1")
    assert "val/loss is nan after epoch 1" in capsys.readouterr().err
    assert not {"run.json", "best.ckpt", "last.ckpt"} & {path.name for path in tmp_path.rglob("*")}


@pytest.mark.parametrize(
    "optim", some([*options("optim"), f"adamw {FUSED}=false", f"sgd {FUSED}=false"], "adamw", "muon")
)
def test_skip_leaves_out_the_bad_steps_alone_and_counts_them(tmp_path, micro, monkeypatch, optim):
    seen = []
    original = pl.LightningModule.on_train_batch_end

    def on_train_batch_end(self, *args):
        seen.append([parameter.detach().clone() for parameter in self.parameters()])
        original(self, *args)

    monkeypatch.setattr(pl.LightningModule, "on_train_batch_end", on_train_batch_end)
    poison(monkeypatch, 2, 6)
    done = run(tmp_path, *micro, *f"optim={optim}".split(), "optim.nonfinite=skip", "log_every=4")
    moved = [any((a != b).any() for a, b in zip(*pair, strict=True)) for pair in itertools.pairwise(seen)]
    assert [step + 1 for step, moves in enumerate(moved) if not moves] == [2, 6]
    assert done["result"]["final/skipped_steps"] == 2
    rows = metrics(tmp_path)
    assert rows["train/skipped_steps"].dropna().tolist() == [1, 2, 2]
    assert rows[["train/loss", "train/grad_norm"]].dropna().map(lambda x: x < 100).all(axis=None)
    json.dumps(done, allow_nan=False)


def test_a_step_left_out_does_not_count_for_the_moments_of_adam():
    torch.manual_seed(0)
    nets = [nn.Linear(3, 2) for _ in range(2)]
    nets[1].load_state_dict(nets[0].state_dict())
    for net, steps in zip(nets, ([1.0, float("nan"), 2.0], [1.0, 2.0]), strict=True):
        optimizer, guard = torch.optim.AdamW(net.parameters(), fused=True), FiniteSteps("skip")
        for scale in steps:
            for parameter in net.parameters():
                parameter.grad = torch.full_like(parameter, scale)
            guard.watch(optimizer, torch.tensor(scale))
            optimizer.step()
    torch.testing.assert_close(nets[0].state_dict(), nets[1].state_dict(), rtol=0, atol=0)


def test_skip_ends_where_every_step_of_a_window_is_bad(tmp_path, micro, monkeypatch, capsys):
    poison(monkeypatch, *range(4, 8))
    with pytest.raises(CellFailed):
        run(tmp_path, *micro, "optim.nonfinite=skip")
    assert "step 5" in capsys.readouterr().err


@pytest.mark.slow
def test_the_count_of_skipped_steps_outlives_a_cut(tmp_path, micro, monkeypatch):
    poison(monkeypatch, 1)
    original = pl.LightningModule.on_train_batch_end

    def on_train_batch_end(self, *args):
        if self.trainer.global_step == 6:
            signal.raise_signal(signal.SIGTERM)
        original(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(pl.LightningModule, "on_train_batch_end", on_train_batch_end)
        with pytest.raises(SystemExit):
            run(tmp_path, *micro, "optim.nonfinite=skip")
    assert run(tmp_path, *micro, "optim.nonfinite=skip")["result"]["final/skipped_steps"] == 1


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_is_refused_by_name(loss):
    with pytest.raises(Diverged, match=f"test/loss is {loss} after"):
        check_losses({"test/acc": 0.5, "test/loss": loss}, "after")
    check_losses({"test/acc": float("nan"), "test/loss": 0.0}, "after")


def test_an_unknown_way_is_refused():
    with pytest.raises(ValueError, match=r"optim\.nonfinite=ignore is unknown: use stop or skip"):
        check_options(configure("optim.nonfinite=ignore", "trainer=cpu"))


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_all_ranks_stop_where_the_gradient_of_one_overflows(tmp_path, micro, strategy):
    ranks = [f"trainer={strategy}", "trainer.devices=2", "trainer.accelerator=cpu"]
    done = command_in(tmp_path, "train.py", *micro, *ranks, "optim.lr=3e3", "epochs=20", "logger=csv", "runs_dir=r")
    assert done.returncode == 1
    assert done.stderr.count("error: training diverged at step") == 1
    [folder] = (tmp_path / "r").iterdir()
    assert not (folder / "run.json").exists()
    assert not (folder / "last.ckpt").exists() or finite(weights(folder))


def test_a_diverged_run_is_known_by_its_log(tmp_path):
    (tmp_path / "log.txt").write_text("error: training diverged at step 3 (epoch 1, batch 3): ...\n")
    assert status_from_log(tmp_path) == "diverged"
