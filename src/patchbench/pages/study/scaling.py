"""The sections of a study of costs: the time of every arm, and its growth with the number of tokens."""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from patchbench.pages.study import figures
from patchbench.pages.study.markdown import picture, table
from patchbench.pages.study.numbers import Report, formatted
from patchbench.runs.metrics import four_digits
from patchbench.statistics.scaling import Scaling, fit
from patchbench.study.design import Part
from patchbench.words import count

TIME, TOKENS, GMACS = "final/step_ms_median", "model/tokens", "model/gmacs"
LEAST = 4  # different numbers of tokens that a fit of three terms needs


def every_arm(report: Report) -> str:
    """Return tables of the medians of each arm over the rounds, with the range of the time."""
    sections = ["## Every arm"]
    header = ["arm", "rounds", "ms a step", "range", "tokens", "GMACs", "images/s", "memory, GiB"]
    for part in report.parts:
        rows = [arm_row(report.scores(part), arm) for arm in part.arms]
        sections += [f"### {part.name}", table(header, rows, range(1, len(header)))]
    sections.append(
        "Medians over the rounds. In each round every arm is measured once, in a separate process, on an idle machine, "
        "so that a change of the speed of the machine affects all arms."
    )
    return "\n\n".join(sections)


def arm_row(scores: pd.DataFrame, arm: str) -> list[str]:
    cells = scores[(scores["arm"] == arm) & (scores["status"] == "done")]
    if cells.empty:
        return [arm, "0", *[""] * 6]
    times, middle = cells[TIME], cells.median(numeric_only=True)
    return [
        arm, str(len(cells)), four_digits(times.median()), f"{four_digits(times.min())} to {four_digits(times.max())}",
        formatted(middle.get(TOKENS, math.nan), ",.0f"), formatted(middle.get(GMACS, math.nan), ".3g"),
        formatted(middle["final/images_per_s"], ",.0f"), formatted(middle["memory"], ".2f"),
    ]  # fmt: skip


def section(report: Report) -> str:
    """Return the section on the growth of time with tokens, for each part with enough different numbers of tokens."""
    rounds = [(part, growth(report, part)) for part in report.parts]
    shown = [(part, cells, fits_of(cells)) for part, cells in rounds if has_enough(cells)]
    if not shown:
        return ""
    sections = ["## How time grows with tokens"]
    for part, cells, fits in shown:
        sections += [f"### {part.name}", in_words(cells, fits), fit_table(cells, fits)]
    drawing = figures.growth([(part, cells, median_fit(fits)) for part, cells, fits in shown])
    caption = "Dots: medians of the rounds. Line: the fit. Dashed: its constant, its linear and its quadratic part."
    sections.append(picture(report, "growth", drawing, "Time of a step by number of tokens", caption))
    return "\n\n".join(sections)


def growth(report: Report, part: Part) -> pd.DataFrame:
    """Return the measured rounds of a part."""
    scores = report.scores(part)
    return scores[scores["status"] == "done"]


def has_enough(cells: pd.DataFrame) -> bool:
    """True if there are enough different numbers of tokens for a fit."""
    return TOKENS in cells and cells[TOKENS].notna().all() and cells[TOKENS].nunique() >= LEAST


def fits_of(cells: pd.DataFrame) -> list[Scaling]:
    """Fit the growth of time to each round."""
    return [fit(*rows[[TOKENS, TIME]].to_numpy(dtype=float).T) for _, rows in cells.groupby("seed")]


def median_fit(fits: Sequence[Scaling]) -> Scaling:
    """Return the median of each coefficient over the rounds."""
    return Scaling(
        *(float(np.median([getattr(f, name) for f in fits])) for name in ("constant", "linear", "quadratic"))
    )


def in_words(cells: pd.DataFrame, fits: Sequence[Scaling]) -> str:
    """Describe the number of tokens at which the quadratic term exceeds the linear one, by time and by operations."""
    crossovers = [f.crossover for f in fits]
    by_time = f"{plain_tokens(float(np.median(crossovers)))} (rounds: {plain_tokens(min(crossovers))} to "
    by_time += f"{plain_tokens(max(crossovers))})"
    per_arm = cells.groupby("arm")[[TOKENS, GMACS]].median()
    operations = fit(*per_arm.to_numpy(dtype=float).T, constant=False)
    largest = float(cells[TOKENS].max())
    best = median_fit(fits)
    share = best.quadratic * largest**2 / best.at(largest)
    return (
        f"The part of the time that is quadratic in the tokens is as large as the linear part at {by_time} tokens; by "
        f"multiply-accumulates it is as large at {plain_tokens(operations.crossover)}. At {largest:,.0f} tokens the "
        f"quadratic part is {share:.0%} of the time. Method: least squares of relative errors, for each of "
        f"{count(len(fits), 'round')}."
    )


def plain_tokens(tokens: float) -> str:
    return "no number of" if math.isinf(tokens) else f"{tokens:,.0f}"


def fit_table(cells: pd.DataFrame, fits: Sequence[Scaling]) -> str:
    """Return a table of the three coefficients with their ranges over the rounds, and the largest relative error."""
    rows = []
    for name, unit in (("constant", "ms"), ("linear", "µs a token"), ("quadratic", "ns a pair of tokens")):
        factor = {"constant": 1, "linear": 1e3, "quadratic": 1e6}[name]
        values = [factor * getattr(f, name) for f in fits]
        rows.append(
            [
                name,
                f"{four_digits(float(np.median(values)))} {unit}",
                f"{four_digits(min(values))} to {four_digits(max(values))}",
            ]
        )
    best, medians = median_fit(fits), cells.groupby(TOKENS)[TIME].median()
    worst = max(abs(best.at(float(n)) / t - 1) for n, t in medians.items())  # type: ignore[arg-type]
    return table(["part", "median", "range over rounds"], rows, (1, 2)) + f"\n\nLargest error of the fit: {worst:.0%}."
