"""The sections of the page of a study on its statements: answers, table of statements, and power of the seeds."""

import math

from patchbench.pages.study import figures, fresh
from patchbench.pages.study.markdown import picture, table
from patchbench.pages.study.numbers import (
    Report,
    has_interval,
    interval,
    is_level,
    measured,
    p_value,
    region,
    sum_of_arms,
    with_unit,
)
from patchbench.statistics.inference import ALPHA, least_seeds, spread
from patchbench.statistics.power import POWER, smallest_effect
from patchbench.study.design import ROLES, STEPS
from patchbench.study.outcomes import outcome
from patchbench.study.verdict import HOW_MUCH, NO, NOT_RUN, OPEN, WITHDRAWN, YES, Finding, Step
from patchbench.words import count

# Words for the answers about a sweep, for which nothing is stated.
SWEEP = {YES: "higher", NO: "lower", OPEN: "no clear difference", HOW_MUCH: "", NOT_RUN: "not run", WITHDRAWN: ""}


def answers(report: Report) -> str:
    """Return the answers to the statements that decide the question, each with its amount and its certainty."""
    decided = (report.judgement.finding(name) for name in report.study.decides)
    return "\n\n".join(in_words(finding) + fresh_result(report, finding) for finding in decided if finding is not None)


def fresh_result(report: Report, finding: Finding) -> str:
    """Return the end of an answer, the finding of fresh seeds; empty if the study was not replicated."""
    again = report.fresh.judgement.finding(finding.statement.name) if report.fresh else None
    return f" {fresh.in_words(finding, again, report.fresh.seeds)}" if report.fresh and again else ""


def in_words(finding: Finding) -> str:
    """Write an answer in words: the statement, the amount, and its certainty."""
    says = finding.statement.says
    head = {
        YES: f"**Yes.** {says}",
        NO: f"**No.** It does not hold that: “{says}”",
        OPEN: f"**Open.** “{says}”",
        HOW_MUCH: f"**By how much.** “{says}”",
        NOT_RUN: f"**Not tested.** “{says}”",
        WITHDRAWN: f"**Withdrawn.** “{says}”",
    }[finding.answer]
    if finding.answer in (NOT_RUN, WITHDRAWN):
        return f"> {head} {sentence(finding.because)}"
    if not any(step.amount for step in finding.steps):
        return f"> {head}\n>\n> {sentence(finding.because)}"
    return f"> {head}\n>\n> Measured: {compared(finding)} {measured(finding)}{baseline(finding)}. {how_sure(finding)}"


def compared(finding: Finding) -> str:
    """Spell the arms that were measured, the data, and the budget: sincos − none on left_of,"""
    sums = " and ".join(sum_of_arms(step.terms) for step in finding.steps)
    budget = f" at {finding.part.ladder.knob}={finding.rung}" if finding.part.ladder else ""
    among = " among seeds that solve the task" if finding.statement.among_solved else ""
    label = "" if finding.metric.label == "test accuracy" else f", {finding.metric.label}"
    return f"{sums} on {finding.part.name}{budget}{among}{label},"


def baseline(finding: Finding) -> str:
    """Spell the value of guessing, for a statement about the value of an arm: ; guessing gives 25.0 %"""
    part, chance = finding.part, finding.part.chance
    if chance is None or not is_level(finding) or finding.statement.metric != part.metric:
        return ""
    return f"; guessing gives {finding.metric.value(chance)}"


def verdict(finding: Finding) -> str:
    """Write what a comparison of a sweep shows."""
    amounts = [step.amount for step in finding.steps]
    if finding.answer == OPEN and amounts and all(amount and not has_interval(amount) for amount in amounts):
        return "cannot be told: too few runs for an interval"
    return SWEEP[finding.answer]


def summary(report: Report) -> list[str]:
    """Return a line for the terminal for each comparison of a sweep, or each answer of a study."""
    findings = report.judgement.findings
    if report.sweep:
        measured_ones = [finding for finding in findings if any(step.amount for step in finding.steps)]
        return [f"{compared(finding)} {measured(finding)}: {verdict(finding)}" for finding in measured_ones]
    decided = (report.judgement.finding(name) for name in report.study.decides)
    return [
        f"{finding.answer}: {finding.statement.says} {measured(finding)}".rstrip()
        for finding in decided
        if finding is not None
    ]


def how_sure(finding: Finding) -> str:
    """Write the certainty of an answer in words."""
    if finding.answer in (YES, NO):
        odds = "fewer than 1 of 10,000" if finding.p < 1e-4 else f"about {10_000 * finding.p:,.0f} of 10,000"
        return f"If the true value were beyond the bound, {odds} such experiments would give a result as clear as this."
    return sentence(finding.because)


def sentence(text: str) -> str:
    """Write a reason as a sentence."""
    return text[:1].upper() + text[1:].rstrip(".") + "."


def statements(report: Report) -> str:
    """Return the section on all statements with intervals, p values and answers, as a table and a picture."""
    findings = report.judgement.findings
    if not findings:
        return ""
    shown = [finding for finding in findings if any(step.amount for step in finding.steps)]
    if report.sweep:
        title = "Differences"
        references = {step.terms[-1][1] for finding in findings for step in finding.steps}
        reference = f"the arm {references.pop()}" if len(references) == 1 else "the first arm of its data set"
        note = (
            f"Each arm is compared with {reference}. *Higher* and *lower* are corrected for the number of comparisons "
            "(Holm)."
        )
        header = ["compared", "measured", "95 % interval", "p", "p, corrected", "verdict"]
        rows = [
            [*measurement(finding, step), p_value(finding.p), p_value(finding.p_holm), verdict(finding)]
            for finding in findings
            for step in finding.steps
        ]
        body = table(header, rows, (1, 2, 3, 4))
        caption = "The bar is the 95 % interval of the difference."
    else:
        title = "Every statement"
        roles = ", ".join(f"*{role}*: {meaning}" for role, meaning in ROLES.items())
        changed = ", except for the changes listed below" if report.study.changes else ""
        note = f"Each statement was written before the runs{changed}. {roles}."
        header = ["statement", "compared", "measured", "95 % interval", "true if", "p", "p, corrected", "answer"]
        body = table(header, [row for finding in findings for row in statement_rows(finding)], (2, 3, 5, 6))
        caption = (
            "Shaded: values for which the statement is true. Bar: the interval that decides, of 95 %, or wider after "
            "the correction for several claims. Yes: the whole bar is inside. No: it is outside. Open: neither."
        )
    if not shown:
        return f"## {title}\n\n{note}\n\n{body}"
    drawing = figures.forest(shown, {answer: SWEEP[answer] if report.sweep else answer for answer in SWEEP})
    drawn = picture(report, "differences", drawing, "Every statement with its interval", caption)
    return f"## {title}\n\n{note}\n\n{body}\n\n{drawn}"


def statement_rows(finding: Finding) -> list[list[str]]:
    """Return a row for each sum of a statement; the first has the statement and the answer."""
    statement = finding.statement
    says = statement.says + ("" if statement.role == "claim" else f" ({statement.role})")
    answer = f"**{finding.answer}**"
    answer += f": {finding.because}" if finding.answer in (OPEN, HOW_MUCH) else ""
    whole = [p_value(finding.p), p_value(finding.p_holm) if statement.role == "claim" else "", answer]
    if finding.answer in (NOT_RUN, WITHDRAWN):
        whole = ["", "", answer]
    return [
        [says if i == 0 else "", *measurement(finding, step), region(finding), *(whole if i == 0 else ["", "", ""])]
        for i, step in enumerate(finding.steps)
    ]


def measurement(finding: Finding, step: Step) -> list[str]:
    """Return the cells of a measurement: the arms compared, the measured value, and its interval."""
    statement = finding.statement
    metric = "" if statement.metric == finding.part.metric else f", `{statement.metric}`"
    metric += ", among the solved" if statement.among_solved else ""
    budget = f", {finding.part.ladder.knob}={finding.rung}" if finding.part.ladder else ""
    compared = f"{finding.part.name}: {sum_of_arms(step.terms)}{metric}{budget}"
    if step.amount is None:
        return [compared, "", ""]
    return [compared, with_unit(finding, step.amount.estimate), interval(finding, step.amount)]


def power(report: Report) -> str:
    """Return the section on the smallest difference that the seeds could have found, for each difference of means."""
    claims = sum(
        finding.statement.role == "claim" and finding.answer != WITHDRAWN for finding in report.judgement.findings
    )
    rows = [
        row
        for finding in report.judgement.findings
        if finding.answer not in (NOT_RUN, WITHDRAWN)
        for step in finding.steps
        if (row := detectable(report, finding, step, max(1, claims)))
    ]
    if not rows:
        return ""
    header = ["compared", "seeds per arm", "sd between seeds", "smallest difference detected"]
    return (
        "## What these seeds can detect\n\n"
        f"The smallest true difference between two arms that this number of seeds detects in {POWER:.0%} of "
        f"experiments, at the strictest step of the correction for {count(max(1, claims), 'claim')}. With fewer than "
        f"{least_seeds(max(1, claims))} seeds per arm, no difference is significant at {ALPHA:.0%}.\n\n"
        + table(header, rows, (1, 2, 3))
    )


def detectable(report: Report, finding: Finding, step: Step, claims: int) -> list[str]:
    """Return a row of the table of power; empty unless the step compares the means of two arms."""
    statement = finding.statement
    if step.amount is None or len(step.terms) != 2 or statement.metric in ("solved", STEPS):
        return []
    evidence = report.evidence.of(finding.part, finding.rung)
    values = outcome(finding.part, statement.metric, evidence, among_solved=statement.among_solved)
    spreads = [spread(values[evidence.cells["arm"] == arm].dropna().to_numpy(dtype=float)) for _, arm in step.terms]
    sd = math.sqrt(sum(s**2 for s in spreads) / len(spreads))
    seeds = min(step.amount.seeds)
    least = smallest_effect(seeds, sd, claims)
    detected = "none" if math.isinf(least) else finding.metric.change(least).lstrip("+")
    return [measurement(finding, step)[0], str(seeds), finding.metric.number(sd, 2), detected]
