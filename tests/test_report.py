"""Pages of real runs: of a study, of a sweep, of all studies; and every study.yaml can be run."""

import json
import re
import shutil
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from omegaconf import OmegaConf
from support import STUDY, configure, options, run, some
from test_rule import cells as planted
from test_rule import curves, solved_of, tree

from patchbench.commands.report import report_all, report_study, report_sweep
from patchbench.config.identity import identity_of
from patchbench.config.plan import cells, identities, overrides, parts_at, read_study, studies
from patchbench.pages.dashboard.gather import gather
from patchbench.pages.study.numbers import Report, pareto, t_estimate, train_gflops
from patchbench.pages.study.page import markdown, page
from patchbench.runs.committed import read_runs, write_runs
from patchbench.runs.records import load
from patchbench.statistics.amounts import difference, sum_of_means
from patchbench.statistics.inference import exact_accuracy, least_seeds
from patchbench.study.outcomes import Evidence, population
from patchbench.study.reading import parse
from patchbench.study.verdict import HOW_MUCH, NO, NOT_RUN, OPEN, WITHDRAWN, YES, judge


@pytest.fixture
def runs(study_runs, tmp_path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(study_runs, tmp_path / "runs"))


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
    """Folders may have other names by hydra.run.dir, or after a person has renamed, moved or copied them."""
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
    assert "6 of 6 planned runs have a result" in page_of(experiments)
    arms = arms_of((report_sweep(runs, {}).parent / "README.md").read_text())
    assert [row["seeds"] for row in arms] == ["3", "3"]
    shown = {run["run"]: run for run in rows_of(gather(runs, runs / "dashboard.html"))}
    assert shown["kept/nested"]["status"] == "done"


def rows_of(page: dict) -> list[dict]:
    """Return the rows of a dashboard by the names of its columns."""
    names = [column["name"] for column in page["columns"]]
    return [dict(zip(names, row, strict=True)) for row in page["rows"]]


def page_of(experiments: Path) -> str:
    return (experiments / "positions" / "README.md").read_text()


def arms_of(text: str) -> list[dict[str, str]]:
    """Return the rows of the only table of arms on a page."""
    [rows] = [table for table in tables(text) if "test noise" in table[0]]
    return rows


def tables(text: str) -> list[list[dict[str, str]]]:
    """Return the tables of a Markdown page, row by row."""
    found = []
    for block in re.findall(r"(?:^\|.*\n)+", text, flags=re.MULTILINE):
        header, _, *rows = [[cell.strip() for cell in line.strip("|\n").split("|")] for line in block.splitlines()]
        found.append([dict(zip(header, row, strict=True)) for row in rows])
    return found


def check_page(path: Path) -> None:
    """Check that a page is complete, has pictures, and refers to no other file."""
    check_text(path)
    assert path.read_text(encoding="utf-8").count("<img ") >= 3


def check_text(path: Path) -> None:
    page = path.read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>")
    assert page.endswith("</html>\n")
    sources = re.findall(r'(?:src|href)="(.*?)"', page)
    assert all(source.startswith("data:image/svg+xml;base64,") for source in sources)
    assert page.count("<img ") == page.count('<figure><label class="zoom">'), "a tap enlarges every figure"
    assert not re.search(r"\*", re.sub(r"<pre>.*?</pre>|<style>.*?</style>", "", page, flags=re.DOTALL)), "unclosed"
    assert not re.search(r"https?://|@import|<script|<link", page)
    assert all(re.findall(r'<img [^>]*alt="(.*?)"', page))
    assert not re.search(r"\bnan\b|\binf\b", re.sub(r'"data:.*?"', "", page))


def accuracies(runs: Path, arm: str) -> np.ndarray:
    """Return the test accuracies of the seeds of a scheme, from the records."""
    records = [json.loads(path.read_text()) for path in runs.glob("*/run.json")]
    return np.array([r["result"]["test/acc"] for r in records if r["factors"]["pos"] == arm])


def test_a_study_has_pages_whose_numbers_are_those_of_its_runs(runs, experiments):
    path = report_study("positions", runs, experiments=experiments)
    check_page(path)
    folder, text = experiments / "positions", page_of(experiments)
    kept = pd.read_csv(folder / "runs.csv", keep_default_na=False)
    assert "6 of 6 planned runs have a result" in text, "the scale of which the runs are, cpu, was not found"
    for row in arms_of(text):
        values = accuracies(runs, row["arm"])
        assert sorted(kept[kept["arm"] == row["arm"]]["test/acc"].astype(float)) == pytest.approx(sorted(values))
        e = t_estimate(values)
        assert (int(row["seeds"]), row["test accuracy"]) == (3, f"{100 * e.mean:.2f} %")
        low, high = max(e.low, 0), min(e.high, 1)
        assert row["95 % interval (t)"] == f"{100 * low:.2f} to {100 * high:.2f} %"
    for name in re.findall(r"\]\((\w+\.svg)\)", text):
        assert (folder / name).read_text().startswith("<?xml")
    for words in ("64.2", "Eight steps teach nobody anything.", "| 2026-11-26 | The margin. | A slip. | no |"):
        assert words in text
    assert "python scripts/report.py positions scale=cpu\n" in text


def test_statements_and_effects_have_the_amounts_of_the_runs(runs, experiments):
    report_study("positions", runs, experiments=experiments)
    text, images = page_of(experiments), int(load(runs)["test/images"].iloc[0])
    learned, none = (exact_accuracy(accuracies(runs, arm), images) for arm in ("learned", "none"))
    gain = difference(learned, none)
    [said] = [table for table in tables(text) if "true if" in table[0]]
    helps, reads, doubles = said
    assert helps["compared"] == "digits: learned − none"
    assert in_points(helps["measured"]) == pytest.approx(100 * gain.estimate, abs=0.06)
    assert (gain.interval()[0], helps["95 % interval"]) == (-np.inf, "no interval"), "three seeds leave none at 95 %"
    low, high = sum_of_means((1,), (none,)).interval()
    ends = [in_points(end) for end in reads["95 % interval"].split(" to ")]
    assert ends == pytest.approx([100 * max(low, 0), 100 * high], abs=0.06)
    assert float(helps["p"]) == pytest.approx(gain.p(0.0), rel=0.05)
    assert helps["answer"].startswith(f"**{OPEN}**"), "three seeds decide no difference"
    assert helps["true if"] == "above 0 pt"
    assert in_points(reads["measured"]) == pytest.approx(100 * none.mean(), abs=0.06)
    assert (reads["answer"], reads["p, corrected"]) == (f"**{NO}**", "")
    assert (doubles["answer"], doubles["p"]) == (f"**{WITHDRAWN}**", "")
    assert "> **Open.** “Learned positions help.”" in text
    assert helps["measured"] in text.split("**Open.**")[1].split("\n\n")[0], "the head has the amount of the table"
    [[effect]] = [table for table in tables(text) if "from → to" in table[0]]
    assert (effect["from → to"], effect["budget"]) == ("none → learned", "2 epochs, 3 seeds")
    assert effect["effect"] == helps["measured"]
    assert effect["95 % interval"] == helps["95 % interval"]


def in_points(text: str) -> float:
    """Return the number at the start of +1.3 pt, 25.2 % or +49.1."""
    return float(text.split()[0])


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
    text = page_of(experiments)
    [told] = [table for table in tables(text) if "status" in table[0]]
    assert {(row["arm"], row["status"], row["seeds"]) for row in told} == {
        ("learned", "not run", "0"),
        ("learned", "failed", "1"),
        ("learned", "diverged", "2"),
    }
    assert "3 of 6 planned runs have a result" in text
    assert "2 runs have no result, the first of arm learned: seed 0 not run" in text, (
        "guessing is known: diverged counts"
    )


def test_a_study_none_of_which_was_run_has_a_page_too(tmp_path, experiments):
    (tmp_path / "empty").mkdir()
    check_text(report_study("positions", tmp_path / "empty", "cpu", experiments=experiments))
    assert "0 of 6 planned runs" in page_of(experiments)
    assert "> **Not tested.** “Learned positions help.”" in page_of(experiments)


def test_results_are_not_overwritten_by_none(runs, experiments, tmp_path):
    report_study("positions", runs, "cpu", experiments=experiments)
    before = (experiments / "positions" / "runs.csv").read_text()
    other = STUDY | {"overrides": [*STUDY["overrides"], "optim.lr=0.1"]}  # of which nothing was run, here or elsewhere
    OmegaConf.save(OmegaConf.create(other), experiments / "positions" / "study.yaml")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no finished run of study positions"):
        report_study("positions", tmp_path / "empty", "cpu", experiments=experiments)
    assert (experiments / "positions" / "runs.csv").read_text() == before


def test_any_sweep_has_the_same_tables_over_what_varies(runs, capsys):
    path = report_sweep(runs, {}, against="none", show=True)
    assert re.search(r"^learned − none on digits, \S+ pt \(no interval\): cannot be told", capsys.readouterr().out)
    check_page(path)
    text = (path.parent / "README.md").read_text()
    arms, differences = (next(t for t in tables(text) if key in t[0]) for key in ("test noise", "verdict"))
    assert [row["arm"] for row in arms] == ["none", "learned"], "the arm that others are compared with comes first"
    assert "Each arm is compared with the arm none." in text
    assert text.count(f"python scripts/report.py {runs} against=none") == 1, "the same command makes the same page"
    means = {row["arm"]: in_points(row["test accuracy"]) for row in arms}
    [compared] = differences
    assert in_points(compared["measured"]) == pytest.approx(means["learned"] - means["none"], abs=0.06)
    assert compared["verdict"] == "cannot be told: too few runs for an interval"
    (runs / "conv-4_none_digits_s9_aaaaaaaa").mkdir()
    report_sweep(runs, {})
    [told] = [table for table in tables((path.parent / "README.md").read_text()) if "status" in table[0]]
    assert [(row["arm"], row["status"]) for row in told] == [("conv-4_none_digits_s9_aaaaaaaa", "unfinished")]
    one = report_sweep(runs, {"pos": "none"})
    assert "3 of 3 runs have a result: 1 arm in 1 part, 3 seeds." in (one.parent / "README.md").read_text()
    with pytest.raises(ValueError, match="no finished run with these values"):
        report_sweep(runs, {"data": "mnist"})
    with pytest.raises(ValueError, match="is no arm"):
        report_sweep(runs, {}, against="rope")


def test_the_pages_over_all_studies_need_no_runs(runs, experiments):
    for path in report_all(experiments):
        assert path.read_text().startswith("# ")
    assert "No study has been run." in (experiments / "effects.md").read_text()
    report_study("positions", runs, experiments=experiments)
    shutil.rmtree(runs)
    written = report_all(experiments)
    assert [path.name for path in written] == ["effects.md", "predictions.md", "errata.md"]
    effects, predictions, errata = (path.read_text() for path in written)

    [own] = [table for table in tables(page_of(experiments)) if "from → to" in table[0]]
    assert own in tables(effects)
    assert "(positions/README.md)" in effects
    assert "Intervals apply to all seeds, on these" in effects
    assert (experiments / "effects.svg").read_text().startswith("<?xml")

    [rows] = tables(predictions)
    assert "0 of 1 decided predictions came true; 1 of 2 predictions are not decided." in predictions
    assert [(row["statement"], row["predicted"], row["found"], row[""]) for row in rows] == [
        ("Without positions, digits cannot be read at all.", "yes", NO, "**wrong**"),
        ("Learned positions help.", "yes", OPEN, ""),
    ]

    withdrawn, changed = tables(errata)
    assert [(row["study"], row["why"]) for row in withdrawn] == [("positions", "Nobody had asked.")]
    assert "“Learned positions double the accuracy.”" in withdrawn[0]["statements"]
    assert [tuple(row.values()) for row in changed] == [("2026-11-26", "positions", "The margin.", "A slip.", "no")]


def test_runs_of_other_options_than_those_of_today_answer_nothing(runs, experiments):
    report_study("positions", runs, experiments=experiments)
    report_all(experiments)
    old = {**STUDY, "overrides": [*STUDY["overrides"], "data.img_size=24"]}
    OmegaConf.save(OmegaConf.create(old), experiments / "positions" / "study.yaml")
    with pytest.raises(ValueError, match=r"runs\.csv: part digits, arm none was run with other options") as refused:
        report_all(experiments)
    assert "\n" not in str(refused.value)


def test_runs_of_earlier_options_are_taken_as_they_were_recorded(runs, experiments):
    report_study("positions", runs, experiments=experiments)
    folder = experiments / "positions"
    before, kept = tables(page_of(experiments)), (folder / "runs.csv").read_text()
    old = {**STUDY, "overrides": [*STUDY["overrides"], "data.img_size=24"], "as_recorded": "Images had 16 pixels."}
    OmegaConf.save(OmegaConf.create(old), folder / "study.yaml")
    shutil.rmtree(runs)
    for runs_dir in (runs, Path("runs")):
        report_study("positions", runs_dir, "cpu", experiments=experiments)
        text = page_of(experiments)
        assert [table for table in tables(text) if "true if" in table[0] or "from → to" in table[0]] == [
            table for table in before if "true if" in table[0] or "from → to" in table[0]
        ]
        assert "**Note:** Images had 16 pixels." in text
        assert "The runs:" not in text, "no command of today makes them"
        assert (folder / "runs.csv").read_text() == kept
    more = {**old, "scales": {**STUDY["scales"], "cpu": {"seeds": "0-3"}}}
    OmegaConf.save(OmegaConf.create(more), folder / "study.yaml")
    report_study("positions", runs, "cpu", experiments=experiments)
    assert "6 of 8 planned runs have a result" in page_of(experiments), "a run that was planned and not made is told"


def test_runs_whose_test_images_are_drawn_anew_speak_of_all_images(tmp_path):
    few = ["model=micro", "data=quadrant", "limit_batches=2", "epochs=1", "data.train_size=64", "data.test_size=64"]
    part = parse("test", tree({"that": "a", "above": 0})).parts[0]
    for drawn, said in (("${seed}", "all images that the set can draw"), ("7", "all seeds, on these 64 test images")):
        runs = tmp_path / drawn.strip("${}")
        for seed in (0, 1):
            run(runs / f"a_{seed:08x}", *few, f"seed={seed}", f"data.eval_seed={drawn}")
        records = load(runs, knobs=False)
        write_runs(runs / "runs.csv", records.assign(part="one", arm="a", rung=""))
        for table in (records.assign(part="one"), read_runs(runs / "runs.csv")):
            assert said in population(part, table, {})


A, B = np.linspace(0.93, 0.95, 6), np.linspace(0.91, 0.93, 6)
PLANTED = {  # by its answer: a statement, its part, and the results of the arms a and b
    YES: ({"that": "a - b", "above": 0.0}, {}, {"a": A, "b": B}),
    NO: ({"order": ["a", "b"]}, {}, {"a": A, "b": B}),
    OPEN: ({"that": "a - b", "above": 0.02}, {}, {"a": A, "b": B}),
    f"{OPEN}, not one result of an arm": ({"that": "a - b", "above": 0.0}, {}, {"a": A, "b": ["failed"] * 6}),
    f"{OPEN}, one seed": ({"that": "a - b", "above": 0.0}, {}, {"a": A[:1], "b": B[:1]}),
    f"{OPEN}, no spread": ({"that": "a - b", "above": 0.0}, {}, {"a": [0.5] * 3, "b": [0.5] * 3}),
    HOW_MUCH: ({"that": "a - b", "above": 0.0}, {"ladder": {"epochs": [15, 30]}}, {"a": A, "b": B}),
    NOT_RUN: ({"that": "a - b", "above": 0.0}, {}, {"a": ["not run"] * 6, "b": ["not run"] * 6}),
    WITHDRAWN: ({"that": "a - b", "above": 0.0, "withdrawn": "A slip."}, {}, {"a": A, "b": B}),
    f"{YES}, solved": (
        {"that": "a - b", "metric": "solved", "above": 0.0},
        {"solved": 0.9, "chance": 0.5},
        {"a": solved_of(6, 6), "b": ["diverged", *solved_of(0, 5)]},
    ),
    f"{YES}, steps": ({"that": "a - b", "metric": "steps_to_solve", "below": 0}, {"solved": 0.9}, {"a": A, "b": B}),
    f"{YES}, steps of seeds that never solve": (
        {"that": "b - a", "metric": "steps_to_solve", "above": 0},
        {"solved": 0.9},
        {"a": solved_of(6, 6), "b": solved_of(0, 6)},
    ),
    f"{OPEN}, steps of seeds of which none solves": (
        {"that": "b - a", "metric": "steps_to_solve", "above": 0},
        {"solved": 0.9},
        {"a": solved_of(0, 6), "b": solved_of(0, 6)},
    ),
}


@pytest.mark.parametrize("case", some(PLANTED, YES, f"{OPEN}, one seed", HOW_MUCH, f"{YES}, steps"))
def test_every_answer_has_a_page_that_tells_it(case):
    statement, part, scores = PLANTED[case]
    study = parse("test", tree(statement, arms="a b", effects={"embed": ["a - b"]}, **part))
    rungs = ("15", "30") if "ladder" in part else ("",)
    table = pd.concat([planted(rung, images=400, **{arm: shifted(values, rung) for arm, values in scores.items()})
                       for rung in rungs])  # fmt: skip
    table = table.assign(**{"model/tokens": 16, "model/gmacs": 1.0}, batch_size=32)
    steps = {arm: [at if value > 0.9 else None for value in values if not isinstance(value, str)]
             for (arm, values), at in zip(scores.items(), (100, 300), strict=True)}  # fmt: skip
    points = pd.concat([curves(rung, **steps) for rung in rungs])
    if len(points):
        points = points.assign(epoch=points["step"] // 50, images=32.0 * points["step"], gflops=points["step"])
    evidence = Evidence(table, points)
    report = Report(study, "cpu", evidence, judge(study, evidence), ["python x"], "python y")
    [finding] = report.judgement.findings
    assert finding.answer == case.partition(",")[0]
    text = markdown(report)
    [said] = [rows for rows in tables(text) if "true if" in rows[0]]
    assert said[0]["answer"].startswith(f"**{finding.answer}**")
    head = text.split("> **")[1].split("\n\n")[0]
    assert "So is 0." in head
    assert not re.search(r" ,|,\.| \.|\(\)|  ", head), head
    whole = page(report, text)
    assert not re.search(r"\b(nan|inf)\b", re.sub(r'"data:.*?"', "", whole))
    for drawn in report.pictures.values():
        assert not re.search(r"\b(nan|inf)\b", drawn)


def shifted(values: list[float | str], rung: str) -> list[float | str]:
    """Return results at a budget; at the first of a ladder they are two points lower."""
    return [value if isinstance(value, str) or rung != "15" else value - 0.02 for value in values]


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


@pytest.mark.parametrize("most", [1, pytest.param(None, marks=pytest.mark.slow)])  # arms of each part
@pytest.mark.parametrize("name", studies())
def test_every_study_can_be_run_at_every_scale_and_could_find_something(name, most):
    study = read_study(name)
    there = options("data")
    for scale in study.scales:
        parts = parts_at(study, scale)
        for part in parts:
            if any(o.startswith("data=") and o.removeprefix("data=") not in there for o in part.overrides):
                continue
            for arm in list(part.arms)[:most]:
                configure(*overrides(study, scale, part, arm, part.ladder.rungs[0] if part.ladder else ""))
        claims = [s for part in parts for s in part.statements if s.role == "claim" and not s.withdrawn]
        if scale != "smoke" and claims:
            fewest = min(len(part.seeds.get(scale, study.scales[scale].seeds)) for part in parts if part.statements)
            assert fewest >= least_seeds(len(claims)), f"{scale}: {len(claims)} claims, {fewest} seeds"
