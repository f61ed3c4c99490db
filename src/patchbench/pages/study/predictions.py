"""Predictions and findings of all studies, and statements that were withdrawn or changed."""

from collections.abc import Sequence

from patchbench.pages.study.effects import Reports
from patchbench.pages.study.markdown import table
from patchbench.pages.study.numbers import measured
from patchbench.study.design import Study


def predictions(reports: Reports) -> str:
    """Return a table of all predictions with their findings, wrong ones first, and the numbers of right ones."""
    rows, right, decided, late = [], 0, 0, 0
    for report, links in reports:
        changed = any(change.seen for change in report.study.changes)
        path = next(iter(links.values()), "")
        for finding in report.judgement.findings:
            if not finding.statement.predicted:
                continue
            scored = finding.as_predicted
            decided += scored is not None
            right += bool(scored)
            late += bool(scored) and changed
            sign = {True: "as predicted", False: "**wrong**", None: ""}[scored]
            amounts = measured(finding) if any(step.amount for step in finding.steps) else ""
            name = f"[{report.study.name}]({path})" if path else report.study.name
            rows.append([name, finding.statement.says, finding.statement.predicted, finding.answer, amounts, sign])
    order = {"**wrong**": 0, "as predicted": 1, "": 2}
    rows.sort(key=lambda cells: order[cells[-1]])
    score = (
        f"{right} of {decided} decided predictions came true; {len(rows) - decided} of {len(rows)} predictions are not "
        "decided. Wrong predictions are listed first."
    )
    if late:
        score += (
            f" Of the {right} that came true, {late} belong to studies whose rule or statements were changed after "
            "results were known, as [listed](errata.md): they confirm nothing until they are repeated with fresh seeds."
        )
    return f"{score}\n\n" + table(["study", "statement", "predicted", "found", "measured", ""], rows) + "\n"


def errata(studies: Sequence[Study]) -> str:
    """Return tables of withdrawn statements, by reason, and of changes after a study was written, the latest first."""
    withdrawn: dict[tuple[str, str], list[str]] = {}
    for study in studies:
        for _, statement in study.statements:
            if statement.withdrawn:
                withdrawn.setdefault((study.name, statement.withdrawn), []).append(f"“{statement.says}”")
    rows = [[study, why, " ".join(says)] for (study, why), says in withdrawn.items()]
    changes: dict[tuple[str, str, str, bool], list[str]] = {}
    for study in studies:
        for change in study.changes:
            changes.setdefault((change.date, change.what, change.why, change.seen), []).append(study.name)
    known = {True: "yes", False: "no"}
    changed = [
        [date, ", ".join(names), what, why, known[seen]]
        for (date, what, why, seen), names in sorted(changes.items(), key=lambda item: item[0][0], reverse=True)
    ]
    sections = [
        "## Withdrawn",
        table(["study", "why", "statements"], rows) if rows else "Nothing.",
        "## Changed",
        table(["date", "study", "what", "why", "results known"], changed) if changed else "Nothing.",
    ]
    return "\n\n".join(sections) + "\n"
