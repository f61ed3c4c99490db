"""The design of a study, written before it is run: the question, the arms, and the statements to decide.

All statements have one form: a signed sum of arms lies in a region. So one rule decides all of them (verdict.py).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

ROLES = {
    "claim": "an answer depends on it",
    "control": "must hold, otherwise no claim is answered",
    "aside": "reported in addition, not corrected for the number of claims",
}
GRID = {"optim.lr": (1e-3, 3e-3, 1e-2), "optim.weight_decay": (0.0, 0.05)}  # default tuning grid of every arm
SOLVED = "solved"  # metric: share of seeds that reach the threshold of the part
STEPS = "steps_to_solve"  # metric: optimizer steps up to the first validation that reaches the threshold
PILOTS = 900  # seeds from 900 on are for pilots and tuning only
TUNING_SEED = 999
PLATEAU = 0.005  # in the unit of the metric: results of two budgets that differ by less form a plateau
Terms = tuple[tuple[int, str], ...]  # (+1, "learned"), (-1, "none")


@dataclass(frozen=True)
class Statement:
    """The claim that every sum in `sums` is above `low` and below `high`, in the unit of the metric.

    at: budget of the ladder at which the statement is decided; empty: the last budget, which must be on a plateau.
    among_solved: only seeds that solve the task count. withdrawn: reason why the statement is not decided, or empty.
    """

    name: str
    says: str
    sums: tuple[Terms, ...]  # signed sums of arms; an order has several, and each must hold
    low: float
    high: float
    role: str
    predicted: str  # yes, no, or empty without a prediction
    metric: str
    at: str = ""
    among_solved: bool = False
    withdrawn: str = ""

    @property
    def arms(self) -> list[str]:
        return sorted({arm for terms in self.sums for _, arm in terms})


@dataclass(frozen=True)
class Effect:
    """One level of a factor compared with another: an amount with an interval, without a claim."""

    factor: str
    terms: Terms


@dataclass(frozen=True)
class Ladder:
    """Training budgets for every arm, each with its own schedule: values of one knob."""

    knob: str
    rungs: tuple[str, ...]


@dataclass(frozen=True)
class Part:
    """One data set, or one setting, in which arms are compared. arms: the overrides of each arm, by name."""

    name: str
    arms: Mapping[str, tuple[str, ...]]
    overrides: tuple[str, ...]
    scales: Mapping[str, tuple[str, ...]]  # overrides of this part at a scale
    only: tuple[str, ...]  # scales at which the part is run
    metric: str
    chance: float | None  # value of the metric for guessing; diverged runs count as this value
    statements: tuple[Statement, ...]
    effects: tuple[Effect, ...] = ()
    ladder: Ladder | None = None
    plateau: float = PLATEAU
    solved: float | None = None  # threshold of the metric for seeds that solve the task; None: no seed can fail
    seeds: Mapping[str, tuple[int, ...]] = field(default_factory=dict)  # by scale, instead of the seeds of the scale
    seconds: float | None = None  # training time on an idle machine, if all arms get equal time


@dataclass(frozen=True)
class Scale:
    """A size of a study: seeds and overrides for all parts.

    rungs: number of budgets of each ladder to run, from the first; 0: all. like: another scale with the same overrides,
    parts, and tuned settings of all arms; only the seeds differ.
    """

    seeds: tuple[int, ...]
    overrides: tuple[str, ...]
    rungs: int = 0
    like: str = ""


@dataclass(frozen=True)
class Change:
    """A change of a study after it was first written. seen: results were known at the time of the change."""

    date: str
    what: str
    why: str
    seen: bool


@dataclass(frozen=True)
class Published:
    """Published figures of another source, as printed, by the name of our arm, or the name in the source."""

    source: str
    figures: Mapping[str, Any]
    note: str


@dataclass(frozen=True)
class Study:
    """The content of a study.yaml.

    question: one sentence for people. decides: names of the statements that answer the question, in the order of the
    head of the page; empty if effects answer it. of_costs: arms are compared in speed and memory, measured by
    scripts/costs.py in rounds, and no arm is trained.

    as_recorded: text that says how the runs of runs.csv differ from the runs that study.yaml would make today; these
    runs are then matched by part, arm and seed instead of their identity. Empty: only runs with today's identity.

    doubts: text on possible misinterpretations of the results. grid: values of knobs; every arm tries all combinations
    before it is trained with all seeds; empty: no tuning. grids: grids of single arms, with as many combinations.
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
