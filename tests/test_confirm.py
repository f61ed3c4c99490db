"""Replication of studies with fresh seeds: frozen before, run like the first, and reported beside the first answers."""

import shutil
from pathlib import Path

import pandas as pd
import pytest
from omegaconf import OmegaConf
from support import STUDY, study_runs_in

from patchbench.commands import confirm
from patchbench.commands.report import report_all, report_study
from patchbench.config.plan import cells, only_part, read_study, settings_folder
from patchbench.config.tuning import FILE, is_tuned, refuse_borrowed_settings, tune, tuned_study
from patchbench.pages.study import fresh
from patchbench.runs.committed import read_runs
from patchbench.study import frozen
from patchbench.study.reading import parse
from patchbench.study.verdict import HOW_MUCH, NO, OPEN, YES

SEEDS = {"cpu": range(3), "confirm": range(100, 103)}


def written(folder: Path, study: dict) -> Path:
    path = folder / "experiments" / "positions" / "study.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    OmegaConf.save(OmegaConf.create(study), path)
    return folder / "experiments"


def repeatable(**more: object) -> dict:
    scales = {"cpu": {"seeds": "0-2", "overrides": ["trainer=cpu"]}, "confirm": {"like": "cpu", "seeds": "100-102"}}
    return {**STUDY, "scales": scales, "tune": False, **more}


@pytest.fixture(scope="module")
def runs(once, study_runs) -> Path:
    """The six runs of STUDY, and its six runs with fresh seeds."""

    def fill(folder: Path) -> None:
        shutil.copytree(study_runs, folder, dirs_exist_ok=True)
        study_runs_in(folder, SEEDS["confirm"])

    return once("confirmed-runs", fill)


def test_a_scale_like_another_differs_in_seeds_alone(tmp_path):
    parts = {"digits": {**STUDY["parts"]["digits"], "only": ["cpu"], "scales": {"cpu": ["epochs=3"]}}}
    study = read_study("positions", written(tmp_path, repeatable(parts=parts)))
    first, again = ([cell.overrides[:-1] for cell in cells(study, scale)] for scale in SEEDS)
    assert first == again
    assert "epochs=3" in first[0]
    assert {cell.seed for cell in cells(study, "confirm")} == set(SEEDS["confirm"])
    assert study.scales["confirm"].like == "cpu"
    with pytest.raises(ValueError, match="like 'gpu' does not exist: use cpu"):
        parse("x", repeatable(scales={"cpu": {"seeds": "0-2"}, "confirm": {"like": "gpu", "seeds": "3-5"}}))


def test_a_scale_like_another_takes_its_settings_and_has_no_trials_of_its_own(tmp_path):
    tuned = repeatable(tune={"optim.lr": [0.001, 0.01]})
    experiments = written(tmp_path, tuned)
    study = read_study("positions", experiments)
    folder = settings_folder(study, "confirm", tmp_path / "runs", experiments)
    assert folder == experiments / "positions"
    with pytest.raises(ValueError, match=r"scale=confirm uses the settings of scale=cpu.*scale=cpu$"):
        tune("positions", "confirm", tmp_path / "runs", experiments=experiments)
    refuse_borrowed_settings(study, "cpu")
    rows = [("digits", arm, "optim.lr=0.01", 0.5, True) for arm in ("none", "learned")]
    pd.DataFrame(rows, columns=["part", "arm", "setting", "val/acc", "chosen"]).to_csv(folder / FILE, index=False)
    assert is_tuned(study, "confirm", folder)
    best = tuned_study("positions", "confirm", "best", tmp_path / "runs", experiments=experiments)
    assert all("optim.lr=0.01" in cell.overrides for cell in cells(best, "confirm"))


def test_one_part_can_be_run_alone(tmp_path):
    two = repeatable(parts={"digits": STUDY["parts"]["digits"], "texture": {"overrides": ["data=texture"]}})
    experiments = written(tmp_path, two)
    whole, one = (
        cells(tuned_study("positions", "cpu", "none", tmp_path, part, experiments), "cpu") for part in (None, "texture")
    )
    assert one == [cell for cell in whole if cell.part == "texture"]
    with pytest.raises(ValueError, match="part 'txt' does not exist: use digits, texture"):
        only_part(read_study("positions", experiments), "txt")


def test_predictions_are_frozen_before_and_found_again_after(runs, tmp_path, capsys):
    experiments = written(tmp_path, repeatable())
    folder = experiments / "positions"
    assert confirm.repeatable("confirm", experiments) == ["positions"]
    assert confirm.ready(["positions"], "confirm", experiments) == []
    assert "it has no result yet that fresh seeds could repeat" in capsys.readouterr().out

    report_study("positions", runs, "cpu", experiments=experiments)
    assert "On fresh seeds" not in (folder / "README.md").read_text()
    with pytest.raises(ValueError, match=r"learned_helps is not frozen as it is today.*--freeze"):
        confirm.check_frozen(["positions"], "confirm", experiments)
    path = confirm.freeze(["positions"], "confirm", experiments)
    before = path.read_bytes()
    confirm.check_frozen(["positions"], "confirm", experiments)
    assert confirm.freeze(["positions"], "confirm", experiments).read_bytes() == before, "what is unchanged stays"
    rows = frozen.read(experiments)
    assert dict(zip(rows["statement"], rows["predicted"], strict=True)) == {
        "learned_helps": "yes",
        "none_learns": "yes",
    }

    report_study("positions", runs, "confirm", experiments=experiments)
    assert set(read_runs(folder / "confirm" / "runs.csv")["seed"]) == set(SEEDS["confirm"])
    report_study("positions", runs, "cpu", experiments=experiments)
    page = (folder / "README.md").read_text()
    assert "On fresh seeds (100 to 102): " in page
    table = confirm.confirmation("confirm", experiments).read_text()
    assert "Without positions, digits cannot be read at all." in table
    assert "On fresh seeds 1 had the same answer, 0 had none, 0 had the opposite answer" in table
    assert f"| {rows['date'][0]} | the same |" in table
    assert "| [positions](positions/README.md) | digits | pos | none → learned |" in table
    assert any(path.name == "errata.md" for path in report_all(experiments))


@pytest.mark.slow
def test_a_statement_that_is_bent_after_its_repetition_is_found(runs, tmp_path):
    experiments = written(tmp_path, repeatable())
    report_study("positions", runs, "cpu", experiments=experiments)
    confirm.freeze(["positions"], "confirm", experiments)
    report_study("positions", runs, "confirm", experiments=experiments)
    bent = repeatable()
    digits = bent["parts"]["digits"]
    statements = {**digits["statements"]}
    statements["learned_helps"] = {**statements["learned_helps"], "above": -0.5}
    written(tmp_path, {**bent, "parts": {"digits": {**digits, "statements": statements}}})
    with pytest.raises(
        ValueError, match=r"learned_helps is not what was frozen, and .*runs\.csv already has its fresh"
    ):
        confirm.freeze(["positions"], "confirm", experiments)
    report_study("positions", runs, "cpu", experiments=experiments)
    assert (
        "changed since it was frozen, so it confirms nothing"
        in confirm.confirmation("confirm", experiments).read_text()
    )


@pytest.mark.parametrize(
    ("first", "second", "told"),
    [
        (YES, YES, fresh.SAME),
        (NO, NO, fresh.SAME),
        (HOW_MUCH, HOW_MUCH, fresh.SAME),
        (YES, NO, fresh.OTHER),
        (NO, YES, fresh.OTHER),
        (YES, OPEN, fresh.NONE),
        (NO, HOW_MUCH, fresh.NONE),
        (OPEN, YES, fresh.LATER),
        (OPEN, OPEN, ""),
    ],
)
def test_two_answers_are_the_same_or_they_are_not(first, second, told):
    assert fresh.outcome(first, second) == told


@pytest.mark.parametrize(
    "change",
    [
        {"overrides": [*STUDY["overrides"], "optim.lr=0.5"]},
        {"scales": {"cpu": {"seeds": "0-2", "overrides": ["trainer=cpu"]}, "confirm": {"like": "cpu", "seeds": "7-9"}}},
        {"factors": {"pos": ["none", "sincos", "learned"]}, "overrides": [*STUDY["overrides"], "patch=8"]},
    ],
)
def test_the_digest_is_of_options_seeds_and_arms_and_not_of_comments(change):
    before, after, same = (
        frozen.digests(parse("positions", tree), "confirm")
        for tree in (repeatable(), repeatable(**change), repeatable(doubts="Other words."))
    )
    assert before == same
    assert before.keys() == after.keys()
    assert all(before[name] != after[name] for name in before)
