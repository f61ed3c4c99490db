"""Decide the verdict on a study from its cells: by intervals and exact p values, never by a mean.

A statement is supported when the whole 95 % interval lies in its region, refuted when the whole interval lies outside,
and either way only if the p value of the opposite, corrected over all statements of the study (Holm, 1979), is at most
5 %. Everything else is undetermined: too few seeds, a cell without a result, an interval that reaches over the bound.
"""

import math
import re
from collections import Counter
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from patchbench.runs.metrics import Metric, metric
from patchbench.study.claim import Comparison, Part, Study, Terms, parse_terms
from patchbench.study.stats import (
    ALPHA,
    LEAST_SEEDS,
    Estimate,
    Values,
    bca_estimate,
    detectable,
    holm,
    sign_flip_p,
    tost_p,
)
from patchbench.words import count


@dataclass(frozen=True)
class Step:
    """One sum of arms, measured. p: that of the bound which the mean must differ from. detectable: see stats."""

    terms: Terms
    values: Values  # one for each seed
    estimate: Estimate
    inside: bool  # on which side of the bound the mean is, so what p speaks against
    p: float
    flip_p: float  # against equality, by sign flips
    tost: float  # p of the two one-sided tests; nan where no equality is claimed
    detectable: float


@dataclass(frozen=True)
class Finding:
    """The result of a comparison. p: that of all its steps together, before and after correction over the study."""

    part: Part
    comparison: Comparison
    metric: Metric
    steps: tuple[Step, ...]
    p: float
    p_holm: float
    verdict: str
    because: str
    without_result: dict[str, list[str]]  # by arm: "seed 3 failed"

    @property
    def as_expected(self) -> bool:
        return self.verdict == self.comparison.expect


@dataclass(frozen=True)
class Judgement:
    verdict: str
    because: str
    findings: tuple[Finding, ...]


def judge(study: Study, cells: pd.DataFrame) -> Judgement:
    """Judge every comparison and the whole claim.

    cells: one row for each planned run, with part, arm, seed, status, and the figures of its result.
    """
    pairs = [(part, comparison) for part, comparison in study.comparisons if part.name in set(cells["part"])]
    measured = [measure(part, comparison, cells, len(pairs)) for part, comparison in pairs]
    adjusted = holm(np.array([finding.p for finding in measured]))
    findings = tuple(decide(replace(f, p_holm=float(p)), len(pairs)) for f, p in zip(measured, adjusted, strict=True))
    return Judgement(*conclude(findings), findings)


def conclude(findings: tuple[Finding, ...]) -> tuple[str, str]:
    """The verdict on the claim, and why."""
    claims, controls = ([f for f in findings if f.comparison.role == role] for role in ("claim", "control"))
    verdicts = Counter(f.verdict for f in claims)
    statements = f"{len(claims)} statements"
    if broken := [f for f in controls if f.verdict == "refuted"]:
        return "undetermined", f"a control failed, so nothing is concluded: {broken[0].comparison.says}"
    if verdicts["refuted"]:
        return "refuted", (
            "its statement is refuted"
            if len(claims) == 1
            else f"{verdicts['refuted']} of its {statements} {'is' if verdicts['refuted'] == 1 else 'are'} refuted"
        )
    if not claims:
        return "undetermined", "no statement of the claim was tested at this scale"
    if verdicts["undetermined"]:
        first = next(f for f in claims if f.verdict == "undetermined")
        many = f"{verdicts['undetermined']} of its {statements} undecided"
        return "undetermined", f"{'its statement is undecided' if len(claims) == 1 else many}: {first.because}"
    if shaky := [f for f in controls if f.verdict == "undetermined"]:
        return "undetermined", f"a control is undecided: {shaky[0].because}"
    held = f", {count(len(controls), 'control')} held" if controls else ""
    return "supported", (
        "its statement is supported" if len(claims) == 1 else f"all of its {statements} are supported"
    ) + held


def measure(part: Part, comparison: Comparison, cells: pd.DataFrame, comparisons: int) -> Finding:
    here = cells[(cells["part"] == part.name) & cells["arm"].isin(comparison.arms)]
    scores = here.assign(score=score(part, comparison.metric, here))
    table = scores.pivot(index="seed", columns="arm", values="score").reindex(columns=comparison.arms)
    steps = tuple(step(terms, table, comparison, comparisons) for terms in comparison.sums)
    without: dict[str, list[str]] = {}
    for row in scores[scores["score"].isna()].itertuples():
        reason = "has no such figure" if row.status == "done" else row.status
        without.setdefault(str(row.arm), []).append(f"seed {row.seed} {reason}")
    return Finding(part, comparison, metric(comparison.metric), steps, joint_p(steps), math.nan, "", "", without)


def score(part: Part, name: str, cells: pd.DataFrame) -> pd.Series:
    """The metric of each cell, nan where there is none. A diverged run counts as guessing, which it can do."""
    total = pd.Series(0.0, index=cells.index)
    for sign, term in parse_terms(name):
        logarithm = re.fullmatch(r"log2\((.+)\)", term)
        column = cells.get(logarithm[1] if logarithm else term, pd.Series(math.nan, index=cells.index))
        values = pd.to_numeric(column).where(cells["status"] == "done")
        total += sign * (np.log2(values) if logarithm else values)
    guessing = part.chance if name == part.metric and part.chance is not None else math.nan
    return total.mask(cells["status"] == "diverged", guessing)


def step(terms: Terms, table: pd.DataFrame, comparison: Comparison, comparisons: int) -> Step:
    sums = sum((sign * table[arm] for sign, arm in terms), pd.Series(0.0, index=table.index))
    values = sums.dropna().to_numpy(dtype=float)
    estimate = bca_estimate(values)
    low, high = comparison.low, comparison.high
    two_sided = math.isfinite(low) and math.isfinite(high)
    middle = (low + high) / 2 if two_sided else 0.0
    inside = low < estimate.mean < high
    tost = tost_p(values, low, high) if two_sided else math.nan
    nearest = low if abs(estimate.mean - low) <= abs(estimate.mean - high) else high
    p = tost if inside and two_sided else sign_flip_p(values, nearest)
    to_find = detectable(estimate.n, estimate.sd, comparisons)
    return Step(terms, values, estimate, inside, p, sign_flip_p(values, middle), tost, to_find)


def joint_p(steps: tuple[Step, ...]) -> float:
    """All steps hold: the largest p. Some step fails: the smallest p of those, times their number (Bonferroni)."""
    if all(s.inside for s in steps):
        return max(s.p for s in steps)
    return min(1.0, len(steps) * min(s.p for s in steps if not s.inside))


def decide(finding: Finding, comparisons: int) -> Finding:
    """The one rule; see the head of this file."""
    low, high = finding.comparison.low, finding.comparison.high
    estimates = [s.estimate for s in finding.steps]
    n = min(e.n for e in estimates)
    holds = all(low < e.low and e.high < high for e in estimates)
    fails = any(e.high <= low or e.low >= high for e in estimates)
    corrected = f" after Holm's correction over {comparisons} statements" if comparisons > 1 else ""
    if finding.without_result:
        arm, seeds = next(iter(finding.without_result.items()))
        missing = sum(map(len, finding.without_result.values()))
        some = "1 run without a result" if missing == 1 else f"{missing} runs without a result, the first"
        verdict, because = "undetermined", f"{some} of {arm}: {seeds[0]}"
    elif n < LEAST_SEEDS:
        verdict, because = "undetermined", f"{n} seeds; fewer than {LEAST_SEEDS} can support nothing at 5 %"
    elif not holds and not fails:
        verdict, because = "undetermined", "the 95 % interval reaches over the bound, so both are possible"
    elif finding.p_holm > ALPHA:
        verdict, because = "undetermined", f"p = {finding.p_holm:.2g}{corrected}"
    elif holds:
        verdict, because = "supported", "the whole interval lies where it was predicted"
    else:
        verdict, because = "refuted", "the whole interval lies outside of what was stated"
    return replace(finding, verdict=verdict, because=because)
