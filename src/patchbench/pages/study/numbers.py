"""The numbers of a report on a study, and their spelling."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import pandas as pd

from patchbench.runs.metrics import Metric, metric
from patchbench.statistics.amounts import sum_of_means
from patchbench.statistics.inference import ALPHA, Amount, Values, spread
from patchbench.study.design import Part, Study, Terms
from patchbench.study.outcomes import Evidence, score
from patchbench.study.verdict import Finding, Judgement, available_rungs

COSTS = ("final/images_per_s", "memory", "model/tokens", "model/gflops_train")
BUDGETS = {"epoch": "same epochs", "gflops": "same FLOPs", "s": "same time"}  # by columns of the learning curves


@dataclass(frozen=True)
class Fresh:
    """A second judgement of a study, with new seeds. scale: scale of its runs. seeds: the seeds in words."""

    scale: str
    judgement: Judgement
    seeds: str


@dataclass
class Report:
    """The data of a report.

    evidence: results of the planned runs; its curves also have the columns epoch and gflops. costs: part, arm,
    images_per_s, memory (GiB), busy, device, measured on an idle machine; empty if nothing was measured. commands:
    commands that made the runs. again: command that makes this report. tuned: part, arm, setting, val/acc, chosen;
    None if no arm was tuned. sweep: true if the runs belong to no study: nothing is claimed, and arms are compared.
    fresh: the second judgement, if the study was replicated. pictures: SVG by file name, filled while the page is
    written.
    """

    study: Study
    scale: str
    evidence: Evidence
    judgement: Judgement
    commands: Sequence[str]
    again: str
    costs: pd.DataFrame = field(default_factory=pd.DataFrame)
    tuned: pd.DataFrame | None = None
    sweep: bool = False
    fresh: Fresh | None = None
    pictures: dict[str, str] = field(default_factory=dict)

    @property
    def cells(self) -> pd.DataFrame:
        return self.evidence.cells

    @property
    def parts(self) -> list[Part]:
        """List the parts that have cells."""
        names = set(self.cells["part"])
        return [part for part in self.study.parts if part.name in names]

    def rungs(self, part: Part) -> list[str]:
        """List the budgets of a part that have cells."""
        return available_rungs(part, self.cells)

    def scores(self, part: Part, rung: str | None = None) -> pd.DataFrame:
        """Return the cells of a part at a budget, with its metric as the column `score`. rung: None is the last."""
        cells = self.evidence.of(part, self.rungs(part)[-1] if rung is None else rung).cells
        return cells.assign(score=score(part, part.metric, cells))

    def curves_of(self, part: Part) -> pd.DataFrame:
        """Return the learning curves of a part at its last budget."""
        return self.evidence.of(part, self.rungs(part)[-1]).curves

    def costs_of(self, part: Part) -> pd.DataFrame:
        """Return the medians of the costs by arm; empty if nothing was measured."""
        rows = self.costs[self.costs["part"] == part.name] if len(self.costs) else self.costs
        return rows.groupby("arm")[["images_per_s", "memory"]].median() if len(rows) else pd.DataFrame()


def formatted(value: float, form: str) -> str:
    """Format a number; n/a for nan."""
    return "n/a" if math.isnan(value) else f"{value:{form}}"


def p_value(p: float) -> str:
    return "n/a" if math.isnan(p) else "<0.0001" if p < 0.0001 else f"{p:.2g}"


def sum_of_arms(terms: Terms) -> str:
    """Spell a sum of arms: learned − none."""
    (sign, first), *rest = terms
    return ("−" if sign < 0 else "") + first + "".join(f" {'+' if s > 0 else '−'} {arm}" for s, arm in rest)


# Statements.


def is_level(finding: Finding) -> bool:
    """True if the statement is about the value of an arm, false if about a difference."""
    differs = " - " in finding.statement.metric
    return not differs and all(sum(sign for sign, _ in terms) == 1 for terms in finding.statement.sums)


def with_unit(finding: Finding, x: float) -> str:
    """Spell a value with its unit; a difference has a sign. inf: half of the seeds of an arm never solve the task."""
    if math.isinf(x):
        return f"beyond the budget for {'the first' if x > 0 else 'the second'} arm"
    if is_level(finding):
        return finding.metric.value(x)
    line = finding.metric
    return f"0 {line.change_unit}".rstrip() if x == 0 and not line.logarithm else line.change(x)


def interval(finding: Finding, value: Amount, level: float = 1 - ALPHA) -> str:
    return interval_in_words(finding.metric, value, level, change=not is_level(finding))


def interval_in_words(line: Metric, value: Amount, level: float = 1 - ALPHA, *, change: bool = True) -> str:
    """Spell an interval; `no interval` if there is none."""
    if not has_interval(value, level):
        return "no interval"
    low, high = value.interval(level)
    if not change:
        return f"{line.number(line.clip(low))} to {line.value(line.clip(high))}"
    return f"{line.signed(low)} to {line.change(high)}"


def has_interval(value: Amount, level: float = 1 - ALPHA) -> bool:
    """False if the ends of the interval are not finite, as with censored times or too few seeds."""
    return all(map(math.isfinite, value.interval(level)))


def amount_in_words(line: Metric, value: Amount) -> str:
    """Spell a difference with its interval: +2.2 pt (+1.1 to +3.3 pt)."""
    return f"{line.change(value.estimate)} ({interval_in_words(line, value)})"


def sign_of(value: Amount) -> int:
    """Return 1 or -1 if the whole interval lies above or below 0, else 0."""
    low, high = value.interval()
    return 1 if low > 0 else -1 if high < 0 else 0


def measured(finding: Finding) -> str:
    """Spell the value of each sum of a statement with its interval: +49.8 pt (+49.1 to +50.5 pt)."""
    some = [step.amount for step in finding.steps if step.amount is not None]
    return " and ".join(f"{with_unit(finding, a.estimate)} ({interval(finding, a)})" for a in some)


def region(finding: Finding) -> str:
    """Spell the region of values for which the statement is true."""
    low, high = finding.statement.low, finding.statement.high
    if math.isinf(high):
        return f"above {with_unit(finding, low)}"
    if math.isinf(low):
        return f"below {with_unit(finding, high)}"
    if low == -high:
        return f"within ±{with_unit(finding, high).lstrip('+')}"
    return f"{with_unit(finding, low)} to {with_unit(finding, high)}"


# Arms.


@dataclass(frozen=True)
class Estimate:
    """Mean, standard deviation and 95 % interval (Student's t) of n seeds; nan if n is too small."""

    n: int
    mean: float
    sd: float
    low: float
    high: float


def t_estimate(values: Values) -> Estimate:
    """Estimate the mean over the seeds of an arm."""
    n = len(values)
    if n < 2:
        return Estimate(n, float(values[0]) if n else math.nan, math.nan, math.nan, math.nan)
    low, high = sum_of_means((1,), (values,)).interval()
    ends = (low, high) if math.isfinite(low) else (math.nan, math.nan)
    return Estimate(n, float(values.mean()), spread(values), *ends)


def t_interval(line: Metric, e: Estimate, digits: int = 1) -> tuple[str, str]:
    """Spell the ends of the interval of an arm, without a unit.

    Student's t interval is symmetric and can reach beyond 100 %; the ends are clipped to the range of the metric.
    """
    return line.number(line.clip(e.low), digits), line.number(line.clip(e.high), digits)


def mean(cells: pd.DataFrame, name: str) -> float:
    """Mean of a column; nan without the column."""
    return float(pd.to_numeric(cells[name]).mean()) if name in cells else math.nan


def train_gflops(cells: pd.DataFrame) -> pd.Series:
    """Return the training computation per image in each run (GFLOP), with its share of the computation per step."""
    names = ["model/gmacs", "model/gmacs_per_step", "batch_size"]
    per_image, per_step, images = (pd.to_numeric(cells.reindex(columns=names)[name]) for name in names)
    return 6 * (per_image + (per_step / images).fillna(0))


def cost_table(report: Report, part: Part) -> pd.DataFrame:
    """Return a row for each arm that has a result: score and COSTS; speed and memory are nan if not measured."""
    rows = {}
    scores, measured = report.scores(part), report.costs_of(part)
    for arm in part.arms:
        cells = scores[(scores["arm"] == arm) & (scores["status"] == "done")]
        if cells["score"].notna().any():
            price = measured.loc[arm] if arm in measured.index else {"images_per_s": math.nan, "memory": math.nan}
            rows[arm] = {
                "score": mean(cells, "score"),
                "final/images_per_s": price["images_per_s"],
                "memory": price["memory"],
                "model/tokens": mean(cells, "model/tokens"),
                "model/gflops_train": float(train_gflops(cells).mean()),
            }
    return pd.DataFrame.from_dict(rows, orient="index")


def differing(table: pd.DataFrame) -> list[str]:
    """List the costs in which arms differ by more than 1 %."""
    complete = [name for name in COSTS if name in table and table[name].notna().all()]
    return [name for name in complete if table[name].max() > 1.01 * table[name].min()]


def pareto(cost: Sequence[float], gain: Sequence[float], *, more_is_better: bool) -> list[bool]:
    """Mark the points on the Pareto front: no other point is at least as good in both and better in one."""
    price = [-c if more_is_better else c for c in cost]
    points = list(zip(price, gain, strict=True))
    return [not any(q[0] <= p[0] and q[1] >= p[1] and q != p for q in points) for p in points]


def steps_to(points: pd.DataFrame, arm: str, accuracy: float) -> str:
    """Spell the steps until the median seed reaches an accuracy; a seed that never does counts as infinity."""
    points = points[points["arm"] == arm] if len(points) else points
    if points.empty:
        return "n/a"
    reached = points[points["score"] >= accuracy].groupby("seed")["step"].min()
    median = float(reached.reindex(points["seed"].unique()).fillna(math.inf).median())
    return f"{median:,.0f}" if math.isfinite(median) else "not reached"


def at_budget(points: pd.DataFrame, column: str, budget: float) -> str:
    """Spell the validation accuracy of an arm, with its interval, at the last epoch within a budget."""
    reached = points[points[column] <= budget * (1 + 1e-6)].sort_values(column).groupby("seed")["score"].last()
    if reached.empty:
        return "not one epoch"
    e, line = t_estimate(reached.to_numpy(dtype=float)), metric("val/acc")
    return line.value(e.mean) + (" ({} to {})".format(*t_interval(line, e)) if e.n > 1 else "")
