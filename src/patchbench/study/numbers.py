"""What a report of a study says, as numbers and short phrases."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import pandas as pd

from patchbench.runs.metrics import unit
from patchbench.study import figures
from patchbench.study.claim import Part, Study
from patchbench.study.stats import Estimate, t_estimate
from patchbench.study.verdict import Finding, Judgement, score

SIGNS = {"supported": "✔", "refuted": "✘", "undetermined": "?"}


GOOD = 0.9  # validation accuracy: arms that end at one ceiling still differ in how soon they get here


SWEEP = {"supported": "higher", "refuted": "lower", "undetermined": "not told apart"}


@dataclass
class Report:
    """What the pages are made of.

    cells: a row per planned run; curves: part, arm, seed, step, epoch, gflops, s, score.
    """

    study: Study
    scale: str
    cells: pd.DataFrame
    curves: pd.DataFrame
    judgement: Judgement
    commands: Sequence[str]  # that make the runs
    again: str  # the command that makes this report
    tuned: pd.DataFrame | None = None  # part, arm, setting, val/acc_best, chosen: where every arm was tuned
    sweep: bool = False  # no study: nothing is claimed, arms are told apart
    pictures: dict[str, str] = field(default_factory=dict)  # SVG by file name, filled while the page is written

    @property
    def parts(self) -> list[Part]:
        there = set(self.cells["part"])
        return [part for part in self.study.parts if part.name in there]

    def scores(self, part: Part) -> pd.DataFrame:
        """The rows of a part, with `score`: the metric of the part."""
        rows = self.cells[self.cells["part"] == part.name]
        return rows.assign(score=score(part, part.metric, rows))

    def picture(self, name: str, drawing: figures.Figure, alt: str, caption: str) -> str:
        self.pictures[f"{name}.svg"] = figures.svg(drawing)
        return f"![{alt}]({name}.svg)\n\n*{caption}*"


def bound(finding: Finding) -> str:
    """Where the value must lie for the statement to be true."""
    low, high = finding.comparison.low, finding.comparison.high
    if math.isinf(high):
        return f"above {spoken(finding, low)}"
    if math.isinf(low):
        return f"below {spoken(finding, high)}"
    if low == -high:
        return f"within ±{spoken(finding, high).lstrip('+')}"
    return f"{spoken(finding, low)} to {spoken(finding, high)}"


def level(finding: Finding) -> bool:
    """Whether what is stated is the value of an arm, not a difference."""
    differs = " - " in finding.comparison.metric
    return not differs and all(sum(sign for sign, _ in terms) == 1 for terms in finding.comparison.sums)


def spoken(finding: Finding, x: float) -> str:
    """With its unit; a difference with its sign."""
    if level(finding):
        return finding.unit.value(x)
    return f"0{finding.unit.difference}" if x == 0 else finding.unit.change(x)


def interval(finding: Finding, e: Estimate) -> str:
    if e.n < 2:
        return "no interval"
    if level(finding):
        return f"{finding.unit.number(e.low)} to {finding.unit.value(e.high)}"
    return f"{finding.unit.signed(e.low)} to {finding.unit.change(e.high)}"


def p_value(p: float) -> str:
    return "n/a" if math.isnan(p) else "<0.0001" if p < 0.0001 else f"{p:.2g}"


def steps_to(points: pd.DataFrame, arm: str, good: float) -> str:
    """Of the median seed; a seed that never gets there counts as later than any."""
    points = points[points["arm"] == arm] if len(points) else points
    if points.empty:
        return "n/a"
    reached = points[points["score"] >= good].groupby("seed")["step"].min()
    median = float(reached.reindex(points["seed"].unique()).fillna(math.inf).median())
    return f"{median:,.0f}" if math.isfinite(median) else "not reached"


def mean(cells: pd.DataFrame, name: str) -> float:
    return float(pd.to_numeric(cells[name]).mean()) if name in cells else math.nan


def memory(cells: pd.DataFrame) -> float:
    """Of the GPU where there is one."""
    of_gpu = mean(cells, "final/gpu_peak_allocated_gib")
    return mean(cells, "final/cpu_rss_gib") if math.isnan(of_gpu) else of_gpu


def plain(value: float, form: str) -> str:
    return "n/a" if math.isnan(value) else f"{value:{form}}"


def cost_table(report: Report, part: Part) -> pd.DataFrame:
    """One row per arm that has a result: score, and what it costs."""
    rows = {}
    scores = report.scores(part)
    for arm in part.arms:
        cells = scores[(scores["arm"] == arm) & (scores["status"] == "done")]
        if cells["score"].notna().any():
            rows[arm] = {
                "score": mean(cells, "score"),
                "final/images_per_s": mean(cells, "final/images_per_s"),
                "memory": memory(cells),
                "model/tokens": mean(cells, "model/tokens"),
                "model/gflops_train": 6 * mean(cells, "model/gmacs"),
            }
    return pd.DataFrame.from_dict(rows, orient="index")


def of_part(curves: pd.DataFrame, part: Part) -> pd.DataFrame:
    return curves[curves["part"] == part.name] if len(curves) else curves


VIEWS = {"epoch": "same epochs", "gflops": "same FLOPs", "s": "same time"}


def at_budget(points: pd.DataFrame, view: str, budget: float) -> str:
    reached = points[points[view] <= budget * (1 + 1e-6)].sort_values(view).groupby("seed")["score"].last()
    if reached.empty:
        return "not one epoch"
    e, measure = t_estimate(reached.to_numpy(dtype=float)), unit("val/acc")
    return measure.value(e.mean) + (f" ({measure.number(e.low)} to {measure.number(e.high)})" if e.n > 1 else "")
