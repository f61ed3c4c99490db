"""Published results beside those of a study, and a comparison of the directions of effects."""

from collections.abc import Mapping
from typing import Any

from patchbench.pages.study.markdown import table
from patchbench.pages.study.numbers import Report, amount_in_words, sign_of, sum_of_arms
from patchbench.runs.metrics import metric
from patchbench.study.design import Published
from patchbench.study.verdict import MeasuredEffect
from patchbench.words import count


def section(report: Report) -> str:
    """Return the section: published results, the means of our arms, and a table of directions."""
    if not report.study.published:
        return ""
    names = list(dict.fromkeys(name for row in report.study.published for name in map(str, row.figures)))
    rows = [[source_of(row), *(str(row.figures.get(name, "")) for name in names)] for row in report.study.published]
    for part in report.parts:
        means = report.scores(part).groupby("arm")["score"].mean().dropna()
        ours = (metric(part.metric).number(means[name]) if name in means else "" for name in names)
        rows.append([f"**ours**, {part.name}", *ours])
    return (
        "## Published results beside ours\n\nPublished results are of other data and other networks, so only the order "
        "of the arms and the sizes of the differences can be compared.\n\n"
        + table(["source", *names], rows, range(1, len(names) + 1))
        + directions(report)
    )


def source_of(row: Published) -> str:
    return f"{row.source}{': ' + row.note if row.note else ''}"


def directions(report: Report) -> str:
    """Return a table of effects that occur in a source: our amount, published amounts, the number with our sign."""
    rows = []
    for effect in report.judgement.effects:
        theirs = differences(effect, report.study.published)
        if effect.amount is None or not theirs:
            continue
        ours, sign = amount_in_words(effect.metric, effect.amount), sign_of(effect.amount)
        num_alike = sum(sign * amount > 0 for amount in theirs.values())
        agreement = f"{num_alike} of {count(len(theirs), 'source')}" if sign else "ours has no clear sign"
        if sign and num_alike == 0:
            agreement = f"**none** of {count(len(theirs), 'source')}"
        listed = ", ".join(f"{amount:+.1f} {source}" for source, amount in theirs.items())
        rows.append([sum_of_arms(effect.effect.terms), place(effect), ours, listed, agreement])
    if not rows:
        return ""
    header = ["difference", "data", "ours", "published, points", "same sign as ours"]
    return "\n\n" + table(header, rows)


def place(effect: MeasuredEffect) -> str:
    return f"{effect.part.name}, {effect.part.ladder.knob}={effect.rung}" if effect.part.ladder else effect.part.name


def differences(effect: MeasuredEffect, published: tuple[Published, ...]) -> Mapping[str, float]:
    """Return the difference of an effect by source, in points, for the sources that have both of its arms."""
    if [sign for sign, _ in effect.effect.terms] != [1, -1]:
        return {}
    (_, more), (_, less) = effect.effect.terms
    by_source = {}
    for row in published:
        figures: dict[str, Any] = {str(name): figure for name, figure in row.figures.items()}
        if more in figures and less in figures:
            note = row.note.partition(";")[0]
            by_source[f"({row.source}{', ' + note if note else ''})"] = float(figures[more]) - float(figures[less])
    return by_source
