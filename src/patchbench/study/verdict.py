"""The answers to the statements of a study, decided by intervals and p values, never by a mean alone.

A statement is answered yes if the whole interval lies inside its region, and no if the whole interval lies outside. The
interval inverts the test, at 95 % or, for one of several claims, at the level after Holm's correction (1979), so the
interval and the p value cannot disagree. All other cases are open: too few seeds, a run without a result, an interval
that contains the bound. If the arms of a ladder are not on a plateau at the last budget, the answer is an amount.
"""

import math
from dataclasses import dataclass, replace

import pandas as pd

from patchbench.runs.metrics import Metric, metric
from patchbench.statistics.groups import two_groups
from patchbench.statistics.inference import ALPHA, Amount, Corrected, correct
from patchbench.study.design import SOLVED, Effect, Ladder, Part, Statement, Study, Terms
from patchbench.study.outcomes import Evidence, amount, outcome, solved
from patchbench.words import listed

YES, NO, OPEN, HOW_MUCH, NOT_RUN, WITHDRAWN = "yes", "no", "open", "by how much", "not run", "withdrawn"


@dataclass(frozen=True)
class Step:
    """One measured sum of arms. inside: the estimate lies inside the region of the statement.

    p: p value of the nearest bound of the region; of both bounds the larger p value if the estimate lies inside.
    """

    terms: Terms
    amount: Amount | None
    inside: bool
    p: float


@dataclass(frozen=True)
class Finding:
    """A statement with its answer.

    p: of all steps together. p_holm: corrected over the claims of the study. level: level of the deciding intervals.
    rung: budget at which the statement was decided. without_result: missing runs by arm, such as "seed 3 failed".
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
        """True if the answer is the predicted one; None without a prediction or an answer yes or no."""
        if not self.statement.predicted or self.answer not in (YES, NO):
            return None
        return self.answer == self.statement.predicted


@dataclass(frozen=True)
class MeasuredEffect:
    """An effect, measured at a budget; amount is None if a run has no result."""

    part: Part
    effect: Effect
    metric: Metric
    rung: str
    amount: Amount | None


@dataclass(frozen=True)
class Judgement:
    """All findings and effects of a study. failed: a control that does not hold, so that no claim is answered."""

    findings: tuple[Finding, ...]
    effects: tuple[MeasuredEffect, ...]
    failed: Finding | None = None

    def finding(self, name: str) -> Finding | None:
        return next((finding for finding in self.findings if finding.statement.name == name), None)


def judge(study: Study, evidence: Evidence) -> Judgement:
    """Answer every statement and measure every effect of the parts that have cells."""
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
        findings = [open_without_control(finding, failed) for finding in findings]
    effects = [measure_effect(part, effect, evidence) for part in parts for effect in part.effects]
    return Judgement(tuple(findings), tuple(effects), failed)


def open_without_control(finding: Finding, failed: Finding) -> Finding:
    """Return the finding, with an open answer if it is a claim, because a control does not hold or is open."""
    if finding.statement.role != "claim" or finding.answer not in (YES, NO, HOW_MUCH):
        return finding
    holds = "does not hold" if failed.answer == NO else "is not shown to hold"
    because = f"a control {holds}: {failed.statement.says}"
    return replace(finding, answer=OPEN, because=because, uncontrolled=True)


def available_rungs(part: Part, cells: pd.DataFrame) -> list[str]:
    """List the budgets of a part that have cells, in the order of its ladder; [""] without a ladder."""
    available = set(cells.loc[cells["part"] == part.name, "rung"])
    return [rung for rung in part.ladder.rungs if rung in available] if part.ladder else [""]


def measure(part: Part, statement: Statement, evidence: Evidence) -> Finding:
    """Measure the sums of a statement at its budget. The answer is empty if the test has to decide it."""
    rungs = available_rungs(part, evidence.cells)
    rung = statement.at or rungs[-1]
    at_rung = evidence.of(part, rung)
    of_arms = replace(at_rung, cells=at_rung.cells[at_rung.cells["arm"].isin(statement.arms)])
    steps = tuple(step(part, statement, terms, of_arms) for terms in statement.sums)
    without = without_result(part, statement, of_arms)
    answer, because = answer_without_test(part, statement, evidence, of_arms, rungs, without)
    line = metric(statement.metric)
    return Finding(part, statement, line, rung, steps, joint_p(steps), 1.0, 1 - ALPHA, answer, because, without)


def step(part: Part, statement: Statement, terms: Terms, evidence: Evidence) -> Step:
    value = amount(part, statement.metric, terms, evidence, among_solved=statement.among_solved)
    if value is None:
        return Step(terms, None, False, 1.0)
    low, high = statement.low, statement.high
    bounds = [bound for bound in (low, high) if math.isfinite(bound)]
    above, below = low == -math.inf or low < value.estimate, high == math.inf or value.estimate < high
    inside = above and below  # an infinite estimate, of seeds that never solve, is above every bound
    if inside:
        return Step(terms, value, True, max(value.p(bound) for bound in bounds))
    nearest = min(bounds, key=lambda bound: abs(value.estimate - bound))
    return Step(terms, value, False, value.p(nearest))


def joint_p(steps: tuple[Step, ...]) -> float:
    """Return the p value of all steps together.

    If all steps lie inside, this is the largest p; otherwise the smallest p of the steps outside, times the number of
    steps (Bonferroni).
    """
    if all(s.inside for s in steps):
        return max(s.p for s in steps)
    return min(1.0, len(steps) * min(s.p for s in steps if not s.inside))


def without_result(part: Part, statement: Statement, evidence: Evidence) -> dict[str, list[str]]:
    """List the cells of a statement that have no result, by arm."""
    values = outcome(part, statement.metric, evidence)
    without: dict[str, list[str]] = {}
    for row in evidence.cells[values.isna()].itertuples():
        reason = "has no such figure" if row.status == "done" else row.status
        without.setdefault(str(row.arm), []).append(f"seed {row.seed} {reason}")
    return without


def answer_without_test(
    part: Part,
    statement: Statement,
    evidence: Evidence,
    of_arms: Evidence,
    rungs: list[str],
    without: dict[str, list[str]],
) -> tuple[str, str]:
    """Return the answer and its reason if no test can decide; two empty strings otherwise.

    of_arms: evidence of the arms of the statement at its budget. without: see `without_result`.
    """
    if statement.withdrawn:
        return WITHDRAWN, statement.withdrawn
    if of_arms.cells.empty or (of_arms.cells["status"] == "not run").all():
        return NOT_RUN, "no run of these arms has been made"
    if absent := set(statement.arms) - set(of_arms.cells["arm"]):
        return OPEN, f"there is no run of {arms(sorted(absent))}"
    if without:
        arm, seeds = next(iter(without.items()))
        missing = sum(map(len, without.values()))
        runs = "1 run has no result, that" if missing == 1 else f"{missing} runs have no result, the first"
        return OPEN, f"{runs} of arm {arm}: {seeds[0]}"
    if statement.among_solved and (too_few := unsolved(part, statement, of_arms)):
        return OPEN, f"fewer than two seeds of {too_few} solve the task"
    of_means = statement.metric == part.metric and not statement.among_solved
    if of_means and (split := in_two_groups(part, statement, of_arms)):
        return OPEN, f"the results of {split} fall into two groups far apart, so a mean does not describe them"
    if not statement.at and part.ladder and (reason := no_plateau(part, part.ladder, statement, evidence, rungs)):
        return HOW_MUCH, reason
    return "", ""


def arms(names: list[str]) -> str:
    """Spell arms in a sentence: arm b, arms b and c; empty without names."""
    return f"{'arm' if len(names) == 1 else 'arms'} {listed(names)}" if names else ""


def unsolved(part: Part, statement: Statement, evidence: Evidence) -> str:
    """Name the arms with fewer than two seeds that solve the task; empty if there are none."""
    counts = solved(part, evidence.cells).groupby(evidence.cells["arm"]).sum()
    return arms([arm for arm in statement.arms if counts[arm] < 2])


def in_two_groups(part: Part, statement: Statement, evidence: Evidence) -> str:
    """Name the arms whose results form two groups, see `two_groups`; empty if there are none."""
    values = outcome(part, statement.metric, evidence)
    groups = {arm: values[evidence.cells["arm"] == arm].to_numpy(dtype=float) for arm in statement.arms}
    return arms([arm for arm, values_of_arm in groups.items() if two_groups(values_of_arm)])


def no_plateau(part: Part, ladder: Ladder, statement: Statement, evidence: Evidence, rungs: list[str]) -> str:
    """Return the reason why the arms are not known to be on a plateau at the last budget; empty if they are."""
    last = f"{ladder.knob}={rungs[-1]}"
    if len(rungs) < 2:
        return f"only one budget was run, {last}, so no plateau can be seen"
    changes = {arm: last_change(part, arm, evidence, rungs) for arm in statement.arms}
    if unknown := [arm for arm, change in changes.items() if math.isnan(change)]:
        have = "has" if len(unknown) == 1 else "have"
        return f"{arms(unknown)} {have} no result at {ladder.knob}={rungs[-2]}, so no plateau can be seen at {last}"
    moving = [arm for arm, change in changes.items() if not abs(change) < part.plateau]
    are = "is" if len(moving) == 1 else "are"
    return f"{arms(moving)} {are} not on a plateau at the last budget, {last}" if moving else ""


def last_change(part: Part, arm: str, evidence: Evidence, rungs: list[str]) -> float:
    """Return the mean result of an arm at the last budget minus that at the budget before; nan if one is missing."""
    budgets = (evidence.of(part, rung) for rung in rungs[-2:])
    means = [outcome(part, part.metric, each)[each.cells["arm"] == arm].mean() for each in budgets]
    return float(means[1] - means[0])


def decide(finding: Finding, corrected: Corrected) -> Finding:
    """Apply the rule of this module: set the answer, the corrected p, and the level of the intervals."""
    holds = all(s.inside for s in finding.steps)
    level = corrected.level if holds else 1 - (1 - corrected.level) / len(finding.steps)
    finding = replace(finding, p_holm=corrected.p, level=level)
    if finding.answer:
        return finding
    if corrected.p > ALPHA:
        several = f" after correction for several claims, whose intervals are at {level:.1%}"
        because = (
            f"the interval reaches across the bound: p = {corrected.p:.2g}{several if corrected.p > finding.p else ''}"
        )
        return replace(finding, answer=OPEN, because=because)
    if holds:
        return replace(finding, answer=YES, because="the whole interval lies where the statement is true")
    return replace(finding, answer=NO, because="the whole interval lies where the statement is false")


def measure_effect(part: Part, effect: Effect, evidence: Evidence) -> MeasuredEffect:
    """Measure an effect at the last budget: in rates of solved seeds if seeds may fail, else in the part's metric."""
    rung = available_rungs(part, evidence.cells)[-1]
    name = SOLVED if part.solved is not None else part.metric
    at_rung = evidence.of(part, rung)
    arms = {arm for _, arm in effect.terms}
    of_arms = replace(at_rung, cells=at_rung.cells[at_rung.cells["arm"].isin(arms)])
    complete = outcome(part, name, of_arms).notna().all() and len(of_arms.cells)
    measured = amount(part, name, effect.terms, of_arms) if complete else None
    return MeasuredEffect(part, effect, metric(name), rung, measured)
