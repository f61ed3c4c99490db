"""The sections of a report about the arms: results, tuning, costs, learning curves."""

import math
import re

import pandas as pd

from patchbench.pages.study import figures
from patchbench.pages.study.markdown import picture, table
from patchbench.pages.study.numbers import (
    BUDGETS,
    COSTS,
    Report,
    at_budget,
    cost_table,
    differing,
    formatted,
    mean,
    pareto,
    steps_to,
    t_estimate,
    t_interval,
)
from patchbench.runs.metrics import four_digits, metric
from patchbench.statistics.inference import noise_of_test_set
from patchbench.statistics.rates import Rate
from patchbench.study.design import Part
from patchbench.study.outcomes import population, solved

TARGET = 0.9  # validation accuracy: arms with equal final results may differ in the number of steps to reach it


def every_run(report: Report) -> str:
    """Return the picture of all results."""
    drawing = figures.arms([(part, report.scores(part)) for part in report.parts])
    guessing = any(part.chance is not None for part in report.parts)
    caption = (
        f"A dot is {'one round' if report.study.of_costs else 'one run, one seed'}. The vertical line is the mean, "
        "the bar its 95 % interval (which may be narrower than the line)"
        + ("; the dashed line is the result of guessing." if guessing else ".")
    )
    return picture(report, "arms", drawing, "Result of every run, by arm", caption)


def ladders(report: Report) -> str:
    """Return the picture of results over budgets, for parts with several budgets."""
    parts = [(part, pd.concat([with_flops(report, part, rung) for rung in report.rungs(part)])) for part in report.parts
             if part.ladder and len(report.rungs(part)) > 1]  # fmt: skip
    if not parts:
        return ""
    margins = ", ".join(f"{part.name} {metric(part.metric).change(part.plateau).lstrip('+')}" for part, _ in parts)
    caption = (
        "Each point is a separate training with a schedule of that length; bars are 95 % intervals. A statement is "
        f"decided at the last budget, if results of the last two budgets differ by less than a margin: {margins}."
    )
    drawing = figures.ladders(parts)
    return "## Longer training\n\n" + picture(report, "ladders", drawing, "Results by length of training", caption)


def with_flops(report: Report, part: Part, rung: str) -> pd.DataFrame:
    """Return the scores at a budget, with the FLOPs of each training up to its last validation; nan if unknown."""
    scores, curves = report.scores(part, rung), report.evidence.of(part, rung).curves
    if not len(curves):
        return scores.assign(flops=math.nan)
    spent = (curves.groupby(["arm", "seed"])["gflops"].max() * 1e9).rename("flops")
    return scores.merge(spent, left_on=["arm", "seed"], right_index=True, how="left")


def every_arm(report: Report) -> str:
    """Return a table for each part and budget, with mean, spread and costs of each arm."""
    sections = ["## Every arm"]
    for part in report.parts:
        line = metric(part.metric)
        header = [
            "arm", "seeds", line.label, "sd", "95 % interval (t)", "test noise",
            "tokens", "GMACs", "images/s", "memory, GiB",
        ]  # fmt: skip
        threshold = TARGET if part.solved is None else part.solved
        header += [f"steps to {threshold:.0%}"]
        if part.solved is not None:
            header += [f"solved ({line.value(part.solved, 0)})", "95 % interval", "accuracy of the solved"]
        for rung in report.rungs(part):
            rows = [arm_row(report, part, arm, rung, threshold) for arm in part.arms]
            title = f"{part.name}, {part.ladder.knob}={rung}" if part.ladder else part.name
            shown = [i for i, cells in enumerate(zip(*rows, strict=True)) if any(cells)]
            filled = [[row[i] for i in shown] for row in (header, *rows)]
            sections += [f"### {title}", table(filled[0], filled[1:], range(1, len(shown)))]
        sections.append(f"Intervals apply to {population(part, report.cells, report.evidence.hits)}.")
    sections.append(
        "Test noise: the standard deviation of an accuracy, in points, that comes from the finite number of "
        "test images. Steps: optimizer steps up to the first validation that reached this accuracy, median over seeds, "
        "if at least half of them reached it. Images/s and memory, where they were measured, were measured separately "
        "from training, on an idle machine."
    )
    return "\n\n".join(sections)


def arm_row(report: Report, part: Part, arm: str, rung: str, threshold: float) -> list[str]:
    """Return the row of an arm. threshold: accuracy for the column of steps."""
    line, scores, prices = metric(part.metric), report.scores(part, rung), report.costs_of(part)
    cells = scores[scores["arm"] == arm]
    e = t_estimate(cells["score"].dropna().to_numpy(dtype=float))
    images = mean(cells, "test/images")
    noise = noise_of_test_set(e.mean, images) if part.metric == "test/acc" and e.n and images else math.nan
    interval = "{} to {} {}".format(*t_interval(line, e, 2), line.unit).rstrip()
    speed, memory = prices.loc[arm] if arm in prices.index else (math.nan, math.nan)
    row = [
        arm, str(e.n), line.value(e.mean, 2), line.number(e.sd, 2), interval if e.n > 1 else "n/a",
        line.number(noise, 2),
        formatted(mean(cells, "model/tokens"), ",.0f"), formatted(mean(cells, "model/gmacs"), ".3g"),
        formatted(speed, ",.0f") if speed == speed else "", formatted(memory, ".2f") if memory == memory else "",
        steps_to(report.evidence.of(part, rung).curves, arm, threshold),
    ]  # fmt: skip
    return row if part.solved is None else row + solved_by(part, cells)


def solved_by(part: Part, cells: pd.DataFrame) -> list[str]:
    """Return the number of seeds that solve the task, the interval of their share, and their mean result."""
    reached = solved(part, cells).dropna()
    if reached.empty:
        return ["", "", ""]
    rate = Rate(int(reached.sum()), len(reached))
    low, high = rate.interval()
    among = cells.loc[reached[reached == 1].index, "score"].mean()
    line = metric(part.metric)
    return [f"{rate.solved} of {rate.n}", f"{low:.0%} to {high:.0%}", line.value(among, 2) if rate.solved else ""]


def tuning(report: Report) -> str:
    """Return the table of tuning: the chosen setting of each arm, and the accuracies of the other settings."""
    if report.tuned is None:
        return ""
    line = metric("val/acc")
    rows = []
    for (part, arm), tried in report.tuned.groupby(["part", "arm"], sort=False):
        [chosen] = tried[tried["chosen"]].to_dict("records")
        others = tried[~tried["chosen"]]["val/acc"]
        rows.append([
            part, arm, f"`{chosen['setting']}`", line.value(chosen["val/acc"]),
            f"{line.number(others.min())} to {line.value(others.max())}" if len(others) else "",
        ])  # fmt: skip
    note = (
        "Every arm was trained once with each setting of the same grid, with a seed that is not used again, and then "
        "with all seeds and the setting that had the best validation accuracy."
    )
    return "\n\n".join(["## Tuning", note, table(["part", "arm", "chosen", "validation", "others"], rows, (3, 4))])


def costs(report: Report) -> str:
    """Return pictures of the result against each cost in which arms differ, with the Pareto front."""
    sections = []
    for part in report.parts:
        prices = cost_table(report, part)
        varying = differing(prices) if len(prices) > 1 else []
        if not varying:
            continue
        fronts = []
        for name in varying:
            front = pareto(prices[name].tolist(), prices["score"].tolist(), more_is_better=metric(name).better > 0)
            fronts.append(f"{metric(name).title}: {', '.join(prices.index[front])}")
        same = [
            f"{metric(name).title}: {four_digits(prices[name].mean())}"
            for name in COSTS
            if name not in varying and prices[name].notna().all()
        ]
        caption = (
            "Black outlines mark the Pareto front: no other arm is both cheaper and better. Only means are compared "
            f"here; whether arms differ at all is said above. On the front, by {'; '.join(fronts)}."
        )
        caption += f" The same for all arms: {'; '.join(same)}." if same else ""
        if len(measured := report.costs_of(part)):
            caption += (
                f" Speed and memory: medians over rounds on an idle machine, in which {len(measured)} arms took turns."
            )
        name = "cost_" + re.sub(r"\W+", "_", part.name)
        drawn = picture(report, name, figures.costs(part, prices), f"Result against cost, {part.name}", caption)
        sections += [f"### {part.name}", drawn]
    return "\n\n".join(["## Cost", *sections]) if sections else ""


def learning(report: Report) -> str:
    """Return the picture of the learning curves."""
    parts = [(part, report.curves_of(part)) for part in report.parts]
    parts = [(part, points) for part, points in parts if len(points)]
    if not parts:
        return ""
    caption = "Mean over seeds of the validation accuracy after each epoch; the band is its 95 % interval."
    return "## Learning curves\n\n" + picture(report, "learning", figures.learning(parts), "Learning curves", caption)


def equal_cost(report: Report) -> str:
    """Return tables of validation accuracy at the budget of the cheapest arm, for parts with arms of unequal cost."""
    sections = []
    for part in report.parts:
        points, prices = report.curves_of(part), cost_table(report, part)
        if not len(points) or len(prices) < 2 or "model/gflops_train" not in differing(prices):
            continue
        points = points.assign(s=seconds(report, part, points))
        known = [column for column in BUDGETS if points[column].notna().all()]
        budgets = {
            column: points.groupby(["arm", "seed"])[column].max().groupby("arm").mean().min() for column in known
        }
        rows = [
            [arm, *(at_budget(points[points["arm"] == arm], column, budgets[column]) for column in known)]
            for arm in part.arms
        ]
        formats = {"epoch": "{:.4g}", "gflops": "{:.3g} GFLOP", "s": "{:.3g} s"}
        header = [f"{BUDGETS[column]}: {formats[column].format(budgets[column])}" for column in known]
        sections.append(table([part.name, *header], rows, range(1, len(header) + 1)))
    if not sections:
        return ""
    note = (
        "Validation accuracy (mean and 95 % interval, t) at the time when the budget of the cheapest arm is spent: "
        "epochs, training FLOPs, or seconds at the speed that was measured on an idle machine. Values are read from "
        "the learning curves, whose schedules were not shortened, so arms that are cut off appear worse than they are."
    )
    return "\n\n".join(["## At equal cost", note, *sections])


def seconds(report: Report, part: Part, points: pd.DataFrame) -> pd.Series:
    """Return the seconds of training up to each point of the learning curves, at the measured speed; nan if unknown."""
    speeds = report.costs_of(part)
    if not len(speeds):
        return pd.Series(math.nan, index=points.index)
    return points["images"] / points["arm"].map(speeds["images_per_s"])
