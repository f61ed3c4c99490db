"""The pictures of a report, as SVG. Colours: Okabe & Ito (2008), for colour-blind readers; marks differ as well."""

import io
import math
from collections.abc import Mapping, Sequence
from textwrap import fill
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter, NullLocator, ScalarFormatter

from patchbench.pages.study.numbers import differing, pareto, sum_of_arms, t_estimate
from patchbench.runs.metrics import Metric, metric
from patchbench.statistics.scaling import Scaling
from patchbench.study.design import Part
from patchbench.study.verdict import HOW_MUCH, NO, NOT_RUN, OPEN, WITHDRAWN, YES, Finding, MeasuredEffect, Step

WIDTH = 10.0
COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C8C00"]
LINES = ["-", "--", ":", "-."]
MARKS = ["o", "s", "^", "D", "v", "P", "X", "*"]
ANSWERS = {
    YES: ("#0072B2", "o"),
    NO: ("#D55E00", "X"),
    OPEN: ("#6b6b6b", "s"),
    HOW_MUCH: ("#6b6b6b", "D"),
    NOT_RUN: ("#b0b0b0", "s"),
    WITHDRAWN: ("#b0b0b0", "s"),
}
GREY, PALE = "#8a8f94", "#e6edf3"
STYLE: Any = {
    "font.size": 10,
    "font.family": "sans-serif",
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "svg.fonttype": "none",  # text instead of paths: a third of the size, and searchable
    "svg.hashsalt": "patchbench",  # equal pictures are equal files
    "figure.facecolor": "white",
}


def svg(figure: Figure) -> str:
    """Return a figure as SVG; equal figures give equal text."""
    buffer = io.StringIO()
    with mpl.rc_context(STYLE):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return buffer.getvalue()


def canvas(height: float, width: float = WIDTH) -> Figure:
    return Figure(figsize=(width, height), layout="constrained")


def arms(parts: Sequence[tuple[Part, pd.DataFrame]]) -> Figure:
    """Draw each part: every seed of every arm as a dot, the mean and its 95 % interval, and chance as a line.

    parts: each with a table of arm, seed, score.
    """
    with mpl.rc_context(STYLE):
        columns = min(len(parts), 3 if max(len(part.arms) for part, _ in parts) <= 8 else 2)
        rows = math.ceil(len(parts) / columns)
        tallest = max(len(part.arms) for part, _ in parts)
        figure = canvas(rows * (1.1 + 0.34 * tallest))
        axes = np.atleast_1d(figure.subplots(rows, columns, squeeze=False)).ravel()
        for ax in axes[len(parts) :]:
            ax.set_visible(False)
        for ax, (part, scores) in zip(axes, parts, strict=False):
            draw_part(ax, part, scores)
        return figure


def draw_part(ax: Axes, part: Part, scores: pd.DataFrame) -> None:
    line = metric(part.metric)
    names = list(part.arms)
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - 0.4, -0.6)
    if part.chance is not None:
        draw_chance(ax, part.chance, scores["score"], line)
    for row, name in enumerate(names):
        values = scores[scores["arm"] == name].sort_values("seed")["score"].dropna().to_numpy()
        if not len(values):
            ax.text(0.5, row, "no result", transform=ax.get_yaxis_transform(), va="center", color=GREY)
            continue
        height = row + np.linspace(-0.22, 0.22, len(values)) if len(values) > 1 else [row]
        ax.plot(
            values * line.factor, height, "o", color=COLOURS[5], markersize=4, alpha=0.8, markeredgewidth=0, zorder=2
        )
        e = t_estimate(values)
        ax.plot(e.mean * line.factor, row, "|", color=COLOURS[0], markersize=16, markeredgewidth=2.5, zorder=4)
        if e.n > 1:
            ends = [line.clip(end) * line.factor for end in (e.low, e.high)]
            ax.plot(ends, [row, row], color=COLOURS[0], linewidth=2.5, zorder=3)
    ax.set_title(part.name)
    ax.set_xlabel(line.title)
    ax.margins(x=0.06)
    ax.grid(axis="x", color="#eceff1", linewidth=0.8)
    ax.set_axisbelow(True)


def draw_chance(ax: Axes, chance: float, scores: pd.Series, line: Metric) -> None:
    """Draw chance as a line, or as text if it is far from the results, which would otherwise be drawn in one spot."""
    far = scores.min() - chance > 3 * (scores.max() - scores.min()) > 0
    if far:
        text = f"← guessing: {line.value(chance, 0)}"
        ax.text(0.01, 0.01, text, transform=ax.transAxes, color=GREY, fontsize=9, va="bottom")
        return
    ax.axvline(chance * line.factor, color=GREY, linestyle="--", linewidth=1)
    ax.text(chance * line.factor, -0.55, " guessing", color=GREY, fontsize=9, va="top")


def forest(findings: Sequence[Finding], words: Mapping[str, str]) -> Figure:
    """Draw the deciding interval of each statement over the region in which the statement is true.

    Statements of equality, which have small margins, and each unit have a scale of their own. words: label of each
    answer.
    """
    groups: dict[tuple[str, bool], list[tuple[Finding, Step]]] = {}
    for finding in findings:
        equality = math.isfinite(finding.statement.low) and math.isfinite(finding.statement.high)
        for step in finding.steps:
            if step.amount is not None:
                groups.setdefault((unit(finding.metric), equality), []).append((finding, step))
    with mpl.rc_context(STYLE):
        heights = [0.9 + 0.42 * len(group) for group in groups.values()]
        figure = canvas(sum(heights) + 0.3)
        axes = figure.subplots(len(groups), 1, squeeze=False, gridspec_kw={"height_ratios": heights}).ravel()
        for ax, ((_, equality), group) in zip(axes, groups.items(), strict=True):
            draw_forest(ax, group, equality, words)
        return figure


def unit(line: Metric) -> str:
    """Return the unit of the axis on which differences of a metric are drawn."""
    return "points" if line.factor == 100 else line.label


def ends(step: Step | MeasuredEffect, level: float) -> tuple[float, float]:
    """Return the ends of the interval of an amount; nan if they are not finite, as with fewer than two seeds."""
    low, high = step.amount.interval(level) if step.amount is not None else (math.nan, math.nan)
    return (low, high) if math.isfinite(low) and math.isfinite(high) else (math.nan, math.nan)


def draw_forest(ax: Axes, group: Sequence[tuple[Finding, Step]], equality: bool, words: Mapping[str, str]) -> None:
    factor = group[0][0].metric.factor
    edges = [0.0]
    for finding, step in group:
        at = offset(finding) * factor
        bounds = [b * factor - at for b in (finding.statement.low, finding.statement.high) if math.isfinite(b)]
        values = (step.amount.estimate, *ends(step, finding.level)) if step.amount is not None else ()
        edges += [*bounds, *(v * factor - at for v in values if math.isfinite(v))]
    room = 0.08 * ((max(edges) - min(edges)) or 1.0)
    left, right = min(edges) - room, max(edges) + room
    labels = []
    for row, (finding, step) in enumerate(group):
        at = offset(finding) * factor
        low, high = (b * factor - at for b in (finding.statement.low, finding.statement.high))
        if finding.statement.says:  # else nothing is claimed, for example about the runs of a sweep
            ax.barh(row, min(high, right) - max(low, left), left=max(low, left), height=0.8, color=PALE, zorder=1)
        colour, mark = ANSWERS[finding.answer]
        draw_bar(ax, row, step, finding.level, factor, at, colour, mark)
        minus = f" − {finding.metric.value(offset(finding))}" if at else ""
        of = "" if finding.statement.metric == finding.part.metric else f", {finding.statement.metric}"
        labels.append(f"{finding.part.name}: {sum_of_arms(step.terms)}{minus}{of}")
        ax.text(
            1.01, row, words[finding.answer], transform=ax.get_yaxis_transform(), va="center", color=colour, fontsize=9
        )
    ax.set_xlim(left, right)
    label_rows(ax, labels)
    if group[0][0].statement.says:
        ax.set_title("Claimed to be equal, within a margin" if equality else "Claimed to differ")
    ax.set_xlabel(f"difference ({unit(group[0][0].metric)})")


def draw_bar(
    ax: Axes, row: int, step: Step | MeasuredEffect, level: float, factor: int, at: float, colour: str, mark: str
) -> None:
    """Draw an amount with its interval in a row of a forest plot."""
    if step.amount is None:
        return
    low, high = ends(step, level)
    if not math.isnan(low):
        ax.plot([low * factor - at, high * factor - at], [row, row], color=colour, linewidth=2.5, zorder=3)
    ax.plot(step.amount.estimate * factor - at, row, mark, color=colour, markersize=8, zorder=4)


def label_rows(ax: Axes, labels: Sequence[str]) -> None:
    ax.axvline(0, color="black", linewidth=0.8, zorder=2)
    ax.set_yticks(range(len(labels)), [fill(label, 44) for label in labels])
    ax.set_ylim(len(labels) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)


def effects(groups: Mapping[str, Sequence[tuple[str, MeasuredEffect]]]) -> Figure:
    """Draw effects with their 95 % intervals, in a panel for each unit.

    groups: label and effect of each row, by unit.
    """
    with mpl.rc_context(STYLE):
        heights = [0.9 + 0.36 * len(rows) for rows in groups.values()]
        figure = canvas(sum(heights) + 0.3)
        axes = figure.subplots(len(groups), 1, squeeze=False, gridspec_kw={"height_ratios": heights}).ravel()
        every = dict.fromkeys(measured.effect.factor for rows in groups.values() for _, measured in rows)
        factors = {factor: i for i, factor in enumerate(every)}  # one colour and mark in all panels
        for ax, (name, rows) in zip(axes, groups.items(), strict=True):
            for row, (_, measured) in enumerate(rows):
                i = factors[measured.effect.factor]
                draw_bar(ax, row, measured, 0.95, measured.metric.factor, 0.0, COLOURS[i % 8], MARKS[i % 8])
            label_rows(ax, [label for label, _ in rows])
            ax.margins(x=0.06)
            ax.grid(axis="x", color="#eceff1", linewidth=0.8)
            ax.set_axisbelow(True)
            ax.set_xlabel(f"effect ({name})")
        return figure


def ladders(parts: Sequence[tuple[Part, pd.DataFrame]]) -> Figure:
    """Draw the result of each arm over the budgets of its part, and over their computation: mean and 95 % interval.

    parts: each with a table of arm, rung, seed, score, flops. Each budget is a training with a schedule of its own.
    """
    with mpl.rc_context(STYLE):
        figure = canvas(3.8 * len(parts) + 0.4)
        axes = figure.subplots(len(parts), 2, squeeze=False, sharey="row")
        for (left, right), (part, scores) in zip(axes, parts, strict=True):
            assert part.ladder is not None
            places = {rung: i for i, rung in enumerate(part.ladder.rungs)}
            for i, arm in enumerate(part.arms):
                own = scores[(scores["arm"] == arm) & scores["score"].notna()]
                done = [rung for rung in part.ladder.rungs if (own["rung"] == rung).any()]
                of_rung = [own[own["rung"] == rung] for rung in done]
                draw_ladder(left, part, i, [places[rung] + 0.02 * (i - len(part.arms) / 2) for rung in done], of_rung)
                if (flops := [float(rows["flops"].mean()) for rows in of_rung]) and not any(map(math.isnan, flops)):
                    draw_ladder(right, part, i, flops, of_rung)
            left.set_xticks(range(len(places)), list(places))
            left.set_xlabel(part.ladder.knob)
            left.set_ylabel(metric(part.metric).title)
            left.set_title(part.name)
            left.legend(frameon=False, fontsize=9, ncols=1 if len(part.arms) <= 6 else 2)
            right.set_visible(bool(right.lines))
            right.set_xscale("log")
            right.set_xlabel("training computation (FLOP)")
            for ax in (left, right):
                ax.grid(color="#eceff1", linewidth=0.8)
            if part.chance is not None:
                draw_chance_below((left, right), part)
        return figure


def draw_chance_below(axes: Sequence[Axes], part: Part) -> None:
    """Draw chance as a line if it is near the results, or as text if it is far below."""
    line, chance = metric(part.metric), part.chance or 0.0
    low, high = axes[0].get_ylim()
    for ax in axes:
        if chance * line.factor > low - (high - low):
            ax.axhline(chance * line.factor, color=GREY, linestyle="--", linewidth=1)
        elif ax.get_visible():
            text = f"↓ guessing: {line.value(chance, 0)}"
            ax.text(0.01, 0.02, text, transform=ax.transAxes, color=GREY, fontsize=9)


def draw_ladder(ax: Axes, part: Part, i: int, xs: Sequence[float], of_rung: Sequence[pd.DataFrame]) -> None:
    """Draw arm number i at each of its budgets."""
    line = metric(part.metric)
    e = [t_estimate(rows["score"].to_numpy(dtype=float)) for rows in of_rung]
    colour = COLOURS[i % 8]
    means = [estimate.mean * line.factor for estimate in e]
    ax.plot(xs, means, LINES[i // 8 % 4], marker=MARKS[i % 8], color=colour, label=list(part.arms)[i], linewidth=1.6)
    for x, estimate in zip(xs, e, strict=True):
        if estimate.n > 1:
            both = [line.clip(end) * line.factor for end in (estimate.low, estimate.high)]
            ax.plot([x, x], both, color=colour, linewidth=1.2, alpha=0.6)


def offset(finding: Finding) -> float:
    """Return the value that is claimed for an arm; it is subtracted in the plot, so that zero means exactly true."""
    low, high = finding.statement.low, finding.statement.high
    return (low + high) / 2 if math.isfinite(low) and math.isfinite(high) else 0.0


def spaced_ticks(values: Sequence[float]) -> list[float]:
    """Choose ticks among the values, with enough distance for their labels on a logarithmic axis."""
    low, high = min(values), max(values)
    ticks = [low]
    for value in sorted(values):
        if value >= ticks[-1] * (high / low) ** 0.15:
            ticks.append(value)
    return [float(f"{tick:.2g}") for tick in ticks]


def costs(part: Part, table: pd.DataFrame) -> Figure:
    """Draw the score against each cost in which arms differ. table: a row for each arm, see `cost_table`."""
    line = metric(part.metric)
    shown = differing(table)
    with mpl.rc_context(STYLE):
        figure = canvas(3.5 * math.ceil(len(shown) / 2) + 0.3)
        axes = figure.subplots(math.ceil(len(shown) / 2), 2, squeeze=False).ravel()
        for ax in axes[len(shown) :]:
            ax.set_visible(False)
        for ax, name in zip(axes, shown, strict=False):
            more = metric(name).better > 0
            gain = (table["score"] * line.factor).tolist()
            front = pareto(table[name].tolist(), gain, more_is_better=more)
            for i, (arm, x, y, best) in enumerate(zip(table.index, table[name], gain, front, strict=True)):
                ax.plot(
                    x, y, MARKS[i % 8], color=COLOURS[i % 8], markersize=8, zorder=3, label=arm,
                    markeredgecolor="black" if best else "none", markeredgewidth=1.5,
                )  # fmt: skip
            on_front = sorted((x, y) for x, y, best in zip(table[name], gain, front, strict=True) if best)
            ax.plot(*zip(*on_front, strict=True), color=GREY, linewidth=1.2, zorder=1)
            if table[name].max() > 1.5 * table[name].min():
                ax.set_xscale("log")
                ax.set_xticks(spaced_ticks(table[name].tolist()))
                ax.xaxis.set_major_formatter(ScalarFormatter())
                ax.xaxis.set_minor_locator(NullLocator())
                ax.xaxis.set_minor_formatter(NullFormatter())
            else:
                ax.xaxis.set_major_locator(MaxNLocator(4))
            ax.set_xlabel(metric(name).title + (": right is better" if more else ": left is better"))
            ax.set_ylabel(line.title)
            ax.margins(0.1)
            ax.grid(color="#eceff1", linewidth=0.8)
        handles, labels = axes[0].get_legend_handles_labels()
        columns = max(1, min(len(labels), int(110 / (6 + max(map(len, labels))))))  # by the number of letters
        figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False)
        return figure


def growth(parts: Sequence[tuple[Part, pd.DataFrame, Scaling]]) -> Figure:
    """Draw the time of a step by number of tokens, with logarithmic axes: medians, the fit, and its three terms."""
    with mpl.rc_context(STYLE):
        figure = canvas(3.8)
        axes = figure.subplots(1, len(parts), squeeze=False).ravel()
        for ax, (part, cells, best) in zip(axes, parts, strict=True):
            medians = cells.groupby("model/tokens")["final/step_ms_median"].median()
            n = np.geomspace(medians.index.min(), medians.index.max(), 100)
            ax.plot(medians.index, medians, "o", color=COLOURS[0], markersize=7, label="measured")
            ax.plot(n, best.at(n), color=COLOURS[0], label="fit")
            terms = {"constant": best.constant + 0 * n, "linear": best.linear * n, "quadratic": best.quadratic * n**2}
            for (name, values), colour in zip(terms.items(), COLOURS[1:4], strict=True):
                if values.max() > 0:
                    ax.plot(n, values, "--", color=colour, linewidth=1.4, label=name)
            ax.set(xscale="log", yscale="log", title=part.name, xlabel="tokens", ylabel="ms a step")
            ax.set_ylim(bottom=medians.min() / 10)
            ax.set_xticks(medians.index)
            for axis in (ax.xaxis, ax.yaxis):
                axis.set_major_formatter(ScalarFormatter())
                axis.set_minor_formatter(NullFormatter())
            ax.grid(color="#eceff1", linewidth=0.8)
            ax.legend(frameon=False, fontsize=9)
        return figure


def learning(parts: Sequence[tuple[Part, pd.DataFrame]]) -> Figure:
    """Draw validation accuracy by epoch: the mean over seeds, and its 95 % interval as a band.

    parts: each with a table of arm, seed, epoch, score.
    """
    line = metric("val/acc")
    with mpl.rc_context(STYLE):
        columns = min(len(parts), 2)
        rows = math.ceil(len(parts) / columns)
        figure = canvas(3.6 * rows + 0.4)
        axes = figure.subplots(rows, columns, squeeze=False).ravel()
        for ax in axes[len(parts) :]:
            ax.set_visible(False)
        for ax, (part, points) in zip(axes, parts, strict=False):
            for i, arm in enumerate(part.arms):
                table = points[points["arm"] == arm].pivot_table(index="epoch", columns="seed", values="score").dropna()
                if table.empty:
                    continue
                estimates = [t_estimate(row) for row in table.to_numpy()]
                means = [e.mean * line.factor for e in estimates]
                colour, dashes = COLOURS[i % 8], LINES[i // 8 % 4] if len(part.arms) > 8 else LINES[i % 4]
                ax.plot(table.index, means, dashes, color=colour, label=arm, linewidth=1.8)
                if table.shape[1] > 1:
                    low = [line.clip(e.low) * line.factor for e in estimates]
                    high = [line.clip(e.high) * line.factor for e in estimates]
                    ax.fill_between(table.index, low, high, color=colour, alpha=0.15, linewidth=0)
            if part.chance is not None:
                ax.axhline(part.chance * line.factor, color=GREY, linestyle="--", linewidth=1)
            ax.set_title(part.name)
            ax.set_xlabel("epoch")
            ax.xaxis.set_major_locator(MaxNLocator("auto", integer=True, min_n_ticks=1))
            ax.set_ylabel(line.title)
            ax.grid(color="#eceff1", linewidth=0.8)
            ax.legend(frameon=False, fontsize=9, ncols=1 if len(part.arms) <= 6 else 2)
        return figure
