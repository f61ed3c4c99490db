"""Replication: first findings beside those of fresh seeds, in words for one statement, and as a page of all studies."""

from collections.abc import Sequence
from dataclasses import dataclass

from patchbench.pages.study.effects import from_to
from patchbench.pages.study.markdown import table
from patchbench.pages.study.numbers import amount_in_words, measured, sign_of
from patchbench.study.design import Study
from patchbench.study.verdict import HOW_MUCH, NO, YES, Finding, Judgement, MeasuredEffect
from patchbench.words import count

SAME, NONE, OTHER = "the same", "**not replicated**", "**the opposite**"
LATER = "decided only now"
CHANGED = "changed since it was frozen, so it confirms nothing"


@dataclass(frozen=True)
class Replication:
    """A study with two judgements. seeds: those of the second, in words. frozen: date of the freeze by statement.

    A statement that has changed since it was frozen is not in `frozen`.
    """

    study: Study
    first: Judgement
    second: Judgement
    link: str
    seeds: str
    frozen: dict[str, str]


def outcome(first: str, second: str) -> str:
    """Compare two answers to one statement; empty if neither decided it."""
    if first == second and first in (YES, NO, HOW_MUCH):
        return SAME
    if {first, second} == {YES, NO}:
        return OTHER
    if first in (YES, NO):
        return NONE
    return LATER if second in (YES, NO) else ""


def in_words(first: Finding, second: Finding, seeds: str) -> str:
    """Write a sentence about the second finding: `On fresh seeds (100 to 109): the same, ...`."""
    result = measured(second) if any(step.amount for step in second.steps) else second.because
    verdict = outcome(first.answer, second.answer) or second.answer
    verdict += f" ({second.answer})" if verdict == NONE else ""
    return f"On fresh seeds ({seeds}): {verdict}, {result}."


def page(repeated: Sequence[Replication]) -> str:
    """Return the page: a table of all statements, those that were not replicated first, and a table of all effects."""
    if not repeated:
        return "No study has been repeated.\n"
    rows, effects = [], []
    for each in repeated:
        name = f"[{each.study.name}]({each.link})"
        for first in each.first.findings:
            second = each.second.finding(first.statement.name)
            if second is None or not any(step.amount for step in second.steps):
                continue
            frozen = each.frozen.get(first.statement.name)
            verdict = outcome(first.answer, second.answer) if frozen else CHANGED
            shown = [f"{one.answer}: {measured(one)}" if measured(one) else one.answer for one in (first, second)]
            rows.append([name, first.statement.says, *shown, each.seeds, frozen or "", verdict])
        effects += [row for one, two in pairs(each) if (row := [name, *effect_row(one, two)])]
    order = {OTHER: 0, NONE: 1, LATER: 3, "": 4, SAME: 5}
    rows.sort(key=lambda cells: order.get(cells[-1], 2))
    return "\n\n".join([score(rows), table(HEADER, rows), *effects_section(effects)]) + "\n"


HEADER = ["study", "statement", "first", "fresh seeds", "seeds", "frozen", "replicated"]


def score(rows: Sequence[Sequence[str]]) -> str:
    """Count the answers that were replicated, in words. rows: rows of the table of statements."""
    kinds = [row[-1] for row in rows]
    decided = sum(kind in (SAME, NONE, OTHER) for kind in kinds)
    return (
        f"{count(decided, 'statement')} had an answer in the first runs. On fresh seeds {kinds.count(SAME)} had the "
        f"same answer, {kinds.count(NONE)} had none, {kinds.count(OTHER)} had the opposite answer; the last two kinds "
        f"are listed first. Statements without an answer in the first runs that have one now: {kinds.count(LATER)}. "
        "Statements, bounds, options and the settings of every arm were frozen before the second runs, on the date in "
        "the table."
    )


def pairs(each: Replication) -> list[tuple[MeasuredEffect, MeasuredEffect]]:
    """List the effects that were measured both times, as pairs."""
    second = {(measured.part.name, measured.effect): measured for measured in each.second.effects}
    both = ((measured, second.get((measured.part.name, measured.effect))) for measured in each.first.effects)
    return [(one, two) for one, two in both if two and one.amount is not None and two.amount is not None]


def effect_row(one: MeasuredEffect, two: MeasuredEffect) -> list[str]:
    """Return the row of an effect that was measured twice, with a comparison of the signs."""
    amounts = [measured.amount for measured in (one, two) if measured.amount is not None]
    signs = [sign_of(amount) for amount in amounts]
    verdict = "no clear sign" if 0 in signs else "the same" if signs[0] == signs[1] else OTHER
    if signs == [0, 0]:
        verdict = "no clear sign in both"
    shown = [amount_in_words(one.metric, amount) for amount in amounts]
    return [one.part.name, one.effect.factor, from_to(one), *shown, verdict]


def effects_section(rows: Sequence[Sequence[str]]) -> list[str]:
    if not rows:
        return []
    header = ["study", "data", "factor", "from → to", "first", "fresh seeds", "sign"]
    return ["## Effects", table(header, rows)]
