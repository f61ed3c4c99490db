"""What a study found, as Markdown with its figures, and the same as one HTML file that needs no other."""

import base64
import math
import re
from collections.abc import Mapping, Sequence
from html import escape

import pandas as pd
from markdown_it import MarkdownIt

from patchbench import html
from patchbench.runs.metrics import unit
from patchbench.study import figures
from patchbench.study.claim import ROLES, Study
from patchbench.study.numbers import (
    GOOD,
    SIGNS,
    SWEEP,
    VIEWS,
    Report,
    at_budget,
    bound,
    cost_table,
    interval,
    mean,
    memory,
    of_part,
    p_value,
    plain,
    spoken,
    steps_to,
)
from patchbench.study.stats import ALPHA, LEAST_SEEDS, POWER, noise_of_test_set, t_estimate
from patchbench.study.verdict import Judgement

STYLE = """
blockquote { margin: 1.2rem 0; padding: .8rem 1.2rem; background: var(--card); border-left: 5px solid var(--soft);
             border-radius: 0 6px 6px 0; max-width: 52rem; }
blockquote.supported { background: var(--marked); border-color: var(--mark); }
blockquote.refuted { background: #fbe6d8; border-color: #d55e00; color: #1d2327; }
blockquote.undetermined { background: #ececec; border-color: #6b6b6b; color: #1d2327; }
blockquote.verdict p:first-child { font-size: 1.25rem; line-height: 1.4; }
table { display: block; overflow-x: auto; font-size: .93rem; }
td[style*="right"] { white-space: nowrap; }
td:first-child { min-width: 7rem; }
p:has(> img) { max-width: none; }
p:has(> img) + p { color: var(--soft); font-size: .95rem; }
ul { max-width: 60rem; padding-left: 0; list-style: none; }
h2:last-of-type + ul { padding-left: 1.2rem; list-style: disc; }
img { display: block; width: 100%; max-width: 1000px; height: auto; background: #fff; border: 1px solid var(--line);
      border-radius: 6px; padding: 8px; }
"""


def markdown(report: Report) -> str:
    """The whole page; fills `report.pictures`."""
    sections = [
        head(report),
        arms_picture(report),
        statements(report),
        arms_table(report),
        tuning(report),
        power(report),
        cost(report),
        learning(report),
        matched(report),
        published(report),
        without_result(report),
        made_by(report),
        how_to_read(report),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def table(header: Sequence[str], rows: Sequence[Sequence[str]], numbers: Sequence[int] = ()) -> str:
    """Columns `numbers` are set to the right."""
    rule = ["---:" if i in numbers else "---" for i in range(len(header))]
    clean = [[cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in (header, rule, *rows)]
    return "\n".join("| " + " | ".join(row) + " |" for row in clean)


def head(report: Report) -> str:
    study, judgement, cells = report.study, report.judgement, report.cells
    done = int((cells["status"] == "done").sum())
    arms = len({(part.name, arm) for part in report.parts for arm in part.arms})
    scale = "" if report.sweep else f", scale `{report.scale}`"
    counted = (
        f"{done} of {len(cells)} {'runs' if report.sweep else 'planned runs'} have a result: {arms} arms in "
        f"{len(report.parts)} part{'s' * (len(report.parts) != 1)}, {cells['seed'].nunique()} seeds{scale}."
    )
    if not math.isnan(hours := pd.to_numeric(cells.get("time/wall_s", pd.Series(dtype=float))).sum() / 3600):
        counted += f" They took {hours:.2g} hours, one after another."
    if report.sweep:
        return f"# {study.question}\n\n{counted}"
    verdict = judgement.verdict
    means = study.means.get(verdict) or undecided(judgement)
    predicted = "as predicted" if verdict == study.expect else f"the prediction was: {study.expect}"
    return (
        f"# {study.question}\n\n"
        f"The claim: “{study.quote}” ({study.source})\n\n"
        f"> **{verdict.capitalize()}.** {means.strip()}\n>\n"
        f"> Why: {judgement.because}; {predicted}.\n\n"
        f"{in_short(judgement)}\n\n{counted}"
    )


def undecided(judgement: Judgement) -> str:
    claims = [finding for finding in judgement.findings if finding.comparison.role == "claim"]
    shown = sum(finding.verdict == "supported" for finding in claims)
    if not shown:
        return "These runs do not decide it."
    return f"Not decided as a whole: {shown} of its {len(claims)} statements hold, of the rest these runs cannot tell."


def in_short(judgement: Judgement) -> str:
    """Each statement that the verdict rests on, in a line."""
    lines = []
    for finding in judgement.findings:
        if finding.comparison.role == "aside":
            continue
        measured = " and ".join(
            f"{spoken(finding, step.estimate.mean)} ({interval(finding, step.estimate)})" for step in finding.steps
        )
        why = f" Undetermined: {finding.because}." if finding.verdict == "undetermined" else ""
        why = " **Refuted.**" if finding.verdict == "refuted" else why
        control = " (control)" if finding.comparison.role == "control" else ""
        part = f"*{finding.part.name}*: "
        lines.append(f"- {SIGNS[finding.verdict]} {part}{finding.comparison.says}{control} Measured {measured}.{why}")
    return "\n".join(lines)


def arms_picture(report: Report) -> str:
    drawn = figures.arms([(part, report.scores(part)) for part in report.parts])
    caption = (
        "A dot is one run, one seed. The upright line is the mean, the bar its 95 % interval (it may be "
        "narrower than the "
        "line); the dashed line is what guessing gives."
    )
    return report.picture("arms", drawn, "Result of every run, by arm", caption)


def statements(report: Report) -> str:
    findings = report.judgement.findings
    if not findings:
        return ""
    header = ["statement", "compared", "measured", "95 % interval", "true if", "p", "p, Holm", "verdict"]
    rows = []
    for finding in findings:
        says = finding.comparison.says + ("" if finding.comparison.role == "claim" else f" ({finding.comparison.role})")
        verdict = f"{SIGNS[finding.verdict]} **{finding.verdict}**"
        verdict += "" if finding.as_expected else f" (predicted: {finding.comparison.expect})"
        for i, step in enumerate(finding.steps):
            metric = "" if finding.comparison.metric == finding.part.metric else f", `{finding.comparison.metric}`"
            whole = [p_value(finding.p), p_value(finding.p_holm), verdict] if i == 0 else ["", "", ""]
            rows.append([
                says if i == 0 else "",
                f"{finding.part.name}: {figures.spelled(step.terms)}{metric}",
                spoken(finding, step.estimate.mean),
                interval(finding, step.estimate),
                bound(finding),
                *whole,
            ])  # fmt: skip
    words = SWEEP if report.sweep else {name: name for name in SIGNS}
    caption = "The bar is the 95 % interval of the difference, paired by seed. "
    if report.sweep:
        title = "Differences"
        note = "Paired by seed, against the first arm; *higher* and *lower* hold after Holm's correction."
        kept = [[*row[1:4], *row[5:7], SWEEP[finding.verdict]] for row, finding in zip(rows, findings, strict=True)]
        body = table([*header[1:4], *header[5:8]], kept, (1, 2, 3, 4))
    else:
        title = "What was predicted, and what was found"
        roles = ", ".join(f"*{role}*: {what}" for role, what in ROLES.items())
        note = f"Each statement was written before the runs. {roles}."
        body = table(header, rows, (2, 3, 5, 6))
        caption += (
            "Shaded: where the statement is true. Supported when the whole bar is inside, refuted when all of it is "
            "outside, otherwise undetermined."
        )
    drawn = report.picture(
        "differences", figures.forest(findings, words), "Every comparison with its 95 % interval", caption
    )
    return f"## {title}\n\n{note}\n\n{body}\n\n{drawn}"


def arms_table(report: Report) -> str:
    sections = ["## Every arm"]
    for part in report.parts:
        measure, rows = unit(part.metric), []
        scores, points = report.scores(part), of_part(report.curves, part)
        for arm in part.arms:
            cells = scores[scores["arm"] == arm]
            e = t_estimate(cells["score"].dropna().to_numpy(dtype=float))
            images = mean(cells, "test/images")
            noise = noise_of_test_set(e.mean, images) if part.metric == "test/acc" and e.n and images else math.nan
            rows.append([
                arm, str(e.n), measure.value(e.mean, 2), measure.number(e.sd, 2) if e.n > 1 else "n/a",
                f"{measure.number(e.low, 2)} to {measure.value(e.high, 2)}" if e.n > 1 else "n/a",
                measure.number(noise, 2) if not math.isnan(noise) else "n/a",
                plain(mean(cells, "model/tokens"), ",.0f"), plain(mean(cells, "model/gmacs"), ".3g"),
                plain(mean(cells, "final/images_per_s"), ",.0f"), plain(memory(cells), ".2f"),
                plain(mean(cells, "time/wall_s"), ",.0f"), steps_to(points, arm, GOOD),
            ])  # fmt: skip
        header = [
            "arm", "seeds", figures.axis_name(part.metric, measure).removesuffix(" (%)"), "sd", "95 % interval (t)",
            "noise of the test set",
            "tokens", "GMACs", "images/s", "memory, GiB", "wall time, s", f"steps to {GOOD:.0%}",
        ]  # fmt: skip
        sections += [f"### {part.name}", table(header, rows, range(1, 12))]
    sections.append(
        "Noise of the test set: standard deviation, in points, that an accuracy has because the test set is "
        "a sample of so many "
        "images. Arms see the same images, so differences between them have less. "
        f"Steps to {GOOD:.0%}: optimizer steps up to the first validation at which that accuracy was reached, median "
        "over seeds, where at least half of them reached it."
    )
    return "\n\n".join(sections)


def tuning(report: Report) -> str:
    """The setting that each arm got, and what the others gave it."""
    if report.tuned is None:
        return ""
    measure = unit("val/acc_best")
    rows = []
    for (part, arm), tried in report.tuned.groupby(["part", "arm"], sort=False):
        [chosen] = tried[tried["chosen"]].to_dict("records")
        others = tried[~tried["chosen"]]["val/acc_best"]
        rows.append([
            part, arm, f"`{chosen['setting']}`", measure.value(chosen["val/acc_best"]),
            f"{measure.number(others.min())} to {measure.value(others.max())}" if len(others) else "",
        ])  # fmt: skip
    note = (
        "Every arm was trained once at each setting of the same grid, with a seed that counts no further, and then "
        "with all seeds at the setting that was best on the validation split."
    )
    return "\n\n".join(["## Tuning", note, table(["part", "arm", "chosen", "validation", "others"], rows, (3, 4))])


def power(report: Report) -> str:
    findings = report.judgement.findings
    rows = []
    for finding in findings:
        for step in finding.steps:
            e, found = step.estimate, step.detectable
            rows.append([
                f"{finding.part.name}: {figures.spelled(step.terms)}", str(e.n),
                finding.unit.number(e.sd, 2) if e.n > 1 else "n/a",
                "none of any size" if math.isinf(found) else finding.unit.change(found).lstrip("+"),
                p_value(step.flip_p), p_value(step.tost),
            ])  # fmt: skip
    if not rows:
        return ""
    header = [
        "compared",
        "seeds",
        "sd of the difference",
        "smallest difference found",
        "sign-flip p, no difference",
        "TOST p",
    ]
    return (
        "## What these seeds could have found\n\n"
        f"The smallest true difference that so many seeds find in {POWER:.0%} of such experiments, at the "
        "strictest step of "
        f"Holm's correction over {len(findings)} statement{'s' * (len(findings) != 1)}. With n paired seeds "
        "the smallest "
        f"possible p is 2/2ⁿ: fewer than {LEAST_SEEDS} seeds can support nothing at {ALPHA:.0%}.\n\n"
        + table(header, rows, range(1, 6))
    )


def cost(report: Report) -> str:
    sections = []
    for part in report.parts:
        found = cost_table(report, part)
        if len(found) < 2 or not figures.differing(found):
            continue
        drawn = figures.costs(part, found)
        same = [
            f"{label}: {found[name].mean():.3g}"
            for name, (label, _) in figures.COSTS.items()
            if name not in figures.differing(found) and found[name].notna().all()
        ]
        fronts = []
        for name in figures.differing(found):
            label, more = figures.COSTS[name]
            best = figures.pareto(found[name].tolist(), found["score"].tolist(), more_is_better=more)
            fronts.append(f"{label}: {', '.join(found.index[best])}")
        caption = (
            "Black outlines mark the Pareto front: no other arm is both cheaper and better. It goes by means alone; "
            f"whether arms differ at all is told above. On the front, by {'; '.join(fronts)}."
        )
        caption += f" The same for all arms: {'; '.join(same)}." if same else ""
        caption += " Speed is what the runs had: it compares only if nothing else ran beside them."
        sections.append(f"### {part.name}")
        sections.append(report.picture(f"cost_{slug(part.name)}", drawn, f"Result against cost, {part.name}", caption))
    return "\n\n".join(["## What it costs", *sections]) if sections else ""


def learning(report: Report) -> str:
    parts = [(part, of_part(report.curves, part)) for part in report.parts]
    parts = [(part, points) for part, points in parts if len(points)]
    if not parts:
        return ""
    caption = "Mean over seeds of the validation accuracy after each epoch; the band is its 95 % interval."
    drawn = report.picture("learning", figures.learning(parts), "Learning curves", caption)
    return f"## How it was learnt\n\n{drawn}"


def slug(name: str) -> str:
    """As a file name."""
    return re.sub(r"\W+", "_", name)


def matched(report: Report) -> str:
    """Validation accuracy at the budget of the arm that needs least, where arms differ in cost."""
    sections = []
    for part in report.parts:
        points = of_part(report.curves, part)
        prices = cost_table(report, part)
        if (
            not len(points)
            or len(prices) < 2
            or prices["model/gflops_train"].max() <= 1.01 * prices["model/gflops_train"].min()
        ):
            continue
        budgets = {view: points.groupby(["arm", "seed"])[view].max().groupby("arm").mean().min() for view in VIEWS}
        rows = [
            [arm, *(at_budget(points[points["arm"] == arm], view, budgets[view]) for view in VIEWS)]
            for arm in part.arms
        ]
        header = [
            part.name,
            f"same epochs: {budgets['epoch']:.4g}",
            f"same FLOPs: {budgets['gflops'] / 1e3:.3g} TFLOP",
            f"same time: {budgets['s']:.3g} s",
        ]
        sections.append(table(header, rows, range(1, 4)))
    if not sections:
        return ""
    note = (
        "Validation accuracy (mean and 95 % interval, t) when the budget of the cheapest arm is spent: "
        "epochs, training FLOPs, "
        "or seconds at steady throughput. Read off the learning curves, whose schedules were not shortened, "
        "so it understates "
        "the arms that are cut off."
    )
    return "\n\n".join(["## At equal cost", note, *sections])


def published(report: Report) -> str:
    if not report.study.published:
        return ""
    ours = {part.name: dict.fromkeys(part.arms, "") for part in report.parts}
    for part in report.parts:
        for arm in part.arms:
            cells = report.scores(part)
            values = cells[cells["arm"] == arm]["score"].dropna()
            ours[part.name][arm] = unit(part.metric).number(values.mean()) if len(values) else ""
    names = list(dict.fromkeys(name for row in report.study.published for name in map(str, row.figures)))
    rows = [
        [f"{row.source}{': ' + row.note if row.note else ''}", *(str(row.figures.get(name, "")) for name in names)]
        for row in report.study.published
    ]
    rows += [[f"**ours**, {part}", *(arms.get(name, "") for name in names)] for part, arms in ours.items()]
    return (
        "## Published figures beside ours\n\nAs printed there: other data, other networks, so only the order "
        "and the size of "
        "differences compare.\n\n" + table(["source", *names], rows, range(1, len(names) + 1))
    )


def without_result(report: Report) -> str:
    rows = report.cells[report.cells["status"] != "done"]
    if rows.empty:
        return ""
    listed = [
        [part, arm, status, ", ".join(str(int(seed)) for seed in sorted(seeds.dropna()))]
        for (part, arm, status), seeds in rows.groupby(["part", "arm", "status"])["seed"]
    ]
    return (
        "## Runs without a result\n\nNone is left out in silence: a comparison that lacks one is "
        "undetermined. A diverged run "
        "counts as guessing, where the study says what guessing gives.\n\n"
        + table(["part", "arm", "status", "seeds"], listed)
    )


def made_by(report: Report) -> str:
    done = report.cells[report.cells["status"] == "done"]
    rows = []
    for name in ("commit", "device", "python", "torch", "timm", "pytorch-lightning"):
        if name in done and done[name].notna().any():
            counts = done[name].value_counts()
            rows.append(
                [
                    name,
                    ", ".join(
                        f"{value} ({count} runs)" if len(counts) > 1 else str(value) for value, count in counts.items()
                    ),
                ]
            )
    lines = "\n".join(report.commands)
    runs = f"The runs:\n\n```\n{lines}\n```\n\n" if lines else ""
    return (
        "## How this was made\n\n"
        + (table(["", ""], rows) + "\n\n" if rows else "")
        + f"{runs}This page, `runs.csv` and every figure, from the records of those runs:\n\n```\n{report.again}\n```"
    )


def how_to_read(report: Report) -> str:
    return (
        "## How to read this\n\n"
        "- An *arm* is one design choice; each arm is run with the same list of *seeds*, and runs of equal "
        "seed start from equal "
        "weights and see the images in the same order. So arms are compared seed by seed.\n"
        "- The *95 % interval* of a difference is a BCa bootstrap over seeds (9,999 resamples); that of an "
        "arm is Student's t.\n"
        "- *p* is exact, by all flips of sign of the differences about the bound; for a statement of "
        "equality it is that of two "
        "one-sided t tests (TOST). *Holm* corrects for the number of statements in this study.\n"
        "- *Supported*: the whole interval lies where the statement is true and p after Holm is at most 5 %. "
        "*Refuted*: the "
        "whole interval lies outside, and likewise. *Undetermined*: everything else."
    )


def page(report: Report, text: str) -> str:
    """The Markdown as HTML, figures inside."""
    reader = MarkdownIt("commonmark").enable("table")
    body = reader.render(text)

    def inline(found: re.Match[str]) -> str:
        data = base64.b64encode(report.pictures[found[1]].encode()).decode()
        return f'src="data:image/svg+xml;base64,{data}"'

    body = re.sub(r'src="(\w[^":/]*\.svg)"', inline, body)
    kind = "" if report.sweep else f' class="verdict {report.judgement.verdict}"'
    body = body.replace("<blockquote>", f"<blockquote{kind}>", 1)
    return html.document(escape(report.study.question), body, STYLE)


def index(rows: Sequence[tuple[Study, Judgement | None, Mapping[str, str]]]) -> str:
    """experiments/README.md: one line for each study, with the verdict of its committed runs."""
    listed = []
    for study, judgement, links in rows:
        link = ", ".join(f"[{name}]({path})" for name, path in links.items())
        quote = f"“{study.quote}”"
        if judgement is None:
            listed.append([study.question, quote, "not run yet", "", link])
            continue
        first = next((f for f in judgement.findings if f.comparison.role == "claim"), None)
        effect = ""
        if first and first.steps[0].estimate.n:
            step = first.steps[0]
            effect = f"{first.part.name}: {figures.spelled(step.terms)} {spoken(first, step.estimate.mean)} "
            effect += f"({interval(first, step.estimate)})"
        verdict = f"{SIGNS[judgement.verdict]} **{judgement.verdict}**"
        listed.append([study.question, quote, verdict, effect, link])
    return (
        "# Studies\n\nEach was written before it was run, and its verdict is computed from intervals. Made by "
        "`python scripts/report.py --all`.\n\n"
        + table(["question", "claim", "verdict", "effect, 95 % interval", ""], listed)
        + "\n"
    )
