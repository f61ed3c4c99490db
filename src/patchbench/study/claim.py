"""A study as data, written before it is run: the claim, the arms compared, and the rule that decides.

Every statement is of one form: a sum of arms lies in a region. So one rule decides all of them (verdict.py).
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise, product
from typing import Any

VERDICTS = ("supported", "refuted", "undetermined")
ROLES = {
    "claim": "the verdict rests on it",
    "control": "must hold, or nothing is concluded",
    "aside": "reported beside the verdict",
}
GRID = {"optim.lr": (1e-3, 3e-3, 1e-2), "optim.weight_decay": (0.0, 0.05)}  # of tuning, for every arm
Terms = tuple[tuple[int, str], ...]  # (+1, "learned"), (-1, "none")


@dataclass(frozen=True)
class Comparison:
    """The value of every sum in `sums`, in the unit of the metric, is above `low` and below `high`."""

    says: str
    sums: tuple[Terms, ...]  # of arms; several for an order, each of which must hold
    low: float
    high: float
    role: str
    expect: str
    metric: str

    @property
    def arms(self) -> list[str]:
        return sorted({arm for terms in self.sums for _, arm in terms})


@dataclass(frozen=True)
class Part:
    """One data set, or one setting, in which arms are compared. arms: the overrides of each, by name."""

    name: str
    arms: Mapping[str, tuple[str, ...]]
    overrides: tuple[str, ...]
    scales: Mapping[str, tuple[str, ...]]  # overrides of this part at a scale
    only: tuple[str, ...]  # scales at which it is run
    metric: str
    chance: float | None  # value of the metric that guessing gives; what a diverged run counts as
    comparisons: tuple[Comparison, ...]


@dataclass(frozen=True)
class Scale:
    seeds: tuple[int, ...]
    overrides: tuple[str, ...]


@dataclass(frozen=True)
class Published:
    """Figures from elsewhere, as printed there, by the name of our arm or else by the name that they have there."""

    source: str
    figures: Mapping[str, Any]
    note: str


@dataclass(frozen=True)
class Study:
    name: str
    question: str
    quote: str
    source: str
    expect: str
    means: Mapping[str, str]  # what each verdict says, as a sentence for people
    scales: Mapping[str, Scale]
    parts: tuple[Part, ...]
    overrides: tuple[str, ...]
    published: tuple[Published, ...]
    grid: Mapping[str, tuple[float, ...]] = field(default_factory=dict)  # of tuning, by knob

    @property
    def comparisons(self) -> list[tuple[Part, Comparison]]:
        return [(part, comparison) for part in self.parts for comparison in part.comparisons]


def parse(name: str, tree: Mapping[str, Any]) -> Study:
    """Read the content of a study.yaml. ValueError names the place and the cure."""
    where = f"study {name}"
    known(tree, where, "question quote source expect means metric factors arms overrides scales parts published tune")
    for key in ("question", "quote", "source", "expect", "means", "scales", "parts"):
        if not tree.get(key):
            raise ValueError(f"{where}: {key} is missing: every study states its question, claim, scales and parts")
    one_of(tree["expect"], VERDICTS, f"{where}: expect")
    known(tree["means"], f"{where}: means", "supported refuted undetermined")
    if missing := {"supported", "refuted"} - set(tree["means"]):
        raise ValueError(f"{where}: means.{min(missing)} is missing: the sentence to read if that is the verdict")
    scales = {scale: parse_scale(f"{where}: scales.{scale}", body) for scale, body in tree["scales"].items()}
    study = Study(
        name=name,
        question=tree["question"].strip(),
        quote=tree["quote"].strip(),
        source=tree["source"].strip(),
        expect=tree["expect"],
        means=tree["means"],
        scales=scales,
        parts=tuple(parse_part(f"{where}: parts.{part}", part, body, tree) for part, body in tree["parts"].items()),
        overrides=tuple(tree.get("overrides", ())),
        published=tuple(
            Published(row["source"], row["figures"], row.get("note", "")) for row in tree.get("published", ())
        ),
        grid={knob: tuple(map(float, values)) for knob, values in tree.get("tune", GRID).items()},
    )
    if not any(comparison.role == "claim" for _, comparison in study.comparisons):
        raise ValueError(f"{where}: no comparison has role: claim, so nothing decides the verdict; give one")
    return study


def parse_scale(where: str, body: Mapping[str, Any]) -> Scale:
    known(body, where, "seeds overrides")
    return Scale(parse_seeds(where, body.get("seeds")), tuple(body.get("overrides", ())))


def parse_seeds(where: str, given: Any) -> tuple[int, ...]:
    if isinstance(given, list) and all(isinstance(seed, int) for seed in given):
        return tuple(given)
    if ends := re.fullmatch(r"(\d+)-(\d+)", str(given)):
        return tuple(range(int(ends[1]), int(ends[2]) + 1))
    raise ValueError(f"{where}: seeds={given} must be a range, as in 0-9, or a list, as in [0, 1, 2]")


def parse_part(where: str, name: str, body: Mapping[str, Any], study: Mapping[str, Any]) -> Part:
    known(body, where, "overrides factors arms metric chance scales only comparisons")
    own = "factors" in body or "arms" in body
    arms = parse_arms(where, body if own else study)
    metric = body.get("metric", study.get("metric", "test/acc"))
    for scale in (*body.get("scales", {}), *body.get("only", ())):
        one_of(scale, tuple(study["scales"]), f"{where}: scale")
    return Part(
        name=name,
        arms=arms,
        overrides=tuple(body.get("overrides", ())),
        scales={scale: tuple(overrides) for scale, overrides in body.get("scales", {}).items()},
        only=tuple(body.get("only", study["scales"])),
        metric=metric,
        chance=None if body.get("chance") is None else float(body["chance"]),
        comparisons=tuple(
            parse_comparison(f"{where}: comparisons[{i}]", comparison, arms, metric)
            for i, comparison in enumerate(body.get("comparisons", ()))
        ),
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


def parse_comparison(where: str, body: Mapping[str, Any], arms: Mapping[str, Any], metric: str) -> Comparison:
    known(body, where, "says that order above below equals within role expect metric")
    for key in ("says", "expect"):
        if key not in body:
            raise ValueError(
                f"{where}: {key} is missing: each states its prediction in words, and the verdict expected"
            )
    one_of(body["expect"], VERDICTS, f"{where}: expect")
    one_of(body.get("role", "claim"), tuple(ROLES), f"{where}: role")
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
    role, own = body.get("role", "claim"), body.get("metric", metric)
    return Comparison(body["says"], sums, low, high, role, body["expect"], own)


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
        raise ValueError(f"{where} {value!r} is none of {', '.join(map(str, allowed))}")
