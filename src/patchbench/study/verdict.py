"""The answers to the statements of a study, decided by intervals and exact p values, never by a mean.

A statement is answered yes when the whole interval lies in its region, and no when the whole interval lies outside. The
interval is the inversion of the test, at 95 % or, for one of several claims, at the level that Holm's correction (1979)
leaves it; so interval and p value cannot disagree. Everything else is open: too few seeds, a run without a result, an
interval that reaches over the bound. Where the arms of a ladder still gain at the last budget, the answer is an amount.
"""

import math
from dataclasses import dataclass, replace

import pandas as pd

from patchbench.runs.metrics import Metric, metric
from patchbench.statistics.groups import two_groups
from patchbench.statistics.inference import ALPHA, Amount, Corrected, correct
from patchbench.study.design import SOLVED, Effect, Ladder, Part, Statement, Study, Terms
from patchbench.study.outcomes import Evidence, amount, outcome, solved

YES, NO, OPEN, HOW_MUCH, NOT_RUN, WITHDRAWN = "yes", "no", "open", "by how much", "not run", "withdrawn"


@dataclass(frozen=True)
class Step:
    """One sum of arms, measured. inside: its value lies where the statement is true. p: that it lies on that side."""

    terms: Terms
    amount: Amount | None
    inside: bool
    p: float


@dataclass(frozen=True)
class Finding:
    """A statement with its answer.

    p: of all its steps together. p_holm: corrected over the claims of the study. level: of the intervals that decide.
    rung: the budget at which it was decided. without_result: by arm, as in "seed 3 failed".
    """

    part: Part
    statement: Statement
    metric: Metric
    rung: str
    steps: tuple[Step, ...]
    p: float
    p_holm: float
    level: float
    answer: str
    because: str
    without_result: dict[str, list[str]]
    uncontrolled: bool = False  # a control of the study does not hold

    @property
    def as_predicted(self) -> bool | None:
        """True or False where something was predicted and an answer was found."""
        if not self.statement.predicted or self.answer not in (YES, NO):
            return None
        return self.answer == self.statement.predicted


@dataclass(frozen=True)
class Found:
    """An effect, measured at a budget."""

    part: Part
    effect: Effect
    metric: Metric
    rung: str
    amount: Amount | None


@dataclass(frozen=True)
class Judgement:
    """failed: the control that does not hold, so that no claim of the study is answered."""

    findings: tuple[Finding, ...]
    effects: tuple[Found, ...]
    failed: Finding | None = None

    def finding(self, name: str) -> Finding | None:
        return next((finding for finding in self.findings if finding.statement.name == name), None)


def judge(study: Study, evidence: Evidence) -> Judgement:
    """Answer every statement, and measure every effect, of the parts that have cells."""
    parts = [part for part in study.parts if part.name in set(evidence.cells["part"])]
    measured = [measure(part, statement, evidence) for part in parts for statement in part.statements]
    claims = [i for i, finding in enumerate(measured) if finding.statement.role == "claim" and not finding.answer]
    corrected = dict(zip(claims, correct([measured[i].p for i in claims]), strict=True))
    findings = [
        decide(finding, corrected.get(i, Corrected(finding.p, 1 - ALPHA))) for i, finding in enumerate(measured)
    ]
    controls = [f for f in findings if f.statement.role == "control" and f.answer != WITHDRAWN]
    failed = next((finding for finding in controls if finding.answer != YES), None)
    if failed:
        findings = [unless_controlled(finding, failed) for finding in findings]
    effects = [found(part, effect, evidence) for part in parts for effect in part.effects]
    return Judgement(tuple(findings), tuple(effects), failed)


def unless_controlled(finding: Finding, failed: Finding) -> Finding:
    """A claim is open where a control does not hold, or is not shown to hold."""
    if finding.statement.role != "claim" or finding.answer not in (YES, NO, HOW_MUCH):
        return finding
    holds = "does not hold" if failed.answer == NO else "is not shown to hold"
    because = f"a control {holds}: {failed.statement.says}"
    return replace(finding, answer=OPEN, because=because, uncontrolled=True)


def rungs_there(part: Part, cells: pd.DataFrame) -> list[str]:
    """Budgets of a part that have cells, in the order of its ladder; one without a name where it has no ladder."""
    there = set(cells.loc[cells["part"] == part.name, "rung"])
    return [rung for rung in part.ladder.rungs if rung in there] if part.ladder else [""]


def measure(part: Part, statement: Statement, evidence: Evidence) -> Finding:
    """Measure the sums of a statement at its budget; those that cannot be decided by p have their answer already."""
    rungs = rungs_there(part, evidence.cells)
    rung = statement.at or rungs[-1]
    here = evidence.of(part, rung)
    mine = replace(here, cells=here.cells[here.cells["arm"].isin(statement.arms)])
    steps = tuple(step(part, statement, terms, mine) for terms in statement.sums)
    without = without_result(part, statement, mine)
    answer, because = beforehand(part, statement, evidence, mine, rungs, without)
    line = metric(statement.metric)
    return Finding(part, statement, line, rung, steps, joint_p(steps), 1.0, 1 - ALPHA, answer, because, without)


def step(part: Part, statement: Statement, terms: Terms, evidence: Evidence) -> Step:
    value = amount(part, statement.metric, terms, evidence, among_solved=statement.among_solved)
    if value is None:
        return Step(terms, None, False, 1.0)
    low, high = statement.low, statement.high
    bounds = [bound for bound in (low, high) if math.isfinite(bound)]
    above, below = low == -math.inf or low < value.estimate, high == math.inf or value.estimate < high
    inside = above and below  # an estimate of inf, of seeds that never solve, is above every bound
    if inside:
        return Step(terms, value, True, max(value.p(bound) for bound in bounds))
    nearest = min(bounds, key=lambda bound: abs(value.estimate - bound))
    return Step(terms, value, False, value.p(nearest))


def joint_p(steps: tuple[Step, ...]) -> float:
    """All steps hold: the largest p. Some step fails: the smallest p of those, times their number (Bonferroni)."""
    if all(s.inside for s in steps):
        return max(s.p for s in steps)
    return min(1.0, len(steps) * min(s.p for s in steps if not s.inside))


def without_result(part: Part, statement: Statement, evidence: Evidence) -> dict[str, list[str]]:
    """Cells of a statement that have no figure, by arm."""
    values = outcome(part, statement.metric, evidence)
    without: dict[str, list[str]] = {}
    for row in evidence.cells[values.isna()].itertuples():
        reason = "has no such figure" if row.status == "done" else row.status
        without.setdefault(str(row.arm), []).append(f"seed {row.seed} {reason}")
    return without


def beforehand(
    part: Part,
    statement: Statement,
    evidence: Evidence,
    mine: Evidence,
    rungs: list[str],
    without: dict[str, list[str]],
) -> tuple[str, str]:
    """The answer and its reason where no p value can decide; empty otherwise. mine: of the arms at the budget."""
    if statement.withdrawn:
        return WITHDRAWN, statement.withdrawn
    if mine.cells.empty or (mine.cells["status"] == "not run").all():
        return NOT_RUN, "no run of these arms has been made"
    if absent := set(statement.arms) - set(mine.cells["arm"]):
        return OPEN, f"there is no run of {', '.join(sorted(absent))}"
    if without:
        arm, seeds = next(iter(without.items()))
        missing = sum(map(len, without.values()))
        some = "1 run without a result" if missing == 1 else f"{missing} runs without a result, the first"
        return OPEN, f"{some} of {arm}: {seeds[0]}"
    if statement.among_solved and (rest := unsolved(part, statement, mine)):
        return OPEN, f"fewer than two seeds of {rest} solve the task"
    of_means = statement.metric == part.metric and not statement.among_solved
    if of_means and (split := in_two_groups(part, statement, mine)):
        return OPEN, f"the seeds of {split} fall into two groups far apart, so a mean does not describe them"
    if not statement.at and part.ladder and (reason := no_plateau(part, part.ladder, statement, evidence, rungs)):
        return HOW_MUCH, reason
    return "", ""


def unsolved(part: Part, statement: Statement, evidence: Evidence) -> str:
    counts = solved(part, evidence.cells).groupby(evidence.cells["arm"]).sum()
    return ", ".join(arm for arm in statement.arms if counts[arm] < 2)


def in_two_groups(part: Part, statement: Statement, evidence: Evidence) -> str:
    values = outcome(part, statement.metric, evidence)
    groups = {arm: values[evidence.cells["arm"] == arm].to_numpy(dtype=float) for arm in statement.arms}
    return ", ".join(arm for arm, some in groups.items() if two_groups(some))


def no_plateau(part: Part, ladder: Ladder, statement: Statement, evidence: Evidence, rungs: list[str]) -> str:
    """The reason why the arms are not known to stand on a plateau at the last budget; empty if they do."""
    last = f"{ladder.knob}={rungs[-1]}"
    if len(rungs) < 2:
        return f"only one budget was run, {last}, so no plateau can be seen"
    changes = {arm: last_change(part, arm, evidence, rungs) for arm in statement.arms}
    if unknown := [arm for arm, change in changes.items() if math.isnan(change)]:
        have = "has" if len(unknown) == 1 else "have"
        return (
            f"{', '.join(unknown)} {have} no result at {ladder.knob}={rungs[-2]}, so no plateau can be seen at {last}"
        )
    moving = [arm for arm, change in changes.items() if not abs(change) < part.plateau]
    are = "is" if len(moving) == 1 else "are"
    return f"{', '.join(moving)} {are} not on a plateau at the last budget, {last}" if moving else ""


def last_change(part: Part, arm: str, evidence: Evidence, rungs: list[str]) -> float:
    """The mean result of an arm at the last budget less that at the budget before; nan where it has none there."""
    before, last = (evidence.of(part, rung) for rung in rungs[-2:])
    means = [outcome(part, part.metric, here)[here.cells["arm"] == arm].mean() for here in (before, last)]
    return float(means[1] - means[0])


def decide(finding: Finding, corrected: Corrected) -> Finding:
    """The one rule; see the head of this file."""
    holds = all(s.inside for s in finding.steps)
    level = corrected.level if holds else 1 - (1 - corrected.level) / len(finding.steps)
    finding = replace(finding, p_holm=corrected.p, level=level)
    if finding.answer:
        return finding
    if corrected.p > ALPHA:
        several = f" after correction for several claims, whose intervals are at {level:.1%}"
        because = f"both are possible: p = {corrected.p:.2g}{several if corrected.p > finding.p else ''}"
        return replace(finding, answer=OPEN, because=because)
    if holds:
        return replace(finding, answer=YES, because="the whole interval lies where the statement is true")
    return replace(finding, answer=NO, because="the whole interval lies outside of where the statement is true")


def found(part: Part, effect: Effect, evidence: Evidence) -> Found:
    """Measure an effect at the last budget: of seeds that solve, where seeds may fail; else of the part's metric."""
    rung = rungs_there(part, evidence.cells)[-1]
    name = SOLVED if part.solved is not None else part.metric
    here = evidence.of(part, rung)
    arms = {arm for _, arm in effect.terms}
    mine = replace(here, cells=here.cells[here.cells["arm"].isin(arms)])
    whole = outcome(part, name, mine).notna().all() and len(mine.cells)
    return Found(part, effect, metric(name), rung, amount(part, name, effect.terms, mine) if whole else None)
