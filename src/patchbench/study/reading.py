"""The content of a study.yaml, read into the design of a study."""

import datetime
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise, product
from typing import Any

from patchbench.study.design import (
    GRID,
    PILOTS,
    PLATEAU,
    ROLES,
    SOLVED,
    STEPS,
    Change,
    Effect,
    Ladder,
    Part,
    Published,
    Scale,
    Statement,
    Study,
    Terms,
)


def parse(name: str, tree: Mapping[str, Any]) -> Study:
    """Read the content of a study.yaml. ValueError names the place and the cure."""
    where = f"study {name}"
    keys = "question decides doubts metric factors arms overrides scales parts published tune tune_arms"
    known(tree, where, f"{keys} changes as_recorded")
    for key in ("question", "scales", "parts"):
        if not tree.get(key):
            raise ValueError(f"{where}: {key} is missing: a study has a question, scales and parts")
    grid, grids = parse_tuning(where, tree)
    study = Study(
        name=name,
        question=tree["question"].strip(),
        decides=tuple(map(str, tree.get("decides", ()))),
        scales={scale: parse_scale(f"{where}: scales.{scale}", body) for scale, body in tree["scales"].items()},
        parts=tuple(parse_part(f"{where}: parts.{part}", part, body, tree) for part, body in tree["parts"].items()),
        overrides=tuple(tree.get("overrides", ())),
        published=tuple(
            Published(row["source"], row["figures"], row.get("note", "")) for row in tree.get("published", ())
        ),
        changes=tuple(
            parse_change(f"{where}: changes[{i}]", change) for i, change in enumerate(tree.get("changes", ()))
        ),
        as_recorded=tree.get("as_recorded", "").strip(),
        doubts=tree.get("doubts", "").strip(),
        grid=grid,
        grids=grids,
    )
    check_names(where, study)
    return study


def check_names(where: str, study: Study) -> None:
    """ValueError where a name of a statement is given twice, or a name stands for nothing."""
    names = Counter(statement.name for _, statement in study.statements)
    if twice := [name for name, times in names.items() if times > 1]:
        raise ValueError(f"{where}: two statements are called {twice[0]}: pages refer to them by name; rename one")
    for name in study.decides:
        one_of(name, tuple(names), f"{where}: decides")
    if not study.decides and not any(part.effects for part in study.parts):
        raise ValueError(f"{where}: nothing answers it: give decides, names of statements, or effects in a part")
    arms = {arm for part in study.parts for arm in part.arms}
    for arm in study.grids:
        one_of(arm, tuple(sorted(arms)), f"{where}: tune_arms")


def parse_tuning(where: str, tree: Mapping[str, Any]) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """The grid of every arm, and the grids of those that have their own. Each arm has as many trials as any other."""
    given = tree.get("tune", GRID)
    if given is False:
        return {}, {}
    if not isinstance(given, Mapping):
        raise ValueError(f"{where}: tune={given} must be false, or values by knob, as in {{optim.lr: [1e-3, 1e-2]}}")

    def values(grid: Mapping[str, Any]) -> dict[str, tuple[float, ...]]:
        return {knob: tuple(map(float, some)) for knob, some in grid.items()}

    grid, grids = values(given), {str(arm): values(own) for arm, own in tree.get("tune_arms", {}).items()}
    trials = math.prod(map(len, grid.values()))
    for arm, own in grids.items():
        if (count := math.prod(map(len, own.values()))) != trials:
            raise ValueError(
                f"{where}: tune_arms.{arm} has {count} combinations and tune has {trials}: every arm gets as many "
                "trials as any other"
            )
    return grid, grids


def parse_change(where: str, body: Mapping[str, Any]) -> Change:
    known(body, where, "date what why seen")
    for key in ("date", "what", "why", "seen"):
        if key not in body:
            raise ValueError(f"{where}: {key} is missing: a change has a date, what was changed, why, and seen: true "
                             "or false, for results that were or were not known then")  # fmt: skip
    return Change(parse_date(where, body["date"]), body["what"].strip(), body["why"].strip(), bool(body["seen"]))


def parse_date(where: str, given: Any) -> str:
    try:
        return datetime.date.fromisoformat(str(given)).isoformat()
    except ValueError as error:
        raise ValueError(f"{where}: date={given} must be a day, as in 2026-11-26") from error


def parse_scale(where: str, body: Mapping[str, Any]) -> Scale:
    known(body, where, "seeds overrides rungs")
    return Scale(parse_seeds(where, body.get("seeds")), tuple(body.get("overrides", ())), int(body.get("rungs", 0)))


def parse_seeds(where: str, given: Any) -> tuple[int, ...]:
    if isinstance(given, list) and all(isinstance(seed, int) for seed in given):
        seeds = tuple(given)
    elif ends := re.fullmatch(r"(\d+)-(\d+)", str(given)):
        seeds = tuple(range(int(ends[1]), int(ends[2]) + 1))
    else:
        raise ValueError(f"{where}: seeds={given} must be a range, as in 0-9, or a list, as in [0, 1, 2]")
    if late := [seed for seed in seeds if seed >= PILOTS]:
        raise ValueError(f"{where}: seed {late[0]} is kept for pilots and tuning, as all from {PILOTS} on: use another")
    return seeds


def parse_part(where: str, name: str, body: Mapping[str, Any], study: Mapping[str, Any]) -> Part:
    known(
        body,
        where,
        "overrides factors arms metric chance scales only seeds statements effects ladder plateau solved seconds",
    )
    own = "factors" in body or "arms" in body
    arms = parse_arms(where, body if own else study)
    metric = body.get("metric", study.get("metric", "test/acc"))
    for scale in (*body.get("scales", {}), *body.get("seeds", {}), *body.get("only", ())):
        one_of(scale, tuple(study["scales"]), f"{where}: scale")
    ladder = parse_ladder(where, body.get("ladder"))
    solved = None if body.get("solved") is None else float(body["solved"])
    given = body.get("statements", {})
    if not isinstance(given, Mapping):
        raise ValueError(f"{where}: statements must have names, as in none_guesses: {{says: ..., that: ...}}")
    statements = tuple(
        parse_statement(f"{where}: statements.{key}", str(key), statement, arms, metric, ladder, solved)
        for key, statement in given.items()
    )
    return Part(
        name=name,
        arms=arms,
        overrides=tuple(body.get("overrides", ())),
        scales={scale: tuple(overrides) for scale, overrides in body.get("scales", {}).items()},
        only=tuple(body.get("only", study["scales"])),
        metric=metric,
        chance=None if body.get("chance") is None else float(body["chance"]),
        statements=statements,
        effects=parse_effects(f"{where}: effects", body.get("effects", {}), arms),
        ladder=ladder,
        plateau=float(body.get("plateau", PLATEAU)),
        solved=solved,
        seeds={scale: parse_seeds(f"{where}: seeds.{scale}", given) for scale, given in body.get("seeds", {}).items()},
        seconds=None if body.get("seconds") is None else float(body["seconds"]),
    )


def parse_arms(where: str, body: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """Name every combination of the factors by its levels, as in none/4; then add the arms that have names."""
    factors = body.get("factors", {})
    arms = {}
    for levels in product(*factors.values()) if factors else ():
        name = "/".join(re.sub(r"[\[\] ]", "", str(level)).replace(",", "+") for level in levels)
        arms[name] = tuple(f"{factor}={spell(level)}" for factor, level in zip(factors, levels, strict=True))
    arms |= {str(name): tuple(overrides) for name, overrides in body.get("arms", {}).items()}
    if not arms:
        raise ValueError(f"{where}: no arms: give factors, as in {{pos: [none, learned]}}, or arms by name")
    return arms


def spell(level: Any) -> str:
    """A level as on the command line."""
    return str(level).replace(" ", "").replace("'", "")


def parse_ladder(where: str, given: Any) -> Ladder | None:
    if given is None:
        return None
    if not isinstance(given, Mapping) or len(given) != 1 or len(next(iter(given.values()))) < 2:
        raise ValueError(f"{where}: ladder must name one knob and at least two values, as in {{epochs: [15, 30, 60]}}")
    [(knob, rungs)] = given.items()
    return Ladder(str(knob), tuple(map(spell, rungs)))


def parse_effects(where: str, given: Mapping[str, Any], arms: Mapping[str, Any]) -> tuple[Effect, ...]:
    effects = []
    for factor, sums in given.items():
        for text in sums:
            terms = parse_terms(str(text))
            if sum(sign for sign, _ in terms) != 0:
                raise ValueError(f"{where}.{factor}: {text} is no difference: give one, as in learned - none")
            for _, arm in terms:
                one_of(arm, tuple(arms), f"{where}.{factor}: arm")
            effects.append(Effect(str(factor), terms))
    return tuple(effects)


def parse_statement(
    where: str,
    name: str,
    body: Mapping[str, Any],
    arms: Mapping[str, Any],
    metric: str,
    ladder: Ladder | None,
    solved: float | None,
) -> Statement:
    known(body, where, "says that order above below equals within role predicted metric at among withdrawn")
    if "says" not in body:
        raise ValueError(f"{where}: says is missing: a statement is a sentence")
    predicted = {True: "yes", False: "no"}.get(body.get("predicted", ""), body.get("predicted", ""))
    one_of(predicted, ("yes", "no", ""), f"{where}: predicted")  # YAML reads yes and no as true and false
    role = body.get("role", "claim")
    one_of(role, tuple(ROLES), f"{where}: role")
    if ("that" in body) == ("order" in body):
        raise ValueError(f"{where}: give either that: a - b, or order: [least, ..., most]")
    sums: tuple[Terms, ...]
    if "that" in body:
        sums = (parse_terms(str(body["that"])),)
    else:
        steps = [str(arm) for arm in body["order"]]
        sums = tuple(((1, more), (-1, less)) for less, more in pairwise(steps))
        body = {"above": 0.0, **body}
    for _, arm in (term for terms in sums for term in terms):
        one_of(arm, tuple(arms), f"{where}: arm")
    low, high = region(where, body)
    own = body.get("metric", metric)
    among = body.get("among")
    if among is not None:
        one_of(among, (SOLVED,), f"{where}: among")
    check_outcome(where, own, sums, (low, high), solved, among_solved=among is not None)
    if solved is not None and own == metric and among is None and any(len(terms) > 1 for terms in sums):
        raise ValueError(
            f"{where}: a seed of this part may fail, so a mean says little: give metric: {SOLVED}, or among: {SOLVED}"
        )
    at = str(body.get("at", ""))
    if at:
        one_of(at, ladder.rungs if ladder else (), f"{where}: at")
    return Statement(
        name=name,
        says=body["says"].strip(),
        sums=sums,
        low=low,
        high=high,
        role=role,
        predicted=predicted,
        metric=own,
        at=at,
        among_solved=among is not None,
        withdrawn=str(body.get("withdrawn", "")).strip(),
    )


def check_outcome(
    where: str,
    metric: str,
    sums: tuple[Terms, ...],
    bounds: tuple[float, float],
    solved: float | None,
    *,
    among_solved: bool,
) -> None:
    """ValueError where the outcome that a statement is about does not fit its part."""
    if (metric in (SOLVED, STEPS) or among_solved) and solved is None:
        raise ValueError(f"{where}: the part does not say from which value on a seed has solved it: solved: 0.9")
    if metric == SOLVED and any(len(terms) > 2 or [sign for sign, _ in terms] not in ([1], [1, -1]) for terms in sums):
        raise ValueError(f"{where}: metric {SOLVED} takes one arm, or a - b")
    one_sided = bounds in ((0.0, math.inf), (-math.inf, 0.0))
    if metric == STEPS and (any(sorted(s for s, _ in terms) != [-1, 1] for terms in sums) or not one_sided):
        raise ValueError(f"{where}: metric {STEPS} takes a - b, above or below 0: censored times have no other amount")


def region(where: str, body: Mapping[str, Any]) -> tuple[float, float]:
    given = {key for key in ("above", "below", "within", "equals") if key in body}
    if given == {"above"}:
        return float(body["above"]), math.inf
    if given == {"below"}:
        return -math.inf, float(body["below"])
    if given in ({"within"}, {"within", "equals"}) and body["within"] > 0:
        at = float(body.get("equals", 0.0))
        return at - float(body["within"]), at + float(body["within"])
    raise ValueError(f"{where}: give above: margin, or below: margin, or within: margin with or without equals: value")


def parse_terms(text: str) -> Terms:
    """Read `a - b + c`. There are spaces around the signs, since names may contain the signs."""
    parts = re.split(r" ([+-]) ", text)
    signs = [1, *(1 if sign == "+" else -1 for sign in parts[1::2])]
    return tuple(zip(signs, (part.strip() for part in parts[::2]), strict=True))


def known(tree: Mapping[str, Any], where: str, keys: str) -> None:
    for key in tree:
        one_of(key, tuple(keys.split()), f"{where}: key")


def one_of(value: Any, allowed: Sequence[str], where: str) -> None:
    if value not in allowed:
        raise ValueError(f"{where} {value!r} is none of {', '.join(map(str, allowed)) or 'nothing: there is none'}")
