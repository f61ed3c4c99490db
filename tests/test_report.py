"""From real runs to the pages: of a study, of any sweep, of all studies; and every study.yaml can be run."""

import json
import math
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from omegaconf import OmegaConf
from patchbench.study.stats import t_estimate
from support import ROOT, STUDY, configure, options

from patchbench.commands.report import report_all, report_study, report_sweep
from patchbench.config.identity import identity_of
from patchbench.config.plan import cells, identities, overrides, parts_at, read_study, studies
from patchbench.pages.dashboard.gather import gather
from patchbench.runs.records import load
from patchbench.study.numbers import pareto, train_gflops


@pytest.fixture(scope="module")
def swept(tmp_path_factory) -> Path:
    """A sweep of real runs: two schemes, three seeds."""
    folder = tmp_path_factory.mktemp("sweep")
    line = [
        sys.executable,
        str(ROOT / "train.py"),
        "-m",
        *STUDY["overrides"],
        "trainer=cpu",
        "pos=none,learned",
        "seed=0,1,2",
    ]
    subprocess.run(line, cwd=folder, check=True, capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    return folder / "runs"


@pytest.fixture
def runs(swept, tmp_path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(swept, tmp_path / "runs"))


@pytest.fixture
def experiments(tmp_path) -> Path:
    folder = tmp_path / "experiments" / "positions"
    folder.mkdir(parents=True)
    OmegaConf.save(OmegaConf.create(STUDY), folder / "study.yaml")
    return folder.parent


def test_records_are_a_table_of_what_the_runs_say(runs):
    table = load(runs)
    assert len(table) == 6
    for row in table.itertuples():
        record = json.loads((runs / row.run / "run.json").read_text())
        assert (row.identity, row.pos, row.seed, row.status) == (
            record["identity"],
            record["factors"]["pos"],
            record["factors"]["seed"],
            "done",
        )
    assert table["test/acc"].notna().all()
    assert {"commit", "device", "torch", "epochs", "batch_size"} <= set(table)
    assert "optim.lr" not in table, "it takes one value only"


def test_ten_thousand_records_are_read_in_seconds(runs, tmp_path):
    one = (next(runs.glob("*/run.json"))).read_text()
    many = tmp_path / "many"
    for i in range(500):
        (many / f"conv-4_none_digits_s{i}_{i:08x}").mkdir(parents=True)
        (many / f"conv-4_none_digits_s{i}_{i:08x}" / "run.json").write_text(one)
    start = time.process_time()
    assert len(load(many)) == 500
    assert (time.process_time() - start) * 20 < 30


def test_a_run_without_a_record_has_a_row_that_says_how_it_ended(runs):
    ended = {"aaaaaaaa": "Traceback ...\npatchbench.track.meter.Diverged: training diverged", "bbbbbbbb": "OSError: no"}
    for identity, said in ended.items():
        (runs / f"conv-4_none_digits_s9_{identity}").mkdir()
        (runs / f"conv-4_none_digits_s9_{identity}" / "log.txt").write_text(said)
    (runs / "conv-4_none_digits_s9_cccccccc").mkdir()
    status = load(runs).set_index("identity")["status"]
    assert status[["aaaaaaaa", "bbbbbbbb", "cccccccc"]].tolist() == ["diverged", "failed", "unfinished"]
    assert (status == "done").sum() == 6


def test_runs_in_folders_of_any_name_count_and_copies_count_once(runs, experiments):
    """Folders as hydra.run.dir makes them, or a person who renames, moves or copies one."""
    first, second, third, *_ = load(runs)["run"]
    (runs / "kept").mkdir()
    (runs / first).rename(runs / "the best one")
    (runs / second).rename(runs / "kept" / "nested")
    shutil.copytree(runs / third, runs / f"copy of {third}")
    (runs / "half").mkdir()
    (runs / "half" / "metrics.csv").write_text("step,name,value\n1,train/loss,2.0\n")
    shutil.copytree(runs / third, runs / "wandb" / "of another tool")
    table = load(runs)
    assert {"the best one", "kept/nested", "half", f"copy of {third}"} <= set(table["run"])
    assert table["status"].tolist().count("done") == 7
    assert table.set_index("run")["status"]["half"] == "unfinished"
    report_study("positions", runs, experiments=experiments)
    assert "6 of 6 planned runs have a result" in (experiments / "positions" / "report.md").read_text()
    [arms] = [table for table in tables(report_sweep(runs, {}).with_suffix(".md").read_text()) if "seeds" in table[0]][
        :1
    ]
    assert [row["seeds"] for row in arms] == ["3", "3"]
    shown = {run["run"]: run for run in rows_of(gather(runs, runs / "dashboard.html"))}
    assert shown["kept/nested"]["status"] == "done"


def rows_of(page: dict) -> list[dict]:
    """The rows of a dashboard by the names of its columns."""
    names = [column["name"] for column in page["columns"]]
    return [dict(zip(names, row, strict=True)) for row in page["rows"]]


def tables(text: str) -> list[list[dict[str, str]]]:
    """The tables of a page of Markdown, row by row."""
    found = []
    for block in re.findall(r"(?:^\|.*\n)+", text, flags=re.MULTILINE):
        header, _, *rows = [[cell.strip() for cell in line.strip("|\n").split("|")] for line in block.splitlines()]
        found.append([dict(zip(header, row, strict=True)) for row in rows])
    return found


def check_page(path: Path) -> None:
    """Complete, and nothing in it is fetched from elsewhere."""
    page = path.read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>")
    assert page.endswith("</html>\n")
    sources = re.findall(r'(?:src|href)="(.*?)"', page)
    assert len(sources) >= 3
    assert all(source.startswith("data:image/svg+xml;base64,") for source in sources)
    assert page.count("<img ") == page.count('<figure><label class="zoom">'), "a tap enlarges every figure"
    assert not re.search(r"\*", re.sub(r"<pre>.*?</pre>|<style>.*?</style>", "", page, flags=re.DOTALL)), "unclosed"
    assert not re.search(r"https?://|@import|<script|<link", page)
    assert all(re.findall(r'<img [^>]*alt="(.*?)"', page))
    assert not re.search(r"\bnan\b|\binf\b", re.sub(r'"data:.*?"', "", page))


def test_a_study_has_pages_whose_numbers_are_those_of_its_runs(runs, experiments):
    path = report_study("positions", runs, experiments=experiments)
    check_page(path)
    folder = experiments / "positions"
    text, kept = (folder / "report.md").read_text(), pd.read_csv(folder / "runs.csv", keep_default_na=False)
    assert "**Undetermined.**" in text
    assert "3 seeds; fewer than 6 can support nothing" in text
    assert "6 of 6 planned runs have a result" in text, "the scale of which the runs are, cpu, was not found"
    [arms] = [table for table in tables(text) if "noise of the test set" in table[0]]
    for row in arms:
        values = kept[kept["arm"] == row["arm"]]["test/acc"].astype(float).to_numpy()
        e = t_estimate(values)
        assert (int(row["seeds"]), row["test accuracy"]) == (3, f"{100 * e.mean:.2f} %")
        low, high = max(e.low, 0), min(e.high, 1)
        assert row["95 % interval (t)"] == f"{100 * low:.2f} to {100 * high:.2f} %"
        records = [json.loads(p.read_text()) for p in runs.glob("*/run.json")]
        ours = [r["result"]["test/acc"] for r in records if r["factors"]["pos"] == row["arm"]]
        assert sorted(values) == pytest.approx(sorted(ours))
    for name in re.findall(r"\]\((\w+\.svg)\)", text):
        assert (folder / name).read_text().startswith("<?xml")
    assert "64.2" in text
    assert f"python scripts/report.py positions scale=cpu runs_dir={runs}" in text


def test_every_planned_run_is_found_by_what_train_py_makes_of_its_overrides(experiments):
    study = read_study("positions", experiments)
    planned = cells(study, "cpu")
    found = identities(study, planned)
    assert len(set(found)) == len(planned) == 6
    for cell, identity in zip(planned, found, strict=True):
        cfg = configure(*cell.overrides)
        assert identity_of(cfg, cfg.hydra.runtime.choices) == identity


def test_what_failed_and_what_is_missing_is_told(runs, experiments):
    learned = load(runs).set_index(["pos", "seed"])["run"]
    shutil.rmtree(runs / learned["learned", 0])
    for seed, said in ((1, "OSError: disk full"), (2, "Diverged: training diverged")):
        (runs / learned["learned", seed] / "run.json").unlink()
        (runs / learned["learned", seed] / "log.txt").write_text(said)
    report_study("positions", runs, "cpu", experiments=experiments)
    text = (experiments / "positions" / "report.md").read_text()
    [told] = [table for table in tables(text) if "status" in table[0]]
    assert {(row["arm"], row["status"], row["seeds"]) for row in told} == {
        ("learned", "not run", "0"),
        ("learned", "failed", "1"),
        ("learned", "diverged", "2"),
    }
    assert "3 of 6 planned runs have a result" in text
    assert "2 runs without a result, the first of learned: seed 0 not run" in text, "guessing is known: diverged counts"


def test_a_study_none_of_which_was_run_has_a_page_too(tmp_path, experiments):
    (tmp_path / "empty").mkdir()
    report_study("positions", tmp_path / "empty", "cpu", experiments=experiments)
    assert "0 of 6 planned runs" in (experiments / "positions" / "report.md").read_text()


def test_results_are_not_overwritten_by_none(runs, experiments, tmp_path):
    report_study("positions", runs, "cpu", experiments=experiments)
    before = (experiments / "positions" / "runs.csv").read_text()
    other = STUDY | {"overrides": [*STUDY["overrides"], "optim.lr=0.1"]}  # of which nothing was run, here or elsewhere
    OmegaConf.save(OmegaConf.create(other), experiments / "positions" / "study.yaml")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no finished run of study positions"):
        report_study("positions", tmp_path / "empty", "cpu", experiments=experiments)
    assert (experiments / "positions" / "runs.csv").read_text() == before


def test_any_sweep_has_the_same_tables_over_what_varies(runs):
    path = report_sweep(runs, {}, against="none")
    check_page(path)
    text = (path.parent / "report.md").read_text()
    arms, differences = (next(t for t in tables(text) if key in t[0]) for key in ("tokens", "measured"))
    assert [row["arm"] for row in arms] == ["learned", "none"]
    means = {row["arm"]: float(row["test accuracy"].removesuffix(" %")) for row in arms}
    [difference] = differences
    assert float(difference["measured"].split()[0]) == pytest.approx(means["learned"] - means["none"], abs=0.06)
    assert difference["verdict"] == "not told apart"
    (runs / "conv-4_none_digits_s9_aaaaaaaa").mkdir()
    report_sweep(runs, {})
    [told] = [table for table in tables((path.parent / "report.md").read_text()) if "status" in table[0]]
    assert [(row["arm"], row["status"]) for row in told] == [("conv-4_none_digits_s9_aaaaaaaa", "unfinished")]
    one = report_sweep(runs, {"pos": "none"})
    assert "3 of 3 runs have a result: 1 arm in 1 part, 3 seeds." in (one.parent / "report.md").read_text()
    with pytest.raises(ValueError, match="no finished run of these"):
        report_sweep(runs, {"data": "mnist"})
    with pytest.raises(ValueError, match="is no arm"):
        report_sweep(runs, {}, against="rope")


def test_the_table_of_all_studies_needs_no_runs(runs, experiments):
    assert "not run yet" in report_all(experiments).read_text()
    report_study("positions", runs, experiments=experiments)
    shutil.rmtree(runs)
    [[row]] = tables(report_all(experiments).read_text())
    assert row["verdict"] == "? **undetermined**"
    text = (experiments / "positions" / "report.md").read_text()
    [said] = [table for table in tables(text) if "true if" in table[0]]
    assert said[0]["measured"] in row["effect, 95 % interval"]


def test_training_computation_has_the_share_of_an_image_in_what_a_step_computes_once():
    cells = pd.DataFrame({"model/gmacs": [1.0, 2.0], "model/gmacs_per_step": [None, 8.0], "batch_size": [2, 4]})
    assert train_gflops(cells).tolist() == [6.0, 24.0]
    assert train_gflops(cells[["model/gmacs", "batch_size"]]).tolist() == [6.0, 12.0], "no run has such a part"


def test_the_pareto_front_has_what_nothing_beats():
    cost, gain = [1.0, 2.0, 3.0, 3.0, 2.0], [0.5, 0.7, 0.7, 0.9, 0.7]
    assert pareto(cost, gain, more_is_better=False) == [True, True, False, True, True]
    assert pareto([-c for c in cost], gain, more_is_better=True) == [True, True, False, True, True]


def test_refusals_are_one_line(command, tmp_path):
    done = command("scripts/report.py", "no_such_study")
    assert done.returncode == 2
    assert done.stderr.startswith("error: no_such_study is neither a folder of runs nor a study")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("name", studies())
def test_every_study_can_be_run_at_every_scale_and_could_find_something(name):
    study = read_study(name)
    assert (ROOT / "experiments" / name / "README.md").exists()
    there = options("data")
    for scale, body in study.scales.items():
        for part in parts_at(study, scale):
            if any(o.startswith("data=") and o.removeprefix("data=") not in there for o in part.overrides):
                continue
            for arm in part.arms:
                configure(*overrides(study, scale, part, arm))
        statements = sum(len(part.comparisons) for part in parts_at(study, scale))
        if scale != "smoke":
            p = 2 / 2 ** len(body.seeds)
            assert p * statements <= 0.05, (
                f"{scale}: {statements} statements need {math.log2(40 * statements):.1f} seeds"
            )
