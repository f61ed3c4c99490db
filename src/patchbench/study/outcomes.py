"""Outcomes of the runs of a study, as the statements ask for them: values by seed, seeds that solve, steps to solve."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from jaxtyping import Bool

from patchbench.runs.metrics import LESS, metric
from patchbench.statistics.amounts import Weaker, over_images
from patchbench.statistics.amounts import amount as of_means
from patchbench.statistics.inference import Amount, exact_accuracy
from patchbench.statistics.rates import Rate, RateDifference
from patchbench.statistics.times import Sooner
from patchbench.study.design import SOLVED, STEPS, Part, Terms
from patchbench.study.reading import parse_terms

ACCURACY = "test/acc"
Hits = Bool[np.ndarray, " images"]


@dataclass(frozen=True)
class Evidence:
    """Results of the runs of a study.

    cells: a row for each planned run, with part, arm, rung, seed, identity, status, and the figures of its result.
    curves: part, arm, rung, seed, step, score, the accuracy of each validation. hits: by identity, which test images
    were answered rightly, of runs whose test images are the same for every seed.
    """

    cells: pd.DataFrame
    curves: pd.DataFrame = field(default_factory=pd.DataFrame)
    hits: Mapping[str, Hits] = field(default_factory=dict)

    def of(self, part: Part, rung: str) -> "Evidence":
        """The results of a part at a budget."""

        def here(table: pd.DataFrame) -> pd.DataFrame:
            return table[(table["part"] == part.name) & (table["rung"] == rung)] if len(table) else table

        return Evidence(here(self.cells), here(self.curves), self.hits)


def score(part: Part, name: str, cells: pd.DataFrame) -> pd.Series:
    """The metric of each cell, nan where it has no finite number.

    A diverged run counts as guessing, which it can do.
    """
    total = pd.Series(0.0, index=cells.index)
    for sign, term in parse_terms(name):
        logarithm = re.fullmatch(r"log2\((.+)\)", term)
        column = cells.get(logarithm[1] if logarithm else term, pd.Series(math.nan, index=cells.index))
        values = pd.to_numeric(column, errors="coerce").where(cells["status"] == "done")
        total += sign * (np.log2(values.where(values > 0)) if logarithm else values)
    total = total.where(np.isfinite(total))
    guessing = part.chance if name == part.metric and part.chance is not None else math.nan
    return total.mask(cells["status"] == "diverged", guessing)


def solved(part: Part, cells: pd.DataFrame) -> pd.Series:
    """1 for each cell that reaches the threshold of its part, 0 for one that does not, nan without a result."""
    assert part.solved is not None
    values = score(part, part.metric, cells)
    reached = values <= part.solved if metric(part.metric).better == LESS else values >= part.solved
    return reached.astype(float).where(values.notna())


def steps_to_solve(part: Part, evidence: Evidence) -> pd.Series:
    """Steps up to the first validation that reaches the threshold, of each cell; inf if none does, nan if unknown.

    A diverged run never gets there, where it is known that guessing does not.
    """
    curves = evidence.curves
    if not len(curves):
        return pd.Series(math.nan, index=evidence.cells.index)
    reached = curves[curves["score"] >= part.solved].groupby(["arm", "seed"])["step"].min()
    known = curves.groupby(["arm", "seed"])["step"].min()
    keys = list(zip(evidence.cells["arm"], evidence.cells["seed"], strict=True))
    steps = [reached.get(key, math.inf) if key in known.index else math.nan for key in keys]
    diverged = (evidence.cells["status"] == "diverged") & (solved(part, evidence.cells) == 0)
    return pd.Series(steps, index=evidence.cells.index, dtype=float).mask(diverged, math.inf)


def outcome(part: Part, name: str, evidence: Evidence, *, among_solved: bool = False) -> pd.Series:
    """The outcome of each cell of a part at a budget. among_solved: nan for cells that do not solve the task."""
    if name == SOLVED:
        return solved(part, evidence.cells)
    if name == STEPS:
        return steps_to_solve(part, evidence)
    values = score(part, name, evidence.cells)
    return values.where(solved(part, evidence.cells) == 1) if among_solved else values


def amount(part: Part, name: str, terms: Terms, evidence: Evidence, *, among_solved: bool = False) -> Amount | None:
    """The sum of arms, with the test that fits the outcome; None where an arm has no value.

    evidence: of this part, at one budget.
    """
    values = outcome(part, name, evidence, among_solved=among_solved)
    cells = evidence.cells
    there = {arm: values[cells["arm"] == arm].dropna() for _, arm in terms}
    if any(v.empty for v in there.values()):
        return None
    signs = [sign for sign, _ in terms]
    groups = [np.sort(there[arm].to_numpy(dtype=float)) for _, arm in terms]  # so that the order of seeds is no matter
    if name == SOLVED:
        rates = [Rate(int(group.sum()), len(group)) for group in groups]
        return rates[0] if len(rates) == 1 else RateDifference(rates[0], rates[1])
    if name == STEPS:
        return Sooner(groups[0], groups[1])
    if name == ACCURACY:
        images = pd.to_numeric(cells.get("test/images", pd.Series(dtype=float)), errors="coerce").dropna().unique()
        if len(images) == 1:
            groups = [exact_accuracy(group, int(images[0])) for group in groups]
        hits = [table for _, arm in terms if (table := hits_of(evidence, there[arm].index)) is not None]
        same = len({table.shape[1] for table in hits}) == 1 and hits[0].shape[1] > 1  # all arms saw the same images
        if same and len(hits) == len(terms) and min(map(len, hits)) > 1:  # few seeds stay few, however many images
            return Weaker(of_means(signs, groups), over_images(signs, hits))
    return of_means(signs, groups)


def hits_of(evidence: Evidence, rows: pd.Index) -> Bool[np.ndarray, "seeds images"] | None:
    """Answers of the runs of an arm to each test image; None where they are not known of all its runs."""
    found = [evidence.hits.get(identity) for identity in evidence.cells.loc[rows, "identity"]]
    whole = all(hits is not None for hits in found) and len({len(hits) for hits in found if hits is not None}) == 1
    return np.stack(found) if whole else None  # type: ignore[arg-type]


def population(part: Part, cells: pd.DataFrame, hits: Mapping[str, Hits]) -> str:
    """Say for which population the intervals of a part speak."""
    done = cells[(cells["part"] == part.name) & (cells["status"] == "done")]
    if len(done) and (done.get("test/own_images", pd.Series(0, index=done.index)) == 1).all():
        return "all seeds and all images that the set can draw: each seed has test images of its own"
    images = done.get("test/images", pd.Series(dtype=float)).dropna().unique()
    these = f"these {images[0]:,.0f} test images" if len(images) == 1 else "these test images"
    if len(done) and all(identity in hits for identity in done["identity"]):
        return f"all seeds, and all images of which {these} are a sample"
    return f"all seeds, on {these}"
