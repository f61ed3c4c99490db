"""The page of a study: Markdown with its figures, and one HTML file with the same content."""

import base64
import math
import re
from html import escape

import pandas as pd
from markdown_it import MarkdownIt

from patchbench import html
from patchbench.pages.study import arms, effects, published, scaling, statements
from patchbench.pages.study.markdown import table
from patchbench.pages.study.numbers import Report
from patchbench.words import count

STYLE = """
blockquote { margin: 1.2rem auto; padding: .8rem 1.2rem; background: var(--card); border-left: 5px solid var(--soft);
             border-radius: 0 6px 6px 0; }
blockquote.yes { background: var(--marked); border-color: var(--mark); }
blockquote.no { background: #fbe6d8; border-color: #d55e00; color: #1d2327; }
blockquote p:first-child { font-size: 1.15rem; line-height: 1.4; }
table { font-size: .93rem; }
td[style*="right"] { white-space: nowrap; }
td:first-child { min-width: 9rem; }
figure + p { color: var(--soft); font-size: .95rem; }
ul { padding-left: 0; list-style: none; }
h2:last-of-type + ul { padding-left: 1.2rem; list-style: disc; }
figure { max-width: 1000px; margin-left: auto; margin-right: auto; }
"""
HOW_TO_READ = """## How to read this

- An *arm* is one design choice. All arms are trained with the same list of *seeds*, but seeds are not paired: two \
runs with the same seed are no more alike than two others.
- Two arms are compared with two tests, a permutation test on the numbers of correct answers and Welch's t test; the \
larger p value counts. The *interval* of a difference contains the values that at least one of the two does not \
reject, so interval and p value always agree. A single arm, or a sum of several, is measured with Student's t. If all \
seeds share the same test images and every answer is known, the choice of these images counts as a second source of \
error.
- A test of means cannot see failures so rare that they occur in none of these seeds: if 10 of 10 seeds succeed, up to \
31 % of all seeds may fail; if 6 of 6 succeed, up to 46 %.
- *Solved* counts the seeds that reach the threshold of the task. Intervals of shares are exact (Clopper and Pearson); \
those of differences of shares invert an exact unconditional test.
- *p* is two-sided. *p, corrected* takes the number of claims of the study into account (Holm).
- *Yes*: the whole interval lies where the statement is true. *No*: the whole interval lies outside. *Open*: the \
interval reaches across the bound. *By how much*: results still change between the two longest trainings, or it is not \
known whether they do, so only the amount after the longest training is reported."""


def markdown(report: Report) -> str:
    """Return the whole page as Markdown, and fill `report.pictures`."""
    if report.study.of_costs:
        sections = [head(report), arms.every_run(report), scaling.section(report), statements.statements(report)]
        sections += [doubts(report), scaling.every_arm(report), changed(report), provenance(report)]
        return "\n\n".join(section for section in sections if section) + "\n"
    sections = [
        head(report),
        arms.every_run(report),
        arms.ladders(report),
        statements.statements(report),
        effects.section(report),
        doubts(report),
        arms.every_arm(report),
        arms.tuning(report),
        statements.power(report),
        arms.costs(report),
        arms.learning(report),
        arms.equal_cost(report),
        published.section(report),
        without_result(report),
        changed(report),
        provenance(report),
        HOW_TO_READ,
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def head(report: Report) -> str:
    """Return the head of the page: the question, its answers, and the number of runs."""
    cells = report.cells
    made = "measurement" if report.study.of_costs else "run"
    planned = count(len(cells), made if report.sweep else f"planned {made}")
    have = "has" if len(cells) == 1 else "have"
    compared = len({(part.name, arm) for part in report.parts for arm in part.arms})
    counts = [
        f"{count(compared, 'arm')} in {count(len(report.parts), 'part')}",
        count(cells["seed"].nunique(), "round" if report.study.of_costs else "seed"),
    ]
    counts += [] if report.sweep else [f"scale `{report.scale}`"]
    counted = f"{int((cells['status'] == 'done').sum())} of {planned} {have} a result: {', '.join(counts)}."
    if report.study.of_costs:
        counted += f" Measured on {', '.join(cells['device'].dropna().unique())}." if "device" in cells else ""
        return "\n\n".join([f"# {report.study.question}", statements.answers(report), counted])
    if not math.isnan(hours := pd.to_numeric(cells.get("time/wall_s", pd.Series(dtype=float))).sum() / 3600):
        counted += f" The runs took {hours:.2g} hours in total."
    if report.tuned is None and not report.sweep:
        counted += " No arm was tuned: all use the settings of the study."
    title, recorded = f"# {report.study.question}", report.study.as_recorded
    sections = [title, statements.answers(report), counted, f"**Note:** {recorded}" if recorded else ""]
    return "\n\n".join(section for section in sections if section)


def doubts(report: Report) -> str:
    """Return the section on possible errors of the study."""
    return f"## Limits of this study\n\n{report.study.doubts}" if report.study.doubts else ""


def changed(report: Report) -> str:
    """Return the section on changes of the study since it was first written."""
    if not report.study.changes:
        return ""
    known = {True: "yes", False: "no"}
    rows = [[change.date, change.what, change.why, known[change.seen]] for change in report.study.changes]
    return "## Changes since the study was written\n\n" + table(["date", "what", "why", "results known"], rows)


def without_result(report: Report) -> str:
    """Return the section on runs without a result, by arm and status."""
    rows = report.cells[report.cells["status"] != "done"]
    if rows.empty:
        return ""
    listed = [
        [part, arm, status, ", ".join(str(int(seed)) for seed in sorted(seeds.dropna()))]
        for (part, arm, status), seeds in rows.groupby(["part", "arm", "status"])["seed"]
    ]
    return (
        "## Runs without a result\n\nA statement is open as long as one of its runs has no result. A diverged run "
        "counts as a run that guesses, if the study gives the accuracy of guessing.\n\n"
        + table(["part", "arm", "status", "seeds"], listed)
    )


def provenance(report: Report) -> str:
    """Return the section on code, machine and versions of the runs, and the commands that repeat them."""
    done = report.cells[report.cells["status"] == "done"]
    rows = []
    for name in ("commit", "device", "python", "torch", "timm", "pytorch-lightning"):
        if name in done and done[name].notna().any():
            counts = done[name].value_counts()
            several = len(counts) > 1
            shown = (f"{value} ({count(n, 'run')})" if several else str(value) for value, n in counts.items())
            rows.append([name, ", ".join(shown)])
    lines = "\n".join(report.commands)
    runs = f"The runs are made by:\n\n```\n{lines}\n```\n\n" if lines else ""
    return (
        "## How this was made\n\n"
        + (table(["", ""], rows) + "\n\n" if rows else "")
        + f"{runs}This page, `runs.csv` and every figure are made from the records of the runs by:\n\n"
        + f"```\n{report.again}\n```"
    )


def page(report: Report, text: str) -> str:
    """Convert the Markdown to HTML that contains the figures. text: Markdown."""
    reader = MarkdownIt("commonmark", {"html": False}).enable("table")  # a name in a record may look like HTML
    body = reader.render(text)

    def inline(image: re.Match[str]) -> str:
        if image[1] not in report.pictures:  # a name in a record that looks like an image
            return image[2]
        data = base64.b64encode(report.pictures[image[1]].encode()).decode()
        return f'<img src="data:image/svg+xml;base64,{data}" alt="{image[2]}" />'

    body = re.sub(r'<img src="([^"]*)" alt="([^"]*)"[^>]*>', inline, body)
    body = re.sub(r"<p>(<img [^>]*>)</p>", lambda match: f"<figure>{html.zoomable(match[1])}</figure>", body)
    body = body.replace("<table>", '<div class="scroll"><table>').replace("</table>", "</table></div>")
    body = re.sub(
        r"<blockquote>\s*<p><strong>(\w+)",
        lambda match: match[0].replace(">", f' class="{match[1].lower()}">', 1),
        body,
    )
    return html.article(escape(report.study.question), body, STYLE)
