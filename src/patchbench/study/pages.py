"""The pages of a study: Markdown with its figures, the same as one HTML file, and the table of all studies."""

import base64
import math
import re
from collections.abc import Mapping, Sequence
from html import escape

import pandas as pd
from markdown_it import MarkdownIt

from patchbench import html
from patchbench.study import arms, statements
from patchbench.study.claim import Study
from patchbench.study.markdown import table
from patchbench.study.numbers import Report, interval, sum_of_arms, with_unit
from patchbench.study.statements import SIGNS
from patchbench.study.verdict import Judgement
from patchbench.words import count

STYLE = """
blockquote { margin: 1.2rem 0; padding: .8rem 1.2rem; background: var(--card); border-left: 5px solid var(--soft);
             border-radius: 0 6px 6px 0; }
blockquote.supported { background: var(--marked); border-color: var(--mark); }
blockquote.refuted { background: #fbe6d8; border-color: #d55e00; color: #1d2327; }
blockquote.undetermined { background: #ececec; border-color: #6b6b6b; color: #1d2327; }
blockquote.verdict p:first-child { font-size: 1.25rem; line-height: 1.4; }
table { font-size: .93rem; }
td[style*="right"] { white-space: nowrap; }
td:first-child { min-width: 9rem; }
figure + p { color: var(--soft); font-size: .95rem; }
ul { padding-left: 0; list-style: none; }
h2:last-of-type + ul { padding-left: 1.2rem; list-style: disc; }
figure { max-width: 1000px; margin-left: auto; margin-right: auto; }
"""
HOW_TO_READ = """## How to read this

- An *arm* is one design choice; each arm is run with the same list of *seeds*, and runs of equal seed start from \
equal weights and see the images in the same order. So arms are compared seed by seed.
- The *95 % interval* of a difference is a BCa bootstrap over seeds (9,999 resamples); that of an arm is Student's t, \
printed up to 0 and 100 % where it reaches beyond.
- *p* is exact, by all flips of sign of the differences about the bound; for a statement of equality it is that of two \
one-sided t tests (TOST). *Holm* corrects for the number of statements in this study.
- *Supported*: the whole interval lies where the statement is true and p after Holm is at most 5 %. *Refuted*: the \
whole interval lies outside, and likewise. *Undetermined*: everything else."""


def markdown(report: Report) -> str:
    """Write the whole page; this fills `report.pictures`."""
    sections = [
        head(report),
        arms.every_run(report),
        statements.statements(report),
        arms.every_arm(report),
        arms.tuning(report),
        statements.power(report),
        arms.costs(report),
        arms.learning(report),
        arms.equal_cost(report),
        arms.published(report),
        without_result(report),
        provenance(report),
        HOW_TO_READ,
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def head(report: Report) -> str:
    """The question, the verdict, and the number of runs."""
    cells = report.cells
    planned = count(len(cells), "run" if report.sweep else "planned run")
    have = "has" if len(cells) == 1 else "have"
    compared = len({(part.name, arm) for part in report.parts for arm in part.arms})
    counts = [f"{count(compared, 'arm')} in {count(len(report.parts), 'part')}", count(cells["seed"].nunique(), "seed")]
    counts += [] if report.sweep else [f"scale `{report.scale}`"]
    counted = f"{int((cells['status'] == 'done').sum())} of {planned} {have} a result: {', '.join(counts)}."
    if not math.isnan(hours := pd.to_numeric(cells.get("time/wall_s", pd.Series(dtype=float))).sum() / 3600):
        counted += f" They took {hours:.2g} hours, one after another."
    title = f"# {report.study.question}"
    return "\n\n".join([title, counted] if report.sweep else [title, statements.verdict(report), counted])


def without_result(report: Report) -> str:
    """The runs that have no result, by arm and status."""
    rows = report.cells[report.cells["status"] != "done"]
    if rows.empty:
        return ""
    listed = [
        [part, arm, status, ", ".join(str(int(seed)) for seed in sorted(seeds.dropna()))]
        for (part, arm, status), seeds in rows.groupby(["part", "arm", "status"])["seed"]
    ]
    return (
        "## Runs without a result\n\nNone is left out in silence: a comparison that lacks one is undetermined. A "
        "diverged run counts as guessing, where the study says what guessing gives.\n\n"
        + table(["part", "arm", "status", "seeds"], listed)
    )


def provenance(report: Report) -> str:
    """Code, machine and versions of the runs, and the commands that repeat them."""
    done = report.cells[report.cells["status"] == "done"]
    rows = []
    for name in ("commit", "device", "python", "torch", "timm", "pytorch-lightning"):
        if name in done and done[name].notna().any():
            counts = done[name].value_counts()
            several = len(counts) > 1
            shown = (f"{value} ({count(n, 'run')})" if several else str(value) for value, n in counts.items())
            rows.append([name, ", ".join(shown)])
    lines = "\n".join(report.commands)
    runs = f"The runs:\n\n```\n{lines}\n```\n\n" if lines else ""
    return (
        "## How this was made\n\n"
        + (table(["", ""], rows) + "\n\n" if rows else "")
        + f"{runs}This page, `runs.csv` and every figure, from the records of those runs:\n\n```\n{report.again}\n```"
    )


def page(report: Report, text: str) -> str:
    """The Markdown as HTML with the figures inside."""
    reader = MarkdownIt("commonmark").enable("table")
    body = reader.render(text)

    def inline(source: re.Match[str]) -> str:
        data = base64.b64encode(report.pictures[source[1]].encode()).decode()
        return f'src="data:image/svg+xml;base64,{data}"'

    body = re.sub(r'src="(\w[^":/]*\.svg)"', inline, body)
    body = re.sub(r"<p>(<img [^>]*>)</p>", lambda found: f"<figure>{html.zoomable(found[1])}</figure>", body)
    body = body.replace("<table>", '<div class="scroll"><table>').replace("</table>", "</table></div>")
    kind = "" if report.sweep else f' class="verdict {report.judgement.verdict}"'
    body = body.replace("<blockquote>", f"<blockquote{kind}>", 1)
    return html.article(escape(report.study.question), body, STYLE)


def index(rows: Sequence[tuple[Study, Judgement | None, Mapping[str, str]]]) -> str:
    """experiments/README.md: a line for each study, with the verdict of its committed runs."""
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
            effect = f"{first.part.name}: {sum_of_arms(step.terms)} {with_unit(first, step.estimate.mean)} "
            effect += f"({interval(first, step.estimate)})"
        verdict = f"{SIGNS[judgement.verdict]} **{judgement.verdict}**"
        listed.append([study.question, quote, verdict, effect, link])
    return (
        "# Studies\n\nEach was written before it was run, and its verdict is computed from intervals. Made by "
        "`python scripts/report.py --all`.\n\n"
        + table(["question", "claim", "verdict", "effect, 95 % interval", ""], listed)
        + "\n"
    )
