"""The sections of a report about what was stated: the verdict, each statement, and the power of its seeds."""

import math

from patchbench.study import figures
from patchbench.study.claim import ROLES
from patchbench.study.markdown import picture, table
from patchbench.study.numbers import Report, interval, p_value, region, sum_of_arms, with_unit
from patchbench.study.stats import ALPHA, LEAST_SEEDS, POWER
from patchbench.study.verdict import Finding, Judgement, Step
from patchbench.words import count

SIGNS = {"supported": "✔", "refuted": "✘", "undetermined": "?"}
SWEEP = {
    "supported": "higher",
    "refuted": "lower",
    "undetermined": "not told apart",
}  # verdicts where nothing is stated


def verdict(report: Report) -> str:
    """The claim, the verdict on it, and each statement in a line."""
    study, judgement = report.study, report.judgement
    meaning = study.means.get(judgement.verdict) or undecided(judgement)
    predicted = "as predicted" if judgement.verdict == study.expect else f"the prediction was: {study.expect}"
    return (
        f"The claim: “{study.quote}” ({study.source})\n\n"
        f"> **{judgement.verdict.capitalize()}.** {meaning.strip()}\n>\n"
        f"> Why: {judgement.because}; {predicted}.\n\n"
        + "\n".join(in_a_line(finding) for finding in judgement.findings if finding.comparison.role != "aside")
    )


def undecided(judgement: Judgement) -> str:
    claims = [finding for finding in judgement.findings if finding.comparison.role == "claim"]
    supported = sum(finding.verdict == "supported" for finding in claims)
    if not supported:
        return "These runs do not decide it."
    rest = len(claims) - supported
    other = "the other" if rest == 1 else f"the other {rest}"
    return f"{supported} of {len(claims)} statements hold; these runs cannot decide {other}."


def in_a_line(finding: Finding) -> str:
    measured = " and ".join(
        f"{with_unit(finding, step.estimate.mean)} ({interval(finding, step.estimate)})" for step in finding.steps
    )
    why = f" Undetermined: {finding.because}." if finding.verdict == "undetermined" else ""
    why = " **Refuted.**" if finding.verdict == "refuted" else why
    control = " (control)" if finding.comparison.role == "control" else ""
    sign, part = SIGNS[finding.verdict], finding.part.name
    return f"- {sign} *{part}*: {finding.comparison.says}{control} Measured {measured}.{why}"


def statements(report: Report) -> str:
    """Every statement with its interval, p values and verdict, as a table and as a picture."""
    findings = report.judgement.findings
    if not findings:
        return ""
    words = SWEEP if report.sweep else {name: name for name in SIGNS}
    caption = "The bar is the 95 % interval of the difference, paired by seed. "
    if report.sweep:
        title = "Differences"
        note = "Paired by seed, against the first arm; *higher* and *lower* hold after Holm's correction."
        header = ["compared", "measured", "95 % interval", "p", "p, Holm", "verdict"]
        rows = [
            [*measurement(finding, step), p_value(finding.p), p_value(finding.p_holm), SWEEP[finding.verdict]]
            for finding in findings
            for step in finding.steps
        ]
        body = table(header, rows, (1, 2, 3, 4))
    else:
        title = "What was predicted, and what was found"
        roles = ", ".join(f"*{role}*: {meaning}" for role, meaning in ROLES.items())
        note = f"Each statement was written before the runs. {roles}."
        header = ["statement", "compared", "measured", "95 % interval", "true if", "p", "p, Holm", "verdict"]
        body = table(header, [row for finding in findings for row in statement_rows(finding)], (2, 3, 5, 6))
        caption += (
            "Shaded: where the statement is true. Supported when the whole bar is inside, refuted when all of it is "
            "outside, otherwise undetermined."
        )
    drawing = figures.forest(findings, words)
    drawn = picture(report, "differences", drawing, "Every comparison with its 95 % interval", caption)
    return f"## {title}\n\n{note}\n\n{body}\n\n{drawn}"


def statement_rows(finding: Finding) -> list[list[str]]:
    """A row for each step of a statement; the first one has the statement and the verdict."""
    comparison = finding.comparison
    says = comparison.says + ("" if comparison.role == "claim" else f" ({comparison.role})")
    decided = f"{SIGNS[finding.verdict]} **{finding.verdict}**"
    decided += "" if finding.as_expected else f" (predicted: {comparison.expect})"
    whole = [p_value(finding.p), p_value(finding.p_holm), decided]
    return [
        [says if i == 0 else "", *measurement(finding, step), region(finding), *(whole if i == 0 else ["", "", ""])]
        for i, step in enumerate(finding.steps)
    ]


def measurement(finding: Finding, step: Step) -> list[str]:
    """The arms compared, the value measured, and its interval."""
    metric = "" if finding.comparison.metric == finding.part.metric else f", `{finding.comparison.metric}`"
    compared = f"{finding.part.name}: {sum_of_arms(step.terms)}{metric}"
    return [compared, with_unit(finding, step.estimate.mean), interval(finding, step.estimate)]


def power(report: Report) -> str:
    """The smallest difference that the seeds could have found, for each comparison."""
    findings = report.judgement.findings
    rows = [
        [
            f"{finding.part.name}: {sum_of_arms(step.terms)}",
            str(step.estimate.n),
            finding.metric.number(step.estimate.sd, 2) if step.estimate.n > 1 else "n/a",
            smallest_difference(finding, step),
            p_value(step.flip_p),
            p_value(step.tost),
        ]
        for finding in findings
        for step in finding.steps
    ]
    if not rows:
        return ""
    header = ["compared", "seeds", "sd of the difference", "smallest difference found", "sign-flip p, no difference"]
    return (
        "## What these seeds could have found\n\n"
        f"The smallest true difference that so many seeds find in {POWER:.0%} of such experiments, at the strictest "
        f"step of Holm's correction over {count(len(findings), 'statement')}. With n paired seeds "
        f"the smallest possible p is 2/2ⁿ: fewer than {LEAST_SEEDS} seeds can support nothing at {ALPHA:.0%}.\n\n"
        + table([*header, "TOST p"], rows, range(1, 6))
    )


def smallest_difference(finding: Finding, step: Step) -> str:
    if math.isinf(step.detectable):
        return "none of any size"
    return finding.metric.change(step.detectable).lstrip("+")
