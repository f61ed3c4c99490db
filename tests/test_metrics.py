"""A line in the table of metrics is enough: all readers spell a new metric correctly, and show an unknown one."""

import json
import math

import numpy as np
import pandas as pd
import pytest
from support import configure

from patchbench.config.identity import factors_of
from patchbench.pages.dashboard.columns import describe, describe_curves
from patchbench.pages.study.numbers import Estimate, Report, t_interval
from patchbench.pages.study.page import markdown
from patchbench.pages.wandb.workspace import workspace
from patchbench.runs import browse
from patchbench.runs.metrics import FACTORS, LESS, METRICS, MORE, Metric, four_digits, metric, summaries
from patchbench.study.outcomes import Evidence
from patchbench.study.reading import parse
from patchbench.study.verdict import judge
from patchbench.track import terminal

SEEDS = 6
F1 = Metric("macro F1", "%", MORE, curves=("val",), main="test")


@pytest.fixture
def f1(monkeypatch) -> None:
    """The one line that a new metric needs."""
    monkeypatch.setitem(METRICS, "f1", F1)


def page(name: str, low: float) -> str:
    """Return the page of a study that compares two arms by a metric; arm b is better by a tenth of its value."""
    tree = {
        "question": "q",
        "decides": ["more"],
        "scales": {"cpu": {"seeds": f"0-{SEEDS - 1}"}},
        "metric": name,
        "arms": {"a": ["embed=a"], "b": ["embed=b"]},
        "parts": {"one": {"statements": {"more": {"says": "So.", "that": "b - a", "above": 0}}}},
    }
    study = parse("test", tree)
    noise = np.linspace(-0.01, 0.01, SEEDS) * low
    cells = pd.DataFrame(
        {
            "part": "one",
            "arm": arm,
            "rung": "",
            "seed": seed,
            "identity": f"{arm}{seed}",
            "status": "done",
            name: at + noise[seed],
        }
        for arm, at in (("a", low), ("b", 1.1 * low))
        for seed in range(SEEDS)
    )
    evidence = Evidence(cells)
    return markdown(Report(study, "cpu", evidence, judge(study, evidence), ["x"], "y"))


def lines(spec: object) -> dict[str, str]:
    """Return the metric of each line plot of a workspace, by title."""
    sections = json.loads(json.dumps(spec))["section"]["panelBankConfig"]["sections"]
    panels = [panel for section in sections for panel in section["panels"]]
    plots = [panel["config"] for panel in panels if panel["viewType"] == "Run History Line Plot"]
    return {plot["chartTitle"]: plot["metrics"][0] for plot in plots}


def test_a_new_metric_is_one_line_and_right_for_every_reader(f1):
    result = {"test/acc": 0.5, "test/f1": 0.4844}
    assert terminal.rows(result)["test macro F1"] == "48.44%"

    assert browse.cell("test/f1", 0.4844) == "48.44%"
    frame = pd.DataFrame([{"run": "a_00000000", "status": "done"} | result])
    assert list(browse.select_columns(frame, [], None)) == ["status", "test/acc", "test/f1", "run"]

    text = page("test/f1", 0.4844)
    assert "| arm | seeds | test macro F1 |" in text
    assert "| a | 6 | 48.44 % |" in text
    assert "Measured: b − a on one, test macro F1, +4.84 pt (" in text

    column = describe("test/f1", pd.Series([0.4844]))
    assert (column["times"], column["unit"], column["better"], column["shown"]) == (100, "%", MORE, True)
    assert describe_curves(["val/f1"]) == {"val/f1": {"times": 100, "unit": "%", "panel": "macro F1 (%)"}}

    from patchbench.pages.wandb.publish import specification

    spec = specification(workspace("e", "p", []))
    assert lines(spec)["validation macro F1"] == "val/f1"
    assert "summary:test/f1" in json.dumps(spec)
    assert summaries()["val/f1"] == "max"


def test_an_unknown_metric_is_shown_under_its_name_as_a_plain_number():
    assert terminal.rows({"test/entropy": 0.4844})["test/entropy"] == "0.4844"
    assert browse.cell("test/entropy", 1234.5) == "1,234"
    text = page("test/entropy", 0.4844)
    assert "| arm | seeds | test/entropy |" in text
    assert "| a | 6 | 0.4844 |" in text
    assert "test/entropy, +0.04844 (" in text
    column = describe("test/entropy", pd.Series([0.4844]))
    assert (column["times"], column["unit"], column["better"], column["shown"]) == (1, "", 0, False)
    assert describe_curves(["val/entropy"]) == {"val/entropy": {"times": 1, "unit": "", "panel": "entropy"}}
    assert "val/entropy" not in summaries()


@pytest.mark.parametrize(
    ("name", "label", "unit", "better"),
    [
        ("val/loss", "validation loss", "", LESS),
        ("test/canvas48/acc", "test accuracy, canvas48", "%", MORE),
        ("final/ms_per_image", "training time per image", "ms", LESS),
        ("throughput/mfu", "MFU, share of the bf16 peak", "%", MORE),
        ("lr-AdamW", "learning rate", "", 0),
        ("val/acc_macro", "val/acc_macro", "%", MORE),
        ("memory/disk_gib", "memory/disk_gib", "GiB", LESS),
        ("model/grid", "model/grid", "", 0),
    ],
)
def test_a_name_means_the_same_in_every_stage(name, label, unit, better):
    line = metric(name)
    assert (line.label, line.unit, line.better) == (label, unit, better)


def test_a_sum_has_the_unit_of_its_terms_and_a_logarithm_is_told_as_a_ratio():
    inside = metric("test/inside/acc - test/cut/acc")
    assert (inside.value(0.2), inside.change(0.2)) == ("20.0 pt", "+20.0 pt")
    assert metric("final/step_ms_median - final/step_ms_p95").change(-2.5) == "-2.5 ms"
    assert metric("test/acc - test/loss").change(0.2) == "+0.2"
    assert metric("log2(model/tokens)").change(1.5) == "2.83 times"
    assert metric("log2(model/tokens)").value(4.0) == "4"


def test_differences_below_ten_points_have_two_decimals():
    assert [metric("test/acc").change(x) for x in (0.2, 0.0034, -0.2, -0.00001)] == [
        "+20.0 pt", "+0.34 pt", "-20.0 pt", "+0.00 pt",
    ]  # fmt: skip
    assert metric("test/acc").change(math.nan) == metric("test/acc").value(math.nan) == "n/a"


def test_numbers_have_four_digits_and_no_exponent_above_one():
    assert [four_digits(x) for x in (16, 36.29357, 1234.5, 41626, 0.00014728, 1e6)] == [
        "16", "36.29", "1,234", "41,626", "0.0001473", "1,000,000",
    ]  # fmt: skip


def test_the_printed_interval_of_a_share_ends_at_a_hundred_percent_and_that_of_another_metric_does_not():
    estimate = Estimate(10, 0.95, 0.16, 0.83, 1.06)
    assert t_interval(metric("test/acc"), estimate) == ("83.0", "100.0")
    assert t_interval(metric("test/loss"), estimate) == ("0.83", "1.06")
    below = Estimate(10, 0.05, 0.16, -0.06, 0.16)
    assert t_interval(metric("test/acc"), below) == ("0.0", "16.0")
    assert t_interval(metric("test/inside/acc - test/cut/acc"), below) == ("-6.0", "16.0")


def test_every_metric_of_a_curve_has_a_panel_of_its_own_in_the_workspace():
    from patchbench.pages.wandb.publish import specification

    plotted = lines(specification(workspace("e", "p", [])))
    logged = {f"{stage}/{quantity}" for quantity, line in METRICS.items() for stage in line.curves}
    assert set(plotted.values()) == logged
    assert not [title for title in plotted if title in logged], "a title is a label, not a name"


def test_the_factors_of_a_record_are_the_factors_by_which_runs_are_compared():
    cfg = configure("model=micro")
    assert tuple(factors_of(cfg, cfg.hydra.runtime.choices)) == FACTORS
