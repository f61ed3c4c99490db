"""A study as data, written before it is run: the question, the arms compared, and the statements that are decided.

Every statement is of one form: a sum of arms lies in a region. So one rule decides all of them (verdict.py).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

ROLES = {
    "claim": "an answer rests on it",
    "control": "must hold, or nothing is concluded",
    "aside": "reported beside the claims, and not corrected for their number",
}
GRID = {"optim.lr": (1e-3, 3e-3, 1e-2), "optim.weight_decay": (0.0, 0.05)}  # of tuning, for every arm
SOLVED = "solved"  # the metric of found-or-not: share of seeds that reach the threshold of the part
STEPS = "steps_to_solve"  # optimizer steps up to the first validation at which the threshold is reached
PILOTS = 900  # seeds from here on serve pilots and tuning, and no run that counts
TUNING_SEED = 999
PLATEAU = 0.005  # two budgets whose results differ by less stand on a plateau, in the unit of the metric
Terms = tuple[tuple[int, str], ...]  # (+1, "learned"), (-1, "none")


@dataclass(frozen=True)
class Statement:
    """The value of every sum in `sums`, in the unit of the metric, is above `low` and below `high`.

    at: the budget of the ladder at which the statement is decided; empty: the last one, which must stand on a plateau.
    among_solved: only seeds that solve the task count. withdrawn: the reason why the statement is not decided.
    """

    name: str
    says: str
    sums: tuple[Terms, ...]  # of arms; several for an order, each of which must hold
    low: float
    high: float
    role: str
    predicted: str  # yes, no, or empty where nothing was predicted
    metric: str
    at: str = ""
    among_solved: bool = False
    withdrawn: str = ""

    @property
    def arms(self) -> list[str]:
        return sorted({arm for terms in self.sums for _, arm in terms})


@dataclass(frozen=True)
class Effect:
    """One level of a factor against another: an amount with an interval, of which nothing is claimed."""

    factor: str
    terms: Terms


@dataclass(frozen=True)
class Ladder:
    """Budgets at which every arm is trained, each with its own schedule: the values of one knob."""

    knob: str
    rungs: tuple[str, ...]


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
    statements: tuple[Statement, ...]
    effects: tuple[Effect, ...] = ()
    ladder: Ladder | None = None
    plateau: float = PLATEAU
    solved: float | None = None  # value of the metric from which on a seed has solved the task; none: no seed can fail
    seeds: Mapping[str, tuple[int, ...]] = field(
        default_factory=dict
    )  # at a scale, where they are not those of the scale
    seconds: float | None = None  # of training on an idle machine, where all arms have the same time


@dataclass(frozen=True)
class Scale:
    """rungs: number of budgets of each ladder that are run, from the first; 0: all.

    like: another scale, of which this one has the overrides, the parts, and for every arm the setting that was chosen
    there; so it differs in its seeds alone.
    """

    seeds: tuple[int, ...]
    overrides: tuple[str, ...]
    rungs: int = 0
    like: str = ""


@dataclass(frozen=True)
class Change:
    """A change of a study after it was first written. seen: results were known when it was made."""

    date: str
    what: str
    why: str
    seen: bool


@dataclass(frozen=True)
class Published:
    """Figures from elsewhere, as printed there, by the name of our arm or else by the name that they have there."""

    source: str
    figures: Mapping[str, Any]
    note: str


@dataclass(frozen=True)
class Study:
    """question: for people. decides: names of the statements that answer it, in the order of the page's head; none
    where its effects do.

    of_costs: its arms are compared in speed and memory, measured by scripts/costs.py in rounds, and none is trained.

    as_recorded: where the runs of runs.csv differ from what study.yaml would run today, in words; such runs are taken
    by part, arm and seed, and not by their identity. Empty: today's runs only.

    doubts: what could fool a reader of the results, in words.
    grid: values of knobs of which every arm tries all combinations before it is trained with all seeds; empty: untuned.
    grids: of arms that have a grid of their own, with as many combinations.
    """

    name: str
    question: str
    decides: tuple[str, ...]
    scales: Mapping[str, Scale]
    parts: tuple[Part, ...]
    overrides: tuple[str, ...]
    published: tuple[Published, ...]
    changes: tuple[Change, ...] = ()
    as_recorded: str = ""
    doubts: str = ""
    grid: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    grids: Mapping[str, Mapping[str, tuple[float, ...]]] = field(default_factory=dict)
    of_costs: bool = False

    @property
    def statements(self) -> list[tuple[Part, Statement]]:
        return [(part, statement) for part in self.parts for statement in part.statements]
