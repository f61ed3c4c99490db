"""A run from configuration to record: repetition, resumption and a second test are equal to the bit."""

import os
import pty
import select
import signal
import sys
import time
from itertools import product

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from support import NOISY, ROOT, Cut, configure, cut_at, metrics, run, some, weights

from patchbench.commands.build import build_augment, build_net, build_source
from patchbench.commands.evaluate import evaluate
from patchbench.commands.reopen import Machine
from patchbench.config.errors import Refused
from patchbench.data.batches import Batches
from patchbench.runs.record import validation_accuracy
from patchbench.track.meter import Meter
from patchbench.train.checkpoint import KEEP, TESTED, kept_checkpoints, read_checkpoint
from patchbench.train.signals import StopOnSignal


def test_one_seed_repeats_to_the_bit_and_two_seeds_differ(tmp_path, micro):
    one, same = (run(tmp_path / name, *micro, NOISY) for name in ("one", "same"))
    other = run(tmp_path / "other", *micro, NOISY, "seed=1")
    torch.testing.assert_close(weights(tmp_path / "one"), weights(tmp_path / "same"), rtol=0, atol=0)
    losses = [metrics(tmp_path / name)["train/loss"].dropna().tolist() for name in ("one", "same", "other")]
    assert losses[0] == losses[1] != losses[2]
    assert one["identity"] == same["identity"] != other["identity"]


def test_record_csv_and_checkpoint_tell_the_same(tmp_path, micro):
    done = run(tmp_path, *micro)
    assert {"identity", "factors", "config", "result", "environment"} <= set(done)
    assert done["factors"] == {
        "embed": "conv",
        "patch": 4,
        "pos": "learned",
        "model": "micro",
        "data": "digits",
        "augment": "none",
        "optim": "adamw",
        "seed": 0,
    }
    result, rows = done["result"], metrics(tmp_path)
    last = rows.iloc[-1]
    for name in ("test/acc", "val/acc_best", "final/images_per_s", "final/cpu_rss_gib", "model/gmacs", "time/wall_s"):
        assert last[name] == pytest.approx(result[name], rel=1e-6), name
    assert rows["val/acc"].dropna().index.tolist() == [4, 8], "validation after each epoch of 4 steps"
    assert rows["val/acc"].max() == result["val/acc_best"]
    assert rows["train/loss"].dropna().index.tolist() == [2, 4, 6, 8]
    assert rows["throughput/images_per_s"].dropna().index.tolist() == [4, 6, 8], "the first window warms up"
    assert result["test/acc_low"] < result["test/acc"] < result["test/acc_high"]
    assert result["final/tokens_per_s"] == pytest.approx(16 * result["final/images_per_s"])
    assert torch.__version__.startswith(done["environment"]["versions"]["torch"])
    cfg = configure("trainer=cpu")
    again = evaluate(tmp_path / "best.ckpt", Machine(cfg.trainer, 0, 0.2), cfg.eval)
    for name in ("test/acc", "test/loss", "test/images"):
        assert again["result"][name] == result[name]


CUTS = [(2, "signal"), (3, "signal"), (5, "signal"), (5, "crash"), (8, "signal")]


@pytest.mark.parametrize(
    ("step", "how", "workers"),
    some(
        [(step, how, workers) for workers in (0, 2) for step, how in CUTS],
        (3, "signal", 0),
        (5, "crash", 2),
        (8, "signal", 0),
    ),
)
def test_a_run_that_was_cut_off_goes_on_as_if_it_had_not_been(tmp_path, micro, monkeypatch, step, how, workers):
    arguments = [*micro, "epochs=3", NOISY, "trainer.accumulate=2", "limit_batches=3", f"workers={workers}"]
    whole = run(tmp_path / "whole", *arguments)
    with monkeypatch.context() as patch:
        cut_at(patch, step, how)
        with pytest.raises((SystemExit, Cut)) as ended:
            run(tmp_path / "cut", *arguments)
    assert how == "crash" or ended.value.code == 128 + signal.SIGTERM
    assert not (tmp_path / "cut" / "run.json").exists()
    resumed = run(tmp_path / "cut", *arguments)
    torch.testing.assert_close(weights(tmp_path / "whole"), weights(tmp_path / "cut"), rtol=0, atol=0)
    torch.testing.assert_close(
        weights(tmp_path / "whole", "best.ckpt"), weights(tmp_path / "cut", "best.ckpt"), rtol=0, atol=0
    )
    for name in ("test/acc", "test/loss", "val/acc_best", "val/loss"):
        assert resumed["result"][name] == whole["result"][name]
    assert (
        metrics(tmp_path / "whole")["val/loss"].dropna().tolist()
        == metrics(tmp_path / "cut")["val/loss"].dropna().tolist()
    )


def test_the_end_of_a_terminal_saves_and_under_nohup_changes_nothing(tmp_path, micro, monkeypatch):
    original = StopOnSignal.on_train_batch_end

    def on_train_batch_end(self, trainer, *args):
        if trainer.global_step == 3:
            signal.raise_signal(signal.SIGHUP)
        original(self, trainer, *args)

    monkeypatch.setattr(StopOnSignal, "on_train_batch_end", on_train_batch_end)
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        done = run(tmp_path / "nohup", *micro, "epochs=1")
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        with pytest.raises(SystemExit) as ended:
            run(tmp_path / "terminal", *micro, "epochs=1")
    finally:
        signal.signal(signal.SIGHUP, before)
    assert ended.value.code == 128 + signal.SIGHUP
    assert read_checkpoint(tmp_path / "terminal" / "last.ckpt")["global_step"] == 3
    monkeypatch.undo()
    assert run(tmp_path / "terminal", *micro, "epochs=1")["result"]["test/loss"] == done["result"]["test/loss"]


@pytest.mark.slow
@pytest.mark.parametrize("sweep", [[], ["-m", "seed=0,1"]], ids=["run", "sweep"])
def test_a_training_saves_when_its_terminal_is_gone(tmp_path, micro, sweep):
    """The end of ssh sends SIGHUP, and each further write to the terminal raises an error."""
    process, terminal = pty.fork()
    if not process:
        os.chdir(tmp_path)
        line = [*sweep, *micro, "epochs=100000", "trainer=cpu", "logger=csv"]
        os.execv(sys.executable, [sys.executable, str(ROOT / "train.py"), *line])
    began = time.monotonic()
    while not [path for path in tmp_path.rglob("metrics.csv") if "train/loss" in path.read_text()]:
        assert time.monotonic() - began < 120
        if select.select([terminal], [], [], 0.1)[0]:
            os.read(terminal, 100_000)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 128 + signal.SIGHUP
    [last] = tmp_path.rglob("last.ckpt")
    rows = pd.read_csv(last.with_name("metrics.csv"))
    assert read_checkpoint(last)["global_step"] >= rows["step"].max(), "nothing that was shown is lost"


@pytest.mark.parametrize("step", [4, 8])
def test_a_signal_during_validation_loses_no_epoch(tmp_path, micro, monkeypatch, step):
    arguments = [*micro, "epochs=3"]
    run(tmp_path / "whole", *arguments)
    original = Meter.on_validation_end

    def on_validation_end(self, trainer, *args):
        if trainer.global_step == step:
            signal.raise_signal(signal.SIGTERM)
        original(self, trainer, *args)

    with monkeypatch.context() as patch:
        patch.setattr(Meter, "on_validation_end", on_validation_end)
        with pytest.raises(SystemExit):
            run(tmp_path / "cut", *arguments)
    assert read_checkpoint(tmp_path / "cut" / "last.ckpt")["global_step"] == step
    run(tmp_path / "cut", *arguments)
    for name in ("last.ckpt", "best.ckpt"):
        torch.testing.assert_close(weights(tmp_path / "whole", name), weights(tmp_path / "cut", name), rtol=0, atol=0)


def test_a_signal_between_two_micro_batches_loses_no_gradient(tmp_path, micro, monkeypatch):
    arguments = [*micro, NOISY, "trainer.accumulate=4"]
    run(tmp_path / "whole", *arguments)
    original = StopOnSignal.on_train_batch_end

    def on_train_batch_end(self, trainer, *args):
        if trainer.fit_loop.epoch_loop.batch_progress.total.ready == 10:  # the second of four
            signal.raise_signal(signal.SIGTERM)
        original(self, trainer, *args)

    with monkeypatch.context() as patch:
        patch.setattr(StopOnSignal, "on_train_batch_end", on_train_batch_end)
        with pytest.raises(SystemExit):
            run(tmp_path / "cut", *arguments)
    assert read_checkpoint(tmp_path / "cut" / "last.ckpt")["global_step"] == 3
    run(tmp_path / "cut", *arguments)
    torch.testing.assert_close(weights(tmp_path / "whole"), weights(tmp_path / "cut"), rtol=0, atol=0)


def test_last_is_the_newest_checkpoint_though_an_older_one_is_the_best(tmp_path, micro):
    run(tmp_path, *micro, "optim.lr=1e-12")
    assert read_checkpoint(tmp_path / "best.ckpt")["global_step"] == 4, "nothing is learnt: the first among equals"
    assert read_checkpoint(tmp_path / "last.ckpt")["global_step"] == 8


def test_a_run_that_is_done_is_not_repeated_unless_asked(tmp_path, micro, capsys):
    first = run(tmp_path, *micro)
    before = (tmp_path / "run.json").read_bytes()
    run(tmp_path, *micro)
    assert (tmp_path / "run.json").read_bytes() == before
    assert "rerun=true" in capsys.readouterr().out
    again = run(tmp_path, *micro, "rerun=true")
    assert (tmp_path / "run.json").read_bytes() != before
    assert again["result"]["test/loss"] == first["result"]["test/loss"]


FLAT = "optim.lr=1e-6"  # weights change, accuracy does not: the first epoch is the best


@pytest.mark.parametrize(("keep", "tested"), some(product(KEEP, TESTED), ("tested", "last"), ("none", "best")))
def test_a_finished_run_keeps_the_checkpoints_asked_for_and_is_not_repeated_without_them(tmp_path, micro, keep, tested):
    arguments = [*micro, FLAT, f"keep_checkpoints={keep}", f"tested={tested}"]
    done = run(tmp_path, *arguments)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert {name for name in before if name.endswith(".ckpt")} == set(kept_checkpoints(keep, tested))
    run(tmp_path, *arguments)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    cfg = configure("trainer=cpu")
    machine, ckpt = Machine(cfg.trainer, 0, 0.2), tmp_path / f"{tested}.ckpt"
    if keep == "none":
        retry = "its run kept none .*rerun=true keep_checkpoints=tested"
        with pytest.raises(Refused, match=f"{ckpt.name}: there is no such file; {retry}"):
            evaluate(ckpt, machine, cfg.eval)
        for asked_later in ("eval.move=[1]", "analyze=true"):
            with pytest.raises(Refused, match=retry):
                run(tmp_path, *arguments, asked_later)
        return
    checkpoint = read_checkpoint(ckpt)
    assert checkpoint["global_step"] == (4 if tested == "best" else 8)
    assert ("optimizer_states" in checkpoint) == (keep == "all")
    again = evaluate(ckpt, machine, cfg.eval)
    assert again["result"].items() <= done["result"].items()
    assert run(tmp_path, *arguments, "eval.move=[1]")["result"]["test/loss"] == done["result"]["test/loss"]
    if keep == "all":
        other = evaluate(tmp_path / f"{'last' if tested == 'best' else 'best'}.ckpt", machine, cfg.eval)
        assert other["result"]["test/loss"] != done["result"]["test/loss"]
        return
    size = sum(weight.nbytes for weight in checkpoint["state_dict"].values())
    assert sum(map(len, before.values())) < size + 50_000, "no other state, once"
    with pytest.raises(Refused, match=r"holds weights without the states of training.*model\.init_from="):
        run(tmp_path / "other", *arguments, f"ckpt={ckpt}")
    absent = tmp_path / f"{'last' if tested == 'best' else 'best'}.ckpt"
    with pytest.raises(Refused, match=rf"kept {tested}\.ckpt; keep_checkpoints=all keeps both"):
        run(tmp_path / "other", *arguments, f"ckpt={absent}")
    if tested == "last":
        (tmp_path / "run.json").unlink()
        with pytest.raises(Refused, match=r"a finished run whose record is gone: rerun=true trains it again"):
            run(tmp_path, *arguments)


def test_what_is_tested_is_part_of_the_run_and_the_default_is_as_it_was(tmp_path, micro, capsys):
    best, last = (run(tmp_path / tested, *micro, FLAT, f"tested={tested}") for tested in TESTED)
    assert best["identity"] == run(tmp_path / "default", *micro, FLAT)["identity"] != last["identity"]
    assert (best["result"]["val/acc_best"], best["result"]["val/loss"]) == (
        last["result"]["val/acc_best"],
        last["result"]["val/loss"],
    ), "the training is the same"
    assert validation_accuracy(last) == last["result"]["val/acc"]
    assert validation_accuracy(best) == best["result"]["val/acc_best"]
    said = capsys.readouterr().out.splitlines()
    for tested in TESTED:
        there = said[said.index(f"{tmp_path / tested}/") :]
        assert next(line for line in there if "which were tested" in line).split()[0] == f"{tested}.ckpt"


@pytest.mark.parametrize("tested", TESTED)
def test_cut_off_between_the_last_step_and_the_record_a_run_is_completed(tmp_path, micro, monkeypatch, tested):
    """Nothing is left to train, and the results of the last validation are those of the run."""

    def killed(*_: object) -> None:
        raise Cut

    arguments = [*micro, f"tested={tested}"]
    whole = run(tmp_path / "whole", *arguments)
    with monkeypatch.context() as patch:
        patch.setattr("patchbench.commands.train.test", killed)
        with pytest.raises(Cut):
            run(tmp_path / "cut", *arguments)
    resumed = run(tmp_path / "cut", *arguments)
    for name in ("val/acc", "val/loss", "val/acc_best", "test/acc", "test/loss"):
        assert resumed["result"][name] == whole["result"][name], name


def test_killed_before_it_dropped_its_checkpoints_a_run_is_done_and_drops_them_later(tmp_path, micro, monkeypatch):
    def killed(*_: object) -> None:
        raise Cut

    with monkeypatch.context() as patch:
        patch.setattr("patchbench.commands.train.drop_checkpoints", killed)
        with pytest.raises(Cut):
            run(tmp_path, *micro, "keep_checkpoints=tested")
    record = (tmp_path / "run.json").read_bytes()
    assert (tmp_path / "last.ckpt").exists()
    run(tmp_path, *micro, "keep_checkpoints=none")  # of a run that is done, the record says what it keeps
    assert (tmp_path / "run.json").read_bytes() == record
    assert sorted(path.name for path in tmp_path.glob("*.ckpt")) == ["best.ckpt"]


def test_a_checkpoint_of_another_run_is_refused_by_what_differs(tmp_path, micro):
    run(tmp_path / "one", *micro)
    with pytest.raises(Refused, match=r"model\.depth=2 there, 3 here"):
        run(tmp_path / "other", *micro, "model.depth=3", f"ckpt={tmp_path / 'one' / 'last.ckpt'}")
    assert not (tmp_path / "other" / "run.json").exists()


def test_a_folder_of_images_trains_with_workers_as_without(tmp_path, micro):
    generator = np.random.default_rng(0)
    for split, count in {"train": 40, "val": 20}.items():
        for name in ("ant", "bee"):
            (tmp_path / split / name).mkdir(parents=True)
            for i in range(count):
                noise = generator.integers(256, size=(20, 24, 3), dtype=np.uint8)
                Image.fromarray(noise).save(tmp_path / split / name / f"{i}.jpg")
    arguments = ["data=imagefolder", f"data.root={tmp_path}", "data.val_size=0.2", *micro, "limit_batches=2"]
    none, two = (run(tmp_path / f"w{n}", *arguments, f"workers={n}")["result"] for n in (0, 2))
    assert none["test/loss"] == two["test/loss"]
    torch.testing.assert_close(weights(tmp_path / "w0"), weights(tmp_path / "w2"), rtol=0, atol=0)


@pytest.mark.parametrize("trainable", [False, True])
def test_a_basis_is_fitted_on_training_images_before_training_and_kept_in_the_checkpoint(tmp_path, micro, trainable):
    options = [
        "embed=fixed",
        "embed.basis=whitened",
        f"embed.trainable={str(trainable).lower()}",
        "embed.fit_images=50",
    ]
    done = run(tmp_path, *micro, *options, "epochs=1")
    assert np.isfinite(done["result"]["test/loss"])
    cfg = configure("trainer=cpu", *micro, *options)
    source = build_source(cfg)
    net = build_net(cfg, source)
    data = Batches(source, build_augment(cfg, source), batch_size=32, seed=0, workers=0, limit=None, resident_bytes=0)
    data.setup("fit")
    sample = data.sample(50)
    assert sample.shape == (50, 3, 16, 16)
    assert torch.equal(sample, data.sample(50))
    first, last = (data.normalised(data.splits["train"].images[i]) for i in (0, 49 * 1257 // 50))
    assert torch.equal(sample[[0, -1]], torch.stack([first, last]))
    net.embed.fit(sample)
    kept = weights(tmp_path)
    assert torch.equal(kept["net.embed.mean"], net.embed.mean)
    assert torch.equal(kept["net.embed.basis"], net.embed.basis) != trainable
    cfg = configure("trainer=cpu")
    again = evaluate(tmp_path / "best.ckpt", Machine(cfg.trainer, 0, 0.2), cfg.eval)
    assert again["result"]["test/loss"] == done["result"]["test/loss"]


def test_other_conditions_after_a_cut_are_said_and_recorded(tmp_path, micro, monkeypatch, capsys):
    arguments = [*micro, "trainer.accumulate=2"]
    with monkeypatch.context() as patch:
        cut_at(patch, 5, "signal")
        with pytest.raises(SystemExit):
            run(tmp_path, *arguments)
    done = run(tmp_path, *arguments, "trainer.precision=bf16-mixed", "trainer.accumulate=4")
    said = capsys.readouterr().out
    assert "precision=32-true until here, bf16-mixed now: figures may differ by rounding" in said
    assert "micro-batches per step: 2, as this run began, not 4" in said
    assert [each["precision"] for each in done["conditions"]] == ["32-true", "bf16-mixed"]
    capsys.readouterr()
    run(tmp_path, *arguments, "trainer.precision=bf16-mixed", "compile=true")
    said = capsys.readouterr().out
    for option in ("trainer.precision=bf16-mixed", "compile=true"):
        assert f"{option} is not read: this run is done" in said
    run(tmp_path, *arguments)
    assert "is not read" not in capsys.readouterr().out


def test_equal_conditions_are_not_worth_a_word(tmp_path, micro, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        cut_at(patch, 5, "crash")
        with pytest.raises(Cut):
            run(tmp_path, *micro)
    done = run(tmp_path, *micro, "trainer.precision=32-true")
    assert len(done["conditions"]) == 1
    run(tmp_path, *micro, "trainer.precision=32-true", "compile=false")
    assert "rounding" not in (said := capsys.readouterr().out)
    assert "is not read" not in said
