"""Speed is measured on an idle machine, and equal time is converted to a number of steps."""

import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from omegaconf import OmegaConf
from support import STUDY, Cut, configure

from patchbench.config.equal_time import COLUMNS, FILE, IDLE, at_equal_time, computation, read_costs
from patchbench.config.options import EXPERIMENTS
from patchbench.config.plan import overrides, parts_at, read_study
from patchbench.runs.sums import SUMS
from patchbench.sweep import costs
from patchbench.track.busy import count_busy_cores, own_seconds

STEPS = 20
ARMS = {"none": ["pos=none"], "learned": ["pos=learned"], "fast": ["pos=learned", "optim.lr=0.1", "epochs=9"]}
NAMES: dict = {"study": "positions", "scale": "cpu", "part": "digits"}


def key(*overrides: str) -> str:
    cfg = configure(*overrides)
    return computation(cfg, cfg.hydra.runtime.choices)


@pytest.mark.parametrize(
    "same", ["seed=3", "epochs=9", "optim.lr=1", "tested=last", "budget=steps", "data.val_size=9", "freeze=null"]
)
def test_what_a_step_does_not_compute_does_not_count(same):
    assert key("model=micro", same) == key("model=micro")


@pytest.mark.parametrize(
    "other", ["patch=8", "data.img_size=32", "batch_size=16", "embed=linear", "optim=sgd", "freeze=trunk"]
)
def test_what_a_step_computes_counts(other):
    assert key("model=micro", other) != key("model=micro")


def test_the_speeds_that_were_measured_are_those_of_the_arms_of_today():
    study, measured = read_study("cost"), read_costs(EXPERIMENTS / "cost")
    for part in parts_at(study, "cpu"):
        found = {arm: key(*overrides(study, "cpu", part, arm, "")) for arm in part.arms}
        rows = measured[measured["part"] == part.name].groupby("arm")["computation"].unique()
        assert {arm: [digest] for arm, digest in found.items()} == {arm: list(rows[arm]) for arm in found}


def table(**speeds: list[float]) -> pd.DataFrame:
    """Return the costs of arms of the part digits, by name, with one speed per round."""
    rows = [
        {"part": "digits", "arm": arm, "round": n, "images_per_s": speed, "computation": key(*ARMS[arm])}
        for arm, given in speeds.items()
        for n, speed in enumerate(given)
    ]
    return pd.DataFrame(rows).reindex(columns=COLUMNS)


def test_equal_time_is_steps_at_the_median_speed():
    measured = table(none=[3200.0, 6400.0, 3180.0], learned=[1600.0])
    given = ("pos=none",)
    assert at_equal_time(given, 4, measured, arm="none", **NAMES) == (*given, "budget=steps", "budget.value=400")
    assert at_equal_time(["pos=learned"], 4.0, measured, arm="learned", **NAMES)[-1] == "budget.value=200"
    assert at_equal_time(["pos=learned"], 1e-9, measured, arm="learned", **NAMES)[-1] == "budget.value=1"
    cfg = configure(*at_equal_time(given, 4, measured, arm="none", **NAMES))
    assert (cfg.hydra.runtime.choices.budget, cfg.budget.value) == ("steps", 400)
    shown = ["pos=none", "budget=steps", "budget.value=8"]
    assert at_equal_time(shown, 4, table(learned=[1.0]), arm="none", **NAMES) == tuple(shown), "to see that it runs"


def test_equal_time_without_a_speed_names_the_command_that_measures_it():
    command = r"python scripts/costs\.py positions scale=cpu"
    with pytest.raises(ValueError, match=rf"part digits, arm none: seconds=4 .*costs\.csv lacks: .*{command}"):
        at_equal_time(["pos=none"], 4, table(learned=[1.0]), arm="none", **NAMES)
    with pytest.raises(ValueError, match=rf"another network or data set under this name: .*{command}"):
        at_equal_time(["pos=none", "patch=8"], 4, table(none=[1.0]), arm="none", **NAMES)
    with pytest.raises(ValueError, match="seconds=0 must be above 0"):
        at_equal_time(["pos=none"], 0, table(none=[1.0]), arm="none", **NAMES)


def test_the_work_of_others_is_told_from_ones_own():
    burn = "import time; end = time.time() + 30\nwhile time.time() < end: pass"
    with subprocess.Popen([sys.executable, "-c", burn]) as own:
        time.sleep(0.5)
        before = own_seconds()
        with count_busy_cores() as used:
            time.sleep(1)
        gained = own_seconds() - before
        own.kill()
    assert gained > 0.05
    assert used[0] >= 0
    assert own_seconds() >= before + gained - 0.05, "also when it has ended"
    orphan = f"import subprocess, sys; print(subprocess.Popen([sys.executable, '-c', {burn!r}], stdout=2).pid)"
    said = subprocess.run([sys.executable, "-c", orphan], check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        time.sleep(0.5)
        with count_busy_cores() as used:
            time.sleep(1)
        assert used[0] > IDLE, "it is not ours"
    finally:
        subprocess.run(["kill", said.stdout.decode().strip()], check=True)


@pytest.fixture
def experiments(tmp_path) -> Path:
    folder = tmp_path / "experiments" / "positions"
    folder.mkdir(parents=True)
    study = {**STUDY, "arms": ARMS, "overrides": [*STUDY["overrides"], "trainer=cpu"]}
    del study["factors"]
    OmegaConf.save(OmegaConf.create(study), folder / "study.yaml")
    return folder.parent


@pytest.mark.slow
def test_arms_are_measured_and_a_start_that_was_cut_off_goes_on(experiments, tmp_path, monkeypatch, capsys):
    given: dict = {"rounds": 1, "steps": STEPS, "busy": True, "runs_dir": tmp_path / "runs", "experiments": experiments}
    folder, run, calls = experiments / "positions", costs.run, []

    def counted(*arguments):
        calls.append(arguments)
        if len(calls) == 2:
            raise Cut
        return run(*arguments)

    monkeypatch.setattr(costs, "run", counted)
    with pytest.raises(Cut):
        costs.measure("positions", "cpu", again=False, **given)
    assert len(read_costs(folder, costs.PARTIAL)) == 1
    assert not (folder / FILE).exists(), "no budget follows from half of it"
    costs.measure("positions", "cpu", again=False, **given)
    assert len(calls) == 3, "learned and fast compute the same, and none was measured before"
    said = capsys.readouterr().out
    assert (
        "measured once, as digits, learned, since their computations are equal: digits, learned; digits, fast" in said
    )
    assert [path.name for path in folder.iterdir() if "costs" in path.name] == [FILE]
    rows = read_costs(folder).set_index("arm")
    assert list(rows.index) == list(ARMS)
    assert rows.loc["learned"].equals(rows.loc["fast"])
    assert (rows["batch_size"] == 32).all()
    assert (rows["images_per_s"] > 0).all()
    assert (rows["memory"] > 0.05).all()
    assert not (tmp_path / "runs").exists(), "what is measured is no run"
    before = (folder / FILE).read_bytes()
    costs.measure("positions", "cpu", again=False, **given)
    assert ((folder / FILE).read_bytes(), len(calls)) == (before, 3), "nothing is missing"
    text = before.decode().replace(rows["device"].iloc[0], "another machine")
    (folder / FILE).write_text(text)
    (folder / SUMS).unlink()
    with pytest.raises(ValueError, match=r"was measured on another machine, and this is .*--again"):
        costs.measure("positions", "cpu", again=False, **given)
    steps = at_equal_time(["pos=none", *STUDY["overrides"], "trainer=cpu"], 2, rows.reset_index(), arm="none", **NAMES)
    assert int(steps[-1].partition("=")[2]) == max(1, round(2 * rows.loc["none", "images_per_s"] / 32))


def test_a_machine_that_is_not_idle_is_refused_and_what_is_no_arm_too(experiments, tmp_path, monkeypatch):
    given: dict = {"rounds": 1, "steps": STEPS, "again": False, "runs_dir": tmp_path, "experiments": experiments}
    monkeypatch.setattr(costs, "PATIENCE_S", 0.0)
    monkeypatch.setattr(costs, "IDLE", -1.0)  # which no machine is
    with pytest.raises(ValueError, match=r"other processes use .* of \d+ cores, more than -1, .*--busy"):
        costs.measure("positions", "cpu", busy=False, **given)
    with pytest.raises(ValueError, match="give rounds=1 or more, and steps=20 or more"):
        costs.measure("positions", "cpu", busy=True, **given | {"steps": 3})
