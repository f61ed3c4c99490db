"""Outcomes of the runs of a study, as statements need them: metric by seed, solved seeds, steps to solve."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from jaxtyping import Bool

from patchbench.runs.metrics import LESS, metric
from patchbench.statistics.amounts import Conservative, over_images
from patchbench.statistics.amounts import amount as of_means
from patchbench.statistics.inference import Amount, exact_accuracy
from patchbench.statistics.rates import Rate, RateDifference
from patchbench.statistics.times import MedianDifference
from patchbench.study.design import SOLVED, STEPS, Part, Terms
from patchbench.study.reading import parse_terms

ACCURACY = "test/acc"
Hits = Bool[np.ndarray, " images"]


@dataclass(frozen=True)
class Evidence:
    """Results of the runs of a study.

    cells: one row for each planned run: part, arm, rung, seed, identity, status, and the metrics of its result. curves:
    one row for each validation: part, arm, rung, seed, step, score (the accuracy). hits: by identity of the run, mask
    of the correct test images, for runs with the same test images for every seed.
    """

    cells: pd.DataFrame
    curves: pd.DataFrame = field(default_factory=pd.DataFrame)
    hits: Mapping[str, Hits] = field(default_factory=dict)

    def of(self, part: Part, rung: str) -> "Evidence":
        """Return the results of a part at a budget."""

        def rows(table: pd.DataFrame) -> pd.DataFrame:
            return table[(table["part"] == part.name) & (table["rung"] == rung)] if len(table) else table

        return Evidence(rows(self.cells), rows(self.curves), self.hits)


def score(part: Part, name: str, cells: pd.DataFrame) -> pd.Series:
    """Return the metric of each cell; nan if it has no finite number. A diverged run counts as guessing.

    name: a metric, a signed sum of metrics, or a sum with terms `log2(metric)`.
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
    """Return 1 for each cell that reaches the threshold of its part, 0 for other cells, nan without a result."""
    assert part.solved is not None
    values = score(part, part.metric, cells)
    reached = values <= part.solved if metric(part.metric).better == LESS else values >= part.solved
    return reached.astype(float).where(values.notna())


def steps_to_solve(part: Part, evidence: Evidence) -> pd.Series:
    """Return the step of the first validation of each cell that reaches the threshold.

    inf if no validation does, nan if it is unknown. A diverged run gives inf if guessing is below the threshold.
    """
    curves = evidence.curves
    if not len(curves):
        return pd.Series(math.nan, index=evidence.cells.index)
    reached = curves[curves["score"] >= part.solved].groupby(["arm", "seed"])["step"].min()
    validated = curves.groupby(["arm", "seed"])["step"].min()
    keys = list(zip(evidence.cells["arm"], evidence.cells["seed"], strict=True))
    steps = [reached.get(key, math.inf) if key in validated.index else math.nan for key in keys]
    diverged = (evidence.cells["status"] == "diverged") & (solved(part, evidence.cells) == 0)
    return pd.Series(steps, index=evidence.cells.index, dtype=float).mask(diverged, math.inf)


def outcome(part: Part, name: str, evidence: Evidence, *, among_solved: bool = False) -> pd.Series:
    """Return the outcome of each cell of a part at a budget. among_solved: nan for cells that do not solve the task."""
    if name == SOLVED:
        return solved(part, evidence.cells)
    if name == STEPS:
        return steps_to_solve(part, evidence)
    values = score(part, name, evidence.cells)
    return values.where(solved(part, evidence.cells) == 1) if among_solved else values


def amount(part: Part, name: str, terms: Terms, evidence: Evidence, *, among_solved: bool = False) -> Amount | None:
    """Measure a signed sum of arms with the test for this outcome; None if an arm has no value.

    evidence: of this part, at one budget.
    """
    values = outcome(part, name, evidence, among_solved=among_solved)
    cells = evidence.cells
    by_arm = {arm: values[cells["arm"] == arm].dropna() for _, arm in terms}
    if any(v.empty for v in by_arm.values()):
        return None
    signs = [sign for sign, _ in terms]
    groups = [np.sort(by_arm[arm].to_numpy(dtype=float)) for _, arm in terms]  # the order of seeds must not matter
    if name == SOLVED:
        rates = [Rate(int(group.sum()), len(group)) for group in groups]
        return rates[0] if len(rates) == 1 else RateDifference(rates[0], rates[1])
    if name == STEPS:
        return MedianDifference(groups[0], groups[1])
    if name == ACCURACY:
        images = pd.to_numeric(cells.get("test/images", pd.Series(dtype=float)), errors="coerce").dropna().unique()
        if len(images) == 1:
            groups = [exact_accuracy(group, int(images[0])) for group in groups]
        hits = [table for _, arm in terms if (table := hits_of(evidence, by_arm[arm].index)) is not None]
        same = len({table.shape[1] for table in hits}) == 1 and hits[0].shape[1] > 1  # all arms have the same images
        if same and len(hits) == len(terms) and min(map(len, hits)) > 1:  # the test over seeds still counts too
            return Conservative(of_means(signs, groups), over_images(signs, hits))
    return of_means(signs, groups)


def hits_of(evidence: Evidence, rows: pd.Index) -> Bool[np.ndarray, "seeds images"] | None:
    """Return the hits of the runs in these rows; None unless all runs have hits on equally many images."""
    by_run = [evidence.hits.get(identity) for identity in evidence.cells.loc[rows, "identity"]]
    complete = all(hits is not None for hits in by_run) and len({len(h) for h in by_run if h is not None}) == 1
    return np.stack(by_run) if complete else None  # type: ignore[arg-type]


def population(part: Part, cells: pd.DataFrame, hits: Mapping[str, Hits]) -> str:
    """Say to which population of seeds and images the intervals of a part apply."""
    done = cells[(cells["part"] == part.name) & (cells["status"] == "done")]
    if len(done) and (done.get("test/own_images", pd.Series(0, index=done.index)) == 1).all():
        return "all seeds and all images that the set can draw: each seed has test images of its own"
    images = done.get("test/images", pd.Series(dtype=float)).dropna().unique()
    these = f"these {images[0]:,.0f} test images" if len(images) == 1 else "these test images"
    if len(done) and all(identity in hits for identity in done["identity"]):
        return f"all seeds, and all images of which {these} are a sample"
    return f"all seeds, on {these}"
