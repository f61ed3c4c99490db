"""The numbers of a report on a study, and the short phrases that spell them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import pandas as pd

from patchbench.runs.metrics import Metric, metric
from patchbench.study.claim import Part, Study, Terms
from patchbench.study.stats import Estimate, t_estimate
from patchbench.study.verdict import Finding, Judgement, score

COSTS = ("final/images_per_s", "memory", "model/tokens", "model/gflops_train")
BUDGETS = {"epoch": "same epochs", "gflops": "same FLOPs", "s": "same time"}  # by column of the learning curves


@dataclass
class Report:
    """The data of a report.

    cells: a row for each planned run. curves: part, arm, seed, step, epoch, gflops, s, score. commands: those that made
    the runs. again: the command that makes this report. tuned: part, arm, setting, val/acc_best, chosen, if every arm
    was tuned. sweep: the runs belong to no study, so nothing is claimed and arms are compared. pictures: SVG by file
    name, filled while the page is written.
    """

    study: Study
    scale: str
    cells: pd.DataFrame
    curves: pd.DataFrame
    judgement: Judgement
    commands: Sequence[str]
    again: str
    tuned: pd.DataFrame | None = None
    sweep: bool = False
    pictures: dict[str, str] = field(default_factory=dict)

    @property
    def parts(self) -> list[Part]:
        """The parts that have cells."""
        there = set(self.cells["part"])
        return [part for part in self.study.parts if part.name in there]

    def scores(self, part: Part) -> pd.DataFrame:
        """The cells of a part, with the metric of the part as the column `score`."""
        rows = self.cells[self.cells["part"] == part.name]
        return rows.assign(score=score(part, part.metric, rows))

    def curves_of(self, part: Part) -> pd.DataFrame:
        """The learning curves of a part."""
        return self.curves[self.curves["part"] == part.name] if len(self.curves) else self.curves


def formatted(value: float, form: str) -> str:
    return "n/a" if math.isnan(value) else f"{value:{form}}"


def p_value(p: float) -> str:
    return "n/a" if math.isnan(p) else "<0.0001" if p < 0.0001 else f"{p:.2g}"


def sum_of_arms(terms: Terms) -> str:
    """learned − none."""
    (sign, first), *rest = terms
    return ("−" if sign < 0 else "") + first + "".join(f" {'+' if s > 0 else '−'} {arm}" for s, arm in rest)


# Statements.


def is_level(finding: Finding) -> bool:
    """True if the statement is about the value of an arm, not about a difference."""
    differs = " - " in finding.comparison.metric
    return not differs and all(sum(sign for sign, _ in terms) == 1 for terms in finding.comparison.sums)


def with_unit(finding: Finding, x: float) -> str:
    """A value with its unit; a difference has a sign as well."""
    if is_level(finding):
        return finding.metric.value(x)
    return f"0 {finding.metric.change_unit}".rstrip() if x == 0 else finding.metric.change(x)


def interval(finding: Finding, e: Estimate) -> str:
    if e.n < 2:
        return "no interval"
    if is_level(finding):
        return f"{finding.metric.number(e.low)} to {finding.metric.value(e.high)}"
    return f"{finding.metric.signed(e.low)} to {finding.metric.change(e.high)}"


def region(finding: Finding) -> str:
    """The region in which the value must lie for the statement to be true."""
    low, high = finding.comparison.low, finding.comparison.high
    if math.isinf(high):
        return f"above {with_unit(finding, low)}"
    if math.isinf(low):
        return f"below {with_unit(finding, high)}"
    if low == -high:
        return f"within ±{with_unit(finding, high).lstrip('+')}"
    return f"{with_unit(finding, low)} to {with_unit(finding, high)}"


# Arms.


def t_interval(line: Metric, e: Estimate, digits: int = 1) -> tuple[str, str]:
    """The ends of the interval of an arm, without a unit.

    Student's t is symmetric, so of accuracies near 100 % the interval would reach beyond; the printed end does not.
    """
    return line.number(line.clip(e.low), digits), line.number(line.clip(e.high), digits)


def mean(cells: pd.DataFrame, name: str) -> float:
    return float(pd.to_numeric(cells[name]).mean()) if name in cells else math.nan


def train_gflops(cells: pd.DataFrame) -> pd.Series:
    """Training computation of an image in each run, with its share of what the network computes once a step."""
    names = ["model/gmacs", "model/gmacs_per_step", "batch_size"]
    per_image, per_step, images = (pd.to_numeric(cells.reindex(columns=names)[name]) for name in names)
    return 6 * (per_image + (per_step / images).fillna(0))


def memory(cells: pd.DataFrame) -> float:
    """Peak memory of the GPU, or of the host where there is no GPU."""
    of_gpu = mean(cells, "final/gpu_peak_allocated_gib")
    return mean(cells, "final/cpu_rss_gib") if math.isnan(of_gpu) else of_gpu


def cost_table(report: Report, part: Part) -> pd.DataFrame:
    """One row for each arm that has a result: its score and its COSTS."""
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
                "model/gflops_train": float(train_gflops(cells).mean()),
            }
    return pd.DataFrame.from_dict(rows, orient="index")


def differing(table: pd.DataFrame) -> list[str]:
    """The costs in which arms differ, by a hundredth at least."""
    there = [name for name in COSTS if name in table and table[name].notna().all()]
    return [name for name in there if table[name].max() > 1.01 * table[name].min()]


def pareto(cost: Sequence[float], gain: Sequence[float], *, more_is_better: bool) -> list[bool]:
    """Mark the points on the front: no other is at least as good in both and better in one."""
    price = [-c if more_is_better else c for c in cost]
    points = list(zip(price, gain, strict=True))
    return [not any(q[0] <= p[0] and q[1] >= p[1] and q != p for q in points) for p in points]


def steps_to(points: pd.DataFrame, arm: str, accuracy: float) -> str:
    """Steps until the median seed reaches an accuracy; a seed that never does counts as later than any other."""
    points = points[points["arm"] == arm] if len(points) else points
    if points.empty:
        return "n/a"
    reached = points[points["score"] >= accuracy].groupby("seed")["step"].min()
    median = float(reached.reindex(points["seed"].unique()).fillna(math.inf).median())
    return f"{median:,.0f}" if math.isfinite(median) else "not reached"


def at_budget(points: pd.DataFrame, column: str, budget: float) -> str:
    """Validation accuracy of an arm, with its interval, at the last epoch that the budget pays for."""
    reached = points[points[column] <= budget * (1 + 1e-6)].sort_values(column).groupby("seed")["score"].last()
    if reached.empty:
        return "not one epoch"
    e, line = t_estimate(reached.to_numpy(dtype=float)), metric("val/acc")
    return line.value(e.mean) + (" ({} to {})".format(*t_interval(line, e)) if e.n > 1 else "")
