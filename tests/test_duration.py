"""Training ends when its budget is spent, for all kinds of budgets, and the learning rate falls until then."""

import json
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from support import NOISY, Cut, configure, cut_at, metrics, options, run, some, weights

from patchbench.commands.build import build_trainer, prepare_data
from patchbench.commands.draft import build_duration, draft
from patchbench.config.errors import Refused
from patchbench.config.identity import identity_of

PER_EPOCH = 4  # of `micro`


@pytest.mark.parametrize(("steps", "validated"), [(3, [3]), (4, [4]), (6, [4, 6]), (9, [4, 8, 9])])
def test_training_ends_in_mid_epoch_and_is_validated_there(tmp_path, micro, steps, validated):
    run(tmp_path, *micro, "log_every=1", "budget=steps", f"budget.value={steps}")
    rows = metrics(tmp_path)
    assert rows["val/acc"].dropna().index.tolist() == validated
    rates = rows["lr-AdamW"].dropna()
    assert rates.index.tolist() == list(range(1, steps + 1))
    assert rates.iloc[-1] == rates.min() < 0.6 * rates.max()


@pytest.mark.slow
def test_a_budget_of_flops_buys_fewer_steps_where_one_costs_more(tmp_path, micro):
    spent = {}
    for patch in (4, 8):
        result = run(tmp_path / str(patch), *micro, f"patch={patch}", "budget=flops", "budget.value=2e9")["result"]
        steps = metrics(tmp_path / str(patch))["val/acc"].dropna().index[-1]
        each = 6 * result["model/gmacs"] * 1e9 * 32
        spent[patch] = steps
        assert steps * each <= 2e9 < (steps + 1) * each
    assert spent[4] < spent[8]


def test_a_budget_of_flops_counts_once_what_is_computed_once_a_step(tmp_path, micro):
    """The resampling of a kernel for each batch is divided among the images of the batch."""

    def steps(*overrides: str) -> int:
        cfg = configure(
            *micro, "trainer=cpu", "data.img_size=32", "patch=8", "budget=flops", "budget.value=2e10", *overrides
        )
        run = draft(cfg)
        data = prepare_data(cfg, run.source, build_trainer(cfg, tmp_path, [], epochs=1))
        return build_duration(run, data).steps_of_budget(lambda: 1.0)

    conv = steps("embed=conv")
    assert 0.9 * conv < steps("embed=flexi") < conv
    assert 0.9 * conv < steps("embed=conv", "pos=relbias_mlp") < conv


def test_a_budget_of_seconds_is_about_used_up(tmp_path, micro):
    result = run(tmp_path, *micro, "limit_batches=null", "budget=seconds", "budget.value=1.0")["result"]
    steps = metrics(tmp_path)["val/acc"].dropna().index[-1]
    assert 0.3 < steps * result["final/step_ms_median"] / 1000 < 3.0


@pytest.mark.slow
@pytest.mark.parametrize("optim", options("optim"))
def test_timing_steps_changes_nothing_of_what_is_learnt(tmp_path, micro, optim):
    timed = [*micro, NOISY, "embed=stem", f"optim={optim}", "budget=seconds"]
    run(tmp_path / "seconds", *timed, "budget.value=0.2")
    steps = metrics(tmp_path / "seconds")["val/acc"].dropna().index[-1]
    run(tmp_path / "steps", *timed[:-1], "budget=steps", f"budget.value={steps}")
    torch.testing.assert_close(weights(tmp_path / "seconds"), weights(tmp_path / "steps"), rtol=0, atol=0)


@pytest.mark.parametrize("budget", [["budget=steps", "budget.value=6"], ["budget=seconds", "budget.value=0.3"]])
@pytest.mark.parametrize("step", some([1, 6], 6))
def test_a_run_that_was_cut_off_ends_where_it_would_have(tmp_path, micro, monkeypatch, budget, step):
    with monkeypatch.context() as patch:
        cut_at(patch, step, "signal")
        with suppress(SystemExit):  # after the last step there is nothing to leave
            run(tmp_path / "cut", *micro, NOISY, *budget)
    kept = torch.load(tmp_path / "cut" / "last.ckpt", weights_only=True)["callbacks"]["Duration"]["total"]
    run(tmp_path / "cut", *micro, NOISY, *budget)
    run(tmp_path / "whole", *micro, NOISY, "budget=steps", f"budget.value={kept}")
    torch.testing.assert_close(weights(tmp_path / "cut"), weights(tmp_path / "whole"), rtol=0, atol=0)
    record = json.loads(Path(tmp_path / "cut" / "run.json").read_text())
    assert record["result"]["val/acc_best"] == metrics(tmp_path / "cut")["val/acc"].max()


@pytest.mark.parametrize("how", ["signal", "crash"])
@pytest.mark.parametrize("step", some(range(1, 11), 6))
def test_wherever_it_is_cut_off_a_partial_epoch_ends_as_in_a_run_without_a_break(
    tmp_path, tmp_path_factory, micro, monkeypatch, step, how
):
    """Epochs have 4 steps, the budget has 10; after a crash, the last checkpoint is that of the end of an epoch."""
    arguments = [*micro, NOISY, "budget=steps", "budget.value=10"]
    whole = tmp_path_factory.getbasetemp() / "partial epoch"
    if not (whole / "run.json").exists():
        run(whole, *arguments)
    with monkeypatch.context() as patch:
        cut_at(patch, step, how)
        with suppress(SystemExit, Cut):
            run(tmp_path, *arguments)
    done = run(tmp_path, *arguments)
    torch.testing.assert_close(weights(tmp_path), weights(whole), rtol=0, atol=0)
    for name in ("val/loss", "test/loss"):
        assert metrics(tmp_path)[name].dropna().to_dict() == metrics(whole)[name].dropna().to_dict()
    assert done["result"]["val/acc_best"] == metrics(whole)["val/acc"].max()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("budget=steps budget.value=0", "budget.value=0 must be above 0"),
        ("budget=flops budget.value=10", "less than one step"),
    ],
)
def test_a_budget_without_a_step_is_refused(tmp_path, micro, given, said):
    with pytest.raises(Refused, match=said):
        run(tmp_path, *micro, *given.split())
    assert not list(tmp_path.rglob("*.ckpt"))


def test_epochs_are_no_part_of_a_run_that_does_not_count_them():
    def identity(*overrides: str) -> str:
        cfg = configure(*overrides)
        return identity_of(cfg, cfg.hydra.runtime.choices)

    assert identity("epochs=1") != identity("epochs=2")
    assert identity("budget=steps", "epochs=1") == identity("budget=steps", "epochs=2")
    assert identity("budget=steps", "budget.value=7") != identity("budget=steps", "budget.value=8")
