"""Effects of design choices: amounts with intervals and costs, without claims."""

import math
from collections.abc import Mapping, Sequence

import pandas as pd

from patchbench.pages.study import figures
from patchbench.pages.study.markdown import picture, table
from patchbench.pages.study.numbers import Report, formatted, interval_in_words, mean, train_gflops
from patchbench.study.outcomes import population
from patchbench.study.verdict import MeasuredEffect

Reports = Sequence[tuple[Report, Mapping[str, str]]]  # each with links to its pages, by label


def section(report: Report) -> str:
    """Return the section on the effects of one study."""
    measured = [effect for effect in report.judgement.effects if effect.amount is not None]
    if not measured:
        return ""
    drawing = figures.effects(by_unit(measured))
    caption = "Amounts with 95 % intervals, reported without a claim."
    drawn = picture(report, "effects", drawing, "Effects of design choices", caption)
    rows = [row(report, effect) for effect in measured]
    return "## What each choice is worth\n\n" + table(HEADER, rows, range(4, 10)) + "\n\n" + drawn


HEADER = [
    "factor", "from → to", "data", "budget", "effect", "95 % interval", "tokens", "GFLOPs, training", "memory",
    "images/s",
]  # fmt: skip


LARGE = 0.1  # effects of ten points and more have an axis of their own, on which small effects would be invisible


def by_unit(effects: Sequence[MeasuredEffect], prefix: str = "") -> dict[str, list[tuple[str, MeasuredEffect]]]:
    """Group effects, each with its label, by the axis on which they are drawn."""
    groups: dict[str, list[tuple[str, MeasuredEffect]]] = {}
    for effect in effects:
        label = f"{prefix}{effect.part.name}, {effect.effect.factor}: {from_to(effect)}"
        groups.setdefault(axis_of(effect), []).append((label, effect))
    return groups


def axis_of(effect: MeasuredEffect) -> str:
    """Label the axis of an effect: the unit, and whether the effect is large."""
    if effect.metric.factor != 100:
        return effect.metric.label
    if effect.metric.label.startswith("seeds"):
        return "points of seeds that solve"
    assert effect.amount is not None
    return "points of accuracy" + (", ten and more" if abs(effect.amount.estimate) >= LARGE else "")


def from_to(effect: MeasuredEffect) -> str:
    """Spell the arms of an effect: none → learned; a sum of more arms with its signs."""
    terms = effect.effect.terms
    if [sign for sign, _ in terms] == [1, -1]:
        return f"{terms[1][1]} → {terms[0][1]}"
    return " ".join(f"{'+' if sign > 0 else '−'} {arm}" for sign, arm in terms).removeprefix("+ ")


def row(report: Report, effect: MeasuredEffect) -> list[str]:
    """Return the row of an effect, with its budget and the costs of both arms."""
    assert effect.amount is not None
    scores = report.scores(effect.part, effect.rung)
    cells = [scores[scores["arm"] == arm] for _, arm in reversed(effect.effect.terms)]
    prices = report.costs_of(effect.part)
    speeds, memories = (
        [prices[name].get(arm, math.nan) if len(prices) else math.nan for _, arm in reversed(effect.effect.terms)]
        for name in ("images_per_s", "memory")
    )
    label = " of seeds that solve" if effect.metric.label.startswith("seeds") else ""
    return [
        effect.effect.factor, from_to(effect), effect.part.name, budget(effect, cells[0]),
        effect.metric.change(effect.amount.estimate) + label, interval_in_words(effect.metric, effect.amount),
        before_and_after([mean(some, "model/tokens") for some in cells], ",.0f"),
        before_and_after([float(train_gflops(some).mean()) for some in cells], ".3g"),
        before_and_after(memories, ".2f", " GiB"), before_and_after(speeds, ",.0f"),
    ]  # fmt: skip


def budget(effect: MeasuredEffect, cells: pd.DataFrame) -> str:
    """Spell the length of training, the rung of a ladder or the epochs, and the number of seeds."""
    if effect.part.ladder:
        length = f"{effect.part.ladder.knob}={effect.rung}"
    else:
        epochs = mean(cells, "epochs")
        length = "" if math.isnan(epochs) else f"{epochs:g} epochs"
    seeds = " and ".join(str(n) for n in sorted(set(effect.amount.seeds))) if effect.amount else ""
    return f"{length}, {seeds} seeds"


def before_and_after(values: Sequence[float], form: str, unit: str = "") -> str:
    """Spell a cost before and after; one number if both are equal, empty if one is unknown."""
    if any(math.isnan(value) for value in values):
        return ""
    shown = list(dict.fromkeys(formatted(value, form) for value in values))
    return " → ".join(shown) + unit


def page(reports: Reports) -> tuple[str, dict[str, str]]:
    """Return the page of the effects of all studies as Markdown, and its pictures by file name."""
    groups: dict[str, list[tuple[str, MeasuredEffect]]] = {}
    sections = []
    for report, links in reports:
        measured = [effect for effect in report.judgement.effects if effect.amount is not None]
        if not measured:
            continue
        for unit, rows in by_unit(measured, prefix=f"{report.study.name}, ").items():
            groups.setdefault(unit, []).extend(rows)
        link = ", ".join(f"[{name}]({path})" for name, path in links.items())
        note = f"{populations(report, measured)} {report.study.as_recorded}".strip()
        sections += [
            f"## {report.study.question}",
            link,
            table(HEADER, [row(report, e) for e in measured], range(4, 10)),
            note,
        ]
    if not groups:
        return "", {}
    drawn = f"![Effects of design choices with 95 % intervals](effects.svg)\n\n{CAPTION}"
    return "\n\n".join([drawn, *sections]) + "\n", {"effects.svg": figures.svg(figures.effects(groups))}


def populations(report: Report, effects: Sequence[MeasuredEffect]) -> str:
    """Say to which seeds and images the intervals of effects apply, with the names of the parts."""
    names = {effect.part.name for effect in effects}
    parts: dict[str, list[str]] = {}
    for part in report.parts:
        if part.name in names:
            parts.setdefault(population(part, report.cells, report.evidence.hits), []).append(part.name)
    listed = (f"{whom} ({', '.join(of)})" for whom, of in parts.items())
    return f"Intervals apply to {'; '.join(listed)}."


CAPTION = (
    "*One row for each effect: the mark is the amount, the bar its 95 % interval. Colour and mark: the factor.*\n\n"
    "pt: percentage points of accuracy or, where noted, of seeds that solve the task. Budget: the length of training; "
    "longer training may give another amount. Tokens and the computation of training (GFLOPs) are per image. Memory "
    "and images/s are measured separately on an idle machine; empty cells were not measured. Levels have the names of "
    "options of train.py, or of arms that the report describes."
)
