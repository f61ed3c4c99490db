"""A study is run by its name, continues after an interruption, and tunes all arms alike."""

import json
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from support import configure, train_in

from patchbench.config.compose import composed
from patchbench.config.identity import has_eval_results, identity_of
from patchbench.config.plan import COMMON_OVERRIDES, cells, identities, read_study, studies
from patchbench.config.tuning import best, choose_best, grid, settings
from patchbench.statistics.inference import spread
from patchbench.statistics.power import smallest_effect
from patchbench.study.design import TUNING_SEED
from patchbench.study.outcomes import Evidence
from patchbench.study.reading import parse
from patchbench.study.verdict import YES, judge


@pytest.mark.slow
def test_a_study_is_run_reported_and_not_run_again(command, tmp_path):
    given = ["projection", "scale=smoke", "tune=false"]
    shown = command("scripts/study.py", *given, "--dry-run")
    assert shown.returncode == 0, shown.stderr
    assert "8 cells: 8 waiting" in shown.stdout
    assert not (tmp_path / "runs").exists()
    done = command("scripts/study.py", *given)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "8 cells: 8 done" in done.stdout
    assert len(list(tmp_path.glob("runs/*/run.json"))) == 8
    assert done.stdout.splitlines()[-1] == "runs/reports/projection-smoke/report.html"
    text = (tmp_path / "runs" / "reports" / "projection-smoke" / "README.md").read_text()
    assert "8 of 8 planned runs have a result" in text
    assert "python scripts/study.py projection scale=smoke" in text
    again = command("scripts/study.py", *given)
    assert "8 cells: 8 done before" in again.stdout


@pytest.mark.slow
def test_tuning_gives_every_arm_the_same_grid_and_its_best(command, tmp_path):
    done = command("scripts/study.py", "projection", "scale=smoke", "tune=true")
    assert done.returncode == 0, done.stdout + done.stderr
    folder = tmp_path / "runs" / "reports" / "projection-smoke"
    tuned = pd.read_csv(folder / "tuned.csv")
    assert len(tuned) == 4 * 6
    records = [json.loads(path.read_text()) for path in tmp_path.glob("runs/*/run.json")]
    for (part, arm), tried in tuned.groupby(["part", "arm"]):
        [chosen] = tried[tried["chosen"]].to_dict("records")
        assert chosen["val/acc"] == tried["val/acc"].max()
        of_arm = [r for r in records if r["factors"]["data"] == part and r["factors"]["embed"] == arm]
        lr, decay = (float(o.partition("=")[2]) for o in chosen["setting"].split())
        for seed in (0, 1):
            [record] = [r for r in of_arm if r["factors"]["seed"] == seed]
            assert (record["config"]["optim"]["lr"], record["config"]["optim"]["weight_decay"]) == (lr, decay)
    assert "## Tuning" in (folder / "README.md").read_text()


def test_the_grid_is_the_same_for_all_arms_and_has_a_seed_of_its_own():
    study = read_study("projection")
    wide = grid(study, "cpu")
    assert set(wide.scales["cpu"].seeds).isdisjoint(study.scales["cpu"].seeds)
    for part, widened in zip(study.parts, wide.parts, strict=True):
        assert list(widened.arms) == [f"{arm} | {setting}" for arm in part.arms for setting in settings(study, arm)]
    assert len(set(identities(wide, cells(wide, "cpu")))) == len(cells(wide, "cpu"))


@pytest.mark.parametrize("more", [(), ("data.scene.noise=${seed}",)])
def test_identities_are_those_of_each_run_alone(more):
    study = read_study("position")
    some = [
        cell
        for cell in cells(study, "cpu")
        if cell.part == "quadrant" and cell.seed < 2 and cell.arm in ("none", "rope")
    ]
    planned = [replace(cell, overrides=(*cell.overrides, *more)) for cell in some]
    alone = [composed(cell.overrides) for cell in planned]
    found = identities(study, planned)
    assert found == [identity_of(cfg, cfg.hydra.runtime.choices) for cfg in alone]
    assert len(set(found)) == 4


def test_what_is_best_on_validation_is_chosen_and_no_result_is_the_worst(tmp_path):
    study = read_study("projection")
    wide = grid(study, "cpu")
    rows = [
        {"part": part.name, "arm": arm, "val/acc": i / 100} for part in wide.parts for i, arm in enumerate(part.arms)
    ]
    rows[-1]["val/acc"] = None
    choose_best(pd.DataFrame(rows)).to_csv(tmp_path / "tuned.csv", index=False)
    tuned = best(study, "cpu", tmp_path)
    last, last_but_one = settings(study, "linear")[-1].split(), settings(study, "linear")[-2].split()
    assert tuned.parts[0].arms["linear"][-2:] == tuple(last)
    assert tuned.parts[-1].arms["linear"][-2:] == tuple(last_but_one)
    with pytest.raises(FileNotFoundError, match="tune=true"):
        best(study, "cpu", Path("nowhere"))


def test_a_study_of_which_one_part_is_tuned_is_reported_and_cannot_be_trained(tmp_path):
    study = read_study("projection")
    first, *others = study.parts
    rows = [{"part": first.name, "arm": f"{arm} | optim.lr=0.5", "val/acc": 0.5} for arm in first.arms]
    choose_best(pd.DataFrame(rows)).to_csv(tmp_path / "tuned.csv", index=False)
    tuned = best(study, "cpu", tmp_path, complete=False)
    assert all(overrides[-1] == "optim.lr=0.5" for overrides in tuned.parts[0].arms.values())
    assert list(tuned.parts[1:]) == others
    with pytest.raises(ValueError, match=f"no setting for part {others[0].name}"):
        best(study, "cpu", tmp_path)


def test_a_run_is_asked_again_for_another_question_but_not_for_none(tmp_path):
    asked = {"eval": {**configure().eval, "img_size": [24]}}
    assert has_eval_results(asked, configure())
    assert has_eval_results(asked, configure("eval.img_size=[24]"))
    assert not has_eval_results(asked, configure("eval.img_size=[32]"))


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in studies() if not read_study(name).of_costs])
def test_every_study_runs_at_scale_smoke(command, name):
    done = command("scripts/study.py", name, "scale=smoke")
    assert done.returncode == 0, done.stdout + done.stderr
    assert " failed" not in done.stdout


@pytest.mark.slow
def test_a_planted_effect_of_real_runs_is_found_and_is_as_large_as_was_promised_to_be_found(tmp_path):
    """Six seeds are trained on a data set, and on a copy in which 5 % of the training labels are wrong."""
    few = ["model=micro", "data.img_size=16", "patch=4", "optim.lr=3e-3", "data.train_size=500", "epochs=30"]
    rows = []
    for seed in range(6):
        for arm in ("clean", "mislabelled"):
            cfg = configure("trainer=cpu", "logger=none", *few, "optim.label_smoothing=0.0", f"seed={seed}")
            if arm == "mislabelled":
                cfg.data._target_ = "planted.mislabelled"
            train_in(cfg, tmp_path / f"{arm}{seed}")
            result = json.loads((tmp_path / f"{arm}{seed}" / "run.json").read_text())["result"]
            row = {"part": "one", "arm": arm, "rung": "", "seed": seed, "identity": f"{arm}{seed}", "status": "done"}
            rows.append(row | {name: result[name] for name in ("test/acc", "test/images")})
    says = {"says": "Wrong labels harm.", "that": "clean - mislabelled", "above": 0.0, "predicted": "yes"}
    parts = {"one": {"arms": {"clean": [], "mislabelled": []}, "statements": {"harm": says}}}
    scales = {"cpu": {"seeds": "0-5"}}
    study = parse("planted", {"question": "Do they?", "decides": ["harm"], "scales": scales, "parts": parts})
    table = pd.DataFrame(rows)
    [finding] = judge(study, Evidence(table)).findings
    [step] = finding.steps
    spreads = [spread(seeds.to_numpy()) for _, seeds in table.groupby("arm")["test/acc"]]
    sd = (sum(s**2 for s in spreads) / 2) ** 0.5
    assert step.amount.estimate > smallest_effect(6, sd), "large enough to be found by so many seeds"
    assert (finding.answer, finding.as_predicted) == (YES, True)


def test_each_rung_of_a_ladder_is_a_run_of_its_own_and_a_part_may_have_its_own_seeds():
    statement = {"says": "So.", "that": "linear - conv", "within": 0.1, "at": 2}
    ladder = {"epochs": [1, 2, 4]}
    part = {"statements": {"s": statement}, "ladder": ladder, "seeds": {"cpu": "0-1"}}
    scales = {"smoke": {"seeds": [7], "rungs": 1}, "cpu": {"seeds": "0-4"}}
    arms = {"conv": ["embed=conv"], "linear": ["embed=linear", "epochs=9"]}
    given = {"question": "Is it?", "decides": ["s"], "scales": scales, "arms": arms, "parts": {"one": part}}
    study = parse("test", given)
    planned = cells(study, "cpu")
    by_rung = [(0, rung, arm) for rung in ("1", "2", "4") for arm in ("conv", "linear")]
    assert [(cell.seed, cell.rung, cell.arm) for cell in planned[:6]] == by_rung
    assert {cell.seed for cell in planned} == {0, 1}
    assert [(cell.seed, cell.rung) for cell in cells(study, "smoke")] == [(7, "1"), (7, "1")]
    assert planned[2].overrides == (*COMMON_OVERRIDES, "epochs=2", "embed=conv", "seed=0")
    wide = cells(grid(study, "cpu"), "cpu")
    assert {cell.rung for cell in wide} == {"1"}, "arms are tuned at the first budget"
    assert {cell.seed for cell in wide} == {TUNING_SEED}


def test_an_arm_with_a_grid_of_its_own_has_as_many_trials():
    own = {"tune": {"optim.lr": [1e-3, 1e-2]}, "tune_arms": {"b": {"patch": [2, 4]}}}
    given = {"question": "Is it?", "scales": {"cpu": {"seeds": "0-4"}}, "arms": {"a": [], "b": []}, **own}
    study = parse("test", {**given, "parts": {"one": {"effects": {"embed": ["a - b"]}}}})
    assert settings(study, "a") == ["optim.lr=0.001", "optim.lr=0.01"]
    assert settings(study, "b") == ["patch=2", "patch=4"]
