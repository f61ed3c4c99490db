"""Effects of design choices: amounts with intervals and costs, of which nothing is claimed."""

import math
from collections.abc import Mapping, Sequence

import pandas as pd

from patchbench.pages.study import figures
from patchbench.pages.study.markdown import picture, table
from patchbench.pages.study.numbers import Report, formatted, mean, spelled_interval, train_gflops
from patchbench.study.outcomes import population
from patchbench.study.verdict import MeasuredEffect

Reports = Sequence[tuple[Report, Mapping[str, str]]]  # with links to the pages of each, by label


def section(report: Report) -> str:
    """The effects of one study."""
    found = [effect for effect in report.judgement.effects if effect.amount is not None]
    if not found:
        return ""
    drawing = figures.effects(by_unit(found))
    caption = "Amounts with 95 % intervals, of which nothing was claimed."
    drawn = picture(report, "effects", drawing, "Effects of design choices", caption)
    rows = [row(report, effect) for effect in found]
    return "## What each choice is worth\n\n" + table(HEADER, rows, range(4, 10)) + "\n\n" + drawn


HEADER = [
    "factor", "from → to", "data", "budget", "effect", "95 % interval", "tokens", "GFLOPs, training", "memory",
    "images/s",
]  # fmt: skip


LARGE = 0.1  # effects of ten points and more are drawn apart, since small ones vanish beside them


def by_unit(found: Sequence[MeasuredEffect], prefix: str = "") -> dict[str, list[tuple[str, MeasuredEffect]]]:
    """Effects with their labels, by the axis on which they are drawn."""
    groups: dict[str, list[tuple[str, MeasuredEffect]]] = {}
    for effect in found:
        label = f"{prefix}{effect.part.name}, {effect.effect.factor}: {from_to(effect)}"
        groups.setdefault(axis_of(effect), []).append((label, effect))
    return groups


def axis_of(effect: MeasuredEffect) -> str:
    """Label of the axis: the unit, and whether the effect is large."""
    if effect.metric.factor != 100:
        return effect.metric.label
    if effect.metric.label.startswith("seeds"):
        return "points of seeds that solve"
    assert effect.amount is not None
    return "points of accuracy" + (", ten and more" if abs(effect.amount.estimate) >= LARGE else "")


def from_to(effect: MeasuredEffect) -> str:
    """none → learned; sums of more arms as they are."""
    terms = effect.effect.terms
    if [sign for sign, _ in terms] == [1, -1]:
        return f"{terms[1][1]} → {terms[0][1]}"
    return " ".join(f"{'+' if sign > 0 else '−'} {arm}" for sign, arm in terms).removeprefix("+ ")


def row(report: Report, effect: MeasuredEffect) -> list[str]:
    """An effect with its budget, and the costs of both arms."""
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
        effect.metric.change(effect.amount.estimate) + label, spelled_interval(effect.metric, effect.amount),
        both([mean(some, "model/tokens") for some in cells], ",.0f"),
        both([float(train_gflops(some).mean()) for some in cells], ".3g"),
        both(memories, ".2f", " GiB"), both(speeds, ",.0f"),
    ]  # fmt: skip


def budget(effect: MeasuredEffect, cells: pd.DataFrame) -> str:
    """Length of training: the rung of a ladder, or the epochs, and the seeds."""
    if effect.part.ladder:
        length = f"{effect.part.ladder.knob}={effect.rung}"
    else:
        epochs = mean(cells, "epochs")
        length = "" if math.isnan(epochs) else f"{epochs:g} epochs"
    seeds = " and ".join(str(n) for n in sorted(set(effect.amount.seeds))) if effect.amount else ""
    return f"{length}, {seeds} seeds"


def both(values: Sequence[float], form: str, unit: str = "") -> str:
    """A cost before and after; one figure where they are the same, nothing where they are not known."""
    if any(math.isnan(value) for value in values):
        return ""
    shown = list(dict.fromkeys(formatted(value, form) for value in values))
    return " → ".join(shown) + unit


def page(reports: Reports) -> tuple[str, dict[str, str]]:
    """The effects of all studies, as Markdown and its pictures by file name."""
    groups: dict[str, list[tuple[str, MeasuredEffect]]] = {}
    sections = []
    for report, links in reports:
        found = [effect for effect in report.judgement.effects if effect.amount is not None]
        if not found:
            continue
        for unit, rows in by_unit(found, prefix=f"{report.study.name}, ").items():
            groups.setdefault(unit, []).extend(rows)
        speaks = "; ".join(
            f"{part.name}: {population(part, report.cells, report.evidence.hits)}"
            for part in report.parts
            if any(effect.part.name == part.name for effect in found)
        )
        link = ", ".join(f"[{name}]({path})" for name, path in links.items())
        note = f"Speaks of {speaks}. {report.study.as_recorded}".strip()
        sections += [
            f"## {report.study.question}",
            link,
            table(HEADER, [row(report, e) for e in found], range(4, 10)),
            note,
        ]
    if not groups:
        return "", {}
    drawn = f"![Effects of design choices with 95 % intervals](effects.svg)\n\n{CAPTION}"
    return "\n\n".join([drawn, *sections]) + "\n", {"effects.svg": figures.svg(figures.effects(groups))}


CAPTION = (
    "*One row for each effect: the mark is the amount, the bar its 95 % interval. Colour and mark: the factor.*\n\n"
    "pt: percentage points of accuracy, or of seeds that solve the task where it says so. Budget: arms were trained so "
    "long, and longer training may give another amount. Tokens, and computation of training (GFLOPs), are per image; "
    "memory and images/s are measured apart on an idle machine, and empty where nobody measured. Names of levels are "
    "those of the options of train.py, or of arms that the report describes."
)
