"""Parser of study.yaml: from its content to the design of a study."""

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
    """Parse the content of a study.yaml. ValueError names the place in the file and the cure."""
    path = f"study {name}"
    keys = "question decides doubts metric factors arms overrides scales parts published tune tune_arms"
    check_keys(tree, path, f"{keys} changes as_recorded evidence")
    one_of(tree.get("evidence", "runs"), ("runs", "costs"), f"{path}: evidence")
    for key in ("question", "scales", "parts"):
        if not tree.get(key):
            raise ValueError(f"{path}: {key} is missing: a study has a question, scales and parts")
    grid, grids = parse_tuning(path, tree)
    scales = parse_scales(path, mapping(tree["scales"], f"{path}: scales"))
    study = Study(
        name=name,
        question=str(tree["question"]).strip(),
        decides=strings(tree, path, "decides"),
        scales=scales,
        parts=tuple(
            parse_part(f"{path}: parts.{part}", part, body, tree, scales)
            for part, body in mapping(tree["parts"], f"{path}: parts").items()
        ),
        overrides=strings(tree, path, "overrides"),
        published=tuple(
            parse_published(f"{path}: published[{i}]", row)
            for i, row in enumerate(sequence(tree.get("published", ()), f"{path}: published"))
        ),
        changes=tuple(
            parse_change(f"{path}: changes[{i}]", change)
            for i, change in enumerate(sequence(tree.get("changes", ()), f"{path}: changes"))
        ),
        as_recorded=str(tree.get("as_recorded", "")).strip(),
        doubts=str(tree.get("doubts", "")).strip(),
        grid=grid,
        grids=grids,
        of_costs=tree.get("evidence") == "costs",
    )
    check_names(path, study)
    return study


def check_names(path: str, study: Study) -> None:
    """Raise ValueError if two statements have one name, or a name refers to nothing."""
    names = Counter(statement.name for _, statement in study.statements)
    if duplicates := [name for name, times in names.items() if times > 1]:
        raise ValueError(f"{path}: two statements are called {duplicates[0]}: pages refer to them by name; rename one")
    for name in study.decides:
        one_of(name, tuple(names), f"{path}: decides")
    roles = {statement.name: statement.role for _, statement in study.statements}
    if "claim" in roles.values() and (others := [name for name in study.decides if roles[name] == "aside"]):
        raise ValueError(f"{path}: decides: {others[0]} is an aside, which is not corrected for the number of claims")
    if not study.decides and not any(part.effects for part in study.parts):
        raise ValueError(f"{path}: nothing answers the question: give decides: [statements], or effects in a part")
    arms = {arm for part in study.parts for arm in part.arms}
    for arm in study.grids:
        one_of(arm, tuple(sorted(arms)), f"{path}: tune_arms")


def parse_tuning(path: str, tree: Mapping[str, Any]) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Return the tuning grid of all arms, and the grids of single arms. Each arm must have equally many trials."""
    given = tree.get("tune", GRID)
    if given is False:
        return {}, {}
    if not isinstance(given, Mapping):
        raise ValueError(f"{path}: tune={given} must be false, or values by knob, as in {{optim.lr: [1e-3, 1e-2]}}")

    def values(grid: Any, place: str) -> dict[str, tuple[float, ...]]:
        return {
            knob: tuple(number(value, f"{place}.{knob}") for value in sequence(candidates, f"{place}.{knob}"))
            for knob, candidates in mapping(grid, place).items()
        }

    own_grids = mapping(tree.get("tune_arms", {}), f"{path}: tune_arms")
    grid = values(given, f"{path}: tune")
    grids = {str(arm): values(arm_grid, f"{path}: tune_arms.{arm}") for arm, arm_grid in own_grids.items()}
    trials = math.prod(map(len, grid.values()))
    for arm, arm_grid in grids.items():
        if (count := math.prod(map(len, arm_grid.values()))) != trials:
            raise ValueError(
                f"{path}: tune_arms.{arm} has {count} combinations and tune has {trials}: every arm gets as many "
                "trials as any other"
            )
    return grid, grids


def parse_change(path: str, body: Any) -> Change:
    check_keys(body, path, "date what why seen")
    for key in ("date", "what", "why", "seen"):
        if key not in body:
            raise ValueError(f"{path}: {key} is missing: a change has a date, what was changed, why, and seen: true "
                             "or false, for results that were or were not known then")  # fmt: skip
    if not isinstance(body["seen"], bool):
        raise ValueError(f"{path}: seen={body['seen']} must be true or false")
    return Change(parse_date(path, body["date"]), str(body["what"]).strip(), str(body["why"]).strip(), body["seen"])


def parse_date(path: str, given: Any) -> str:
    try:
        return datetime.date.fromisoformat(str(given)).isoformat()
    except ValueError as error:
        raise ValueError(f"{path}: date={given} must be a day, as in 2026-11-26") from error


def parse_published(path: str, body: Any) -> Published:
    check_keys(body, path, "source figures note")
    if "source" not in body:
        raise ValueError(f"{path}: source is missing: a figure from elsewhere is printed with its source")
    return Published(str(body["source"]), mapping(body.get("figures", {}), f"{path}: figures"), body.get("note", ""))


def parse_scales(path: str, given: Mapping[str, Any]) -> dict[str, Scale]:
    """Parse the scales of a study; a scale with `like` takes overrides and rungs from the other scale."""
    scales = {scale: parse_scale(f"{path}: scales.{scale}", body) for scale, body in given.items()}
    models = tuple(name for name, scale in scales.items() if not scale.like)
    for name, scale in scales.items():
        if scale.like:
            one_of(scale.like, models, f"{path}: scales.{name}: like")
            model = scales[scale.like]
            scales[name] = Scale(scale.seeds, (*model.overrides, *scale.overrides), model.rungs, scale.like)
    return scales


def parse_scale(path: str, body: Any) -> Scale:
    check_keys(body, path, "seeds overrides rungs like")
    rungs = body.get("rungs", 0)
    if not isinstance(rungs, int) or rungs < 0:
        raise ValueError(f"{path}: rungs={rungs} must be a number of budgets, or 0 for all of them")
    like = str(body.get("like", ""))
    return Scale(parse_seeds(path, body.get("seeds")), strings(body, path, "overrides"), rungs, like)


def parse_seeds(path: str, given: Any) -> tuple[int, ...]:
    seeds: tuple[int, ...] = ()
    if isinstance(given, list) and all(isinstance(seed, int) for seed in given):
        seeds = tuple(given)
    elif ends := re.fullmatch(r"(\d+)-(\d+)", str(given)):
        seeds = tuple(range(int(ends[1]), int(ends[2]) + 1))
    if not seeds or len(set(seeds)) < len(seeds):
        raise ValueError(f"{path}: seeds={given} must be a range, as in 0-9, or a list, as in [0, 1, 2], each once")
    if reserved := [seed for seed in seeds if seed >= PILOTS]:
        raise ValueError(f"{path}: seed {reserved[0]} is reserved: seeds from {PILOTS} on are for pilots and tuning")
    return seeds


def parse_part(path: str, name: str, body: Any, study: Mapping[str, Any], all_scales: Mapping[str, Scale]) -> Part:
    check_keys(
        body,
        path,
        "overrides factors arms metric chance scales only seeds statements effects ladder plateau solved seconds",
    )
    has_arms = "factors" in body or "arms" in body
    arms = parse_arms(path, body if has_arms else study)
    metric = str(body.get("metric", study.get("metric", "test/acc")))
    scales, seeds = (dict(mapping(body.get(key, {}), f"{path}: {key}")) for key in ("scales", "seeds"))
    only = strings(body, path, "only") or tuple(all_scales)
    for scale in (*scales, *seeds, *only):
        one_of(scale, tuple(all_scales), f"{path}: scale")
    for scale, like in ((name, given.like) for name, given in all_scales.items() if given.like):
        only += (scale,) if like in only and scale not in only else ()
        if like in scales:
            scales.setdefault(scale, scales[like])
    ladder = parse_ladder(path, body.get("ladder"))
    solved = optional(body, path, "solved")
    given = body.get("statements", {})
    if not isinstance(given, Mapping):
        raise ValueError(f"{path}: statements must have names, as in none_guesses: {{says: ..., that: ...}}")
    statements = tuple(
        parse_statement(f"{path}: statements.{key}", str(key), statement, arms, metric, ladder, solved)
        for key, statement in given.items()
    )
    return Part(
        name=name,
        arms=arms,
        overrides=strings(body, path, "overrides"),
        scales={scale: strings(scales, f"{path}: scales", scale) for scale in scales},
        only=only,
        metric=metric,
        chance=optional(body, path, "chance"),
        statements=statements,
        effects=parse_effects(f"{path}: effects", body.get("effects", {}), arms, solved),
        ladder=ladder,
        plateau=number(body.get("plateau", PLATEAU), f"{path}: plateau"),
        solved=solved,
        seeds={scale: parse_seeds(f"{path}: seeds.{scale}", seeds[scale]) for scale in seeds},
        seconds=optional(body, path, "seconds"),
    )


def parse_arms(path: str, body: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """Return the overrides of each arm: all combinations of the factors, named as in none/4, then the named arms."""
    factors = mapping(body.get("factors", {}), f"{path}: factors")
    factors = {factor: sequence(levels, f"{path}: factors.{factor}") for factor, levels in factors.items()}
    named = mapping(body.get("arms", {}), f"{path}: arms")
    arms = {}
    for levels in product(*factors.values()) if factors else ():
        name = "/".join(spell(level).strip("[]").replace(",", "+") for level in levels)
        arms[name] = tuple(f"{factor}={spell(level)}" for factor, level in zip(factors, levels, strict=True))
    arms |= {str(name): strings(named, f"{path}: arms", name) for name in named}
    if not arms:
        raise ValueError(f"{path}: no arms: give factors, as in {{pos: [none, learned]}}, or arms by name")
    return arms


def spell(level: Any) -> str:
    """Return a level as it is written on the command line."""
    return str(level).replace(" ", "").replace("'", "")


def parse_ladder(path: str, given: Any) -> Ladder | None:
    if given is None:
        return None
    knob, rungs = next(iter(mapping(given, f"{path}: ladder").items()), ("", ()))
    if len(given) != 1 or not isinstance(rungs, list) or len(rungs) < 2:
        raise ValueError(f"{path}: ladder must name one knob and at least two values, as in {{epochs: [15, 30, 60]}}")
    budgets = [number(rung, f"{path}: ladder.{knob}") for rung in rungs]
    if any(more <= less for less, more in pairwise(budgets)):
        raise ValueError(f"{path}: ladder.{knob}={spell(rungs)} must rise, as in [15, 30, 60]: the last budget decides")
    return Ladder(str(knob), tuple(map(spell, rungs)))


def parse_effects(path: str, given: Any, arms: Mapping[str, Any], solved: float | None) -> tuple[Effect, ...]:
    effects = []
    for factor, sums in mapping(given, path).items():
        for text in sequence(sums, f"{path}.{factor}"):
            terms = parse_terms(str(text))
            if solved is not None and len(terms) != 2:
                raise ValueError(f"{path}.{factor}: {text} must be a - b: if seeds may fail, two rates are compared")
            if sum(sign for sign, _ in terms) != 0:
                raise ValueError(f"{path}.{factor}: {text} is not a difference: give one, as in learned - none")
            for _, arm in terms:
                one_of(arm, tuple(arms), f"{path}.{factor}: arm")
            effects.append(Effect(str(factor), terms))
    return tuple(effects)


def parse_statement(
    path: str,
    name: str,
    body: Any,
    arms: Mapping[str, Any],
    metric: str,
    ladder: Ladder | None,
    solved: float | None,
) -> Statement:
    check_keys(body, path, "says that order above below equals within role predicted metric at among withdrawn")
    if "says" not in body:
        raise ValueError(f"{path}: says is missing: a statement is a sentence")
    predicted = {True: "yes", False: "no"}.get(body.get("predicted", ""), body.get("predicted", ""))
    one_of(predicted, ("yes", "no", ""), f"{path}: predicted")  # YAML reads yes and no as true and false
    role = body.get("role", "claim")
    one_of(role, tuple(ROLES), f"{path}: role")
    if ("that" in body) == ("order" in body):
        raise ValueError(f"{path}: give either that: a - b, or order: [least, ..., most]")
    sums: tuple[Terms, ...]
    if "that" in body:
        sums = (parse_terms(str(body["that"])),)
    else:
        steps = strings(body, path, "order")
        if len(steps) < 2:
            raise ValueError(f"{path}: order must name at least two arms, as in [least, ..., most]")
        sums = tuple(((1, more), (-1, less)) for less, more in pairwise(steps))
        body = {"above": 0.0, **body}
    for _, arm in (term for terms in sums for term in terms):
        one_of(arm, tuple(arms), f"{path}: arm")
    low, high = region(path, body)
    own_metric = str(body.get("metric", metric))
    among = body.get("among")
    if among is not None:
        one_of(among, (SOLVED,), f"{path}: among")
    check_outcome(path, own_metric, sums, (low, high), solved, among_solved=among is not None)
    if own_metric == STEPS and metric != "test/acc":
        raise ValueError(f"{path}: metric {STEPS} needs validation accuracies, but the metric of the part is {metric}")
    if solved is not None and own_metric == metric and among is None and any(len(terms) > 1 for terms in sums):
        raise ValueError(
            f"{path}: seeds of this part may fail, so a mean says little: give metric: {SOLVED}, or among: {SOLVED}"
        )
    withdrawn = body.get("withdrawn", "")
    if not isinstance(withdrawn, str):
        raise ValueError(f"{path}: withdrawn={withdrawn} must be the reason, as a sentence")
    at = str(body.get("at", ""))
    if at:
        one_of(at, ladder.rungs if ladder else (), f"{path}: at")
    return Statement(
        name=name,
        says=str(body["says"]).strip(),
        sums=sums,
        low=low,
        high=high,
        role=role,
        predicted=predicted,
        metric=own_metric,
        at=at,
        among_solved=among is not None,
        withdrawn=withdrawn.strip(),
    )


def check_outcome(
    path: str,
    metric: str,
    sums: tuple[Terms, ...],
    bounds: tuple[float, float],
    solved: float | None,
    *,
    among_solved: bool,
) -> None:
    """Raise ValueError if the metric of a statement does not fit its part or its sums."""
    if (metric in (SOLVED, STEPS) or among_solved) and solved is None:
        raise ValueError(f"{path}: the part needs a threshold for solving the task, as in solved: 0.9")
    if metric == SOLVED and any(len(terms) > 2 or [sign for sign, _ in terms] not in ([1], [1, -1]) for terms in sums):
        raise ValueError(f"{path}: metric {SOLVED} takes one arm, or a - b")
    one_sided = bounds in ((0.0, math.inf), (-math.inf, 0.0))
    if metric == STEPS and (any(sorted(s for s, _ in terms) != [-1, 1] for terms in sums) or not one_sided):
        raise ValueError(f"{path}: metric {STEPS} takes a - b, above or below 0: censored times have no other amount")


def region(path: str, body: Mapping[str, Any]) -> tuple[float, float]:
    given = {key: number(body[key], f"{path}: {key}") for key in ("above", "below", "within", "equals") if key in body}
    if given.keys() == {"above"}:
        return given["above"], math.inf
    if given.keys() == {"below"}:
        return -math.inf, given["below"]
    if given.keys() in ({"within"}, {"within", "equals"}) and given["within"] > 0:
        at = given.get("equals", 0.0)
        return at - given["within"], at + given["within"]
    raise ValueError(f"{path}: give above: margin, or below: margin, or within: margin with or without equals: value")


def parse_terms(text: str) -> Terms:
    """Parse `a - b + c`. Signs need spaces around them, because names may contain signs."""
    parts = re.split(r" ([+-]) ", text)
    signs = [1, *(1 if sign == "+" else -1 for sign in parts[1::2])]
    return tuple(zip(signs, (part.strip() for part in parts[::2]), strict=True))


def check_keys(tree: Any, path: str, keys: str) -> None:
    """Raise ValueError for a key that is not among `keys`, which are separated by spaces."""
    for key in mapping(tree, path):
        one_of(key, tuple(keys.split()), f"{path}: key")


def mapping(given: Any, path: str) -> Mapping[str, Any]:
    if not isinstance(given, Mapping):
        raise ValueError(f"{path}={given} must be a mapping, as in {{name: value}}")
    return given


def sequence(given: Any, path: str) -> Sequence[Any]:
    if not isinstance(given, list | tuple):
        raise ValueError(f"{path}={given} must be a list, as in [{given}]")
    return given


def strings(tree: Mapping[str, Any], path: str, key: str) -> tuple[str, ...]:
    """Return the list at `key`, of names or overrides, as strings; empty if there is none."""
    return tuple(map(str, sequence(tree.get(key, ()), f"{path}: {key}")))


def number(given: Any, path: str) -> float:
    try:
        return float(given)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}={given} must be a number") from error


def optional(tree: Mapping[str, Any], path: str, key: str) -> float | None:
    """Return the number at `key`, or None."""
    return None if tree.get(key) is None else number(tree[key], f"{path}: {key}")


def one_of(value: Any, allowed: Sequence[str], path: str) -> None:
    if value not in allowed:
        cure = f"use {', '.join(map(str, allowed))}" if allowed else "there is none"
        raise ValueError(f"{path} {value!r} does not exist: {cure}")
