"""The report of a study or sweep in W&B: its page, its figures, and panels of its runs."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import wandb_workspaces.reports.v2 as wr

from patchbench.pages.wandb.workspace import WIDE, columns, compared, factors, line, trade_offs

FIGURES = "figures/"  # prefix of the names of figures in the run that contains them
PICTURE = re.compile(r"!\[.*\]\((\w+)\.svg\)")
HEADINGS: dict[str, Any] = {"## ": wr.H2, "### ": wr.H3}
TITLE = 128  # largest number of characters of a title in W&B


def report(
    entity: str,
    project: str,
    page: str,
    *,
    figures_run: str,
    identities: Sequence[str],
    links: Mapping[str, Sequence[str]],
) -> wr.Report:
    """Convert a page to a report of W&B.

    page: Markdown, with its title in the first line and figures as `![...](name.svg)`. figures_run: id of the run that
    contains the figures. identities: runs that the panels show. links: Markdown links to runs, by arm.
    The run sets have no entity and no project, since the library would request them from the server.
    """
    title, _, body = page.partition("\n")
    shown = list(blocks(body, figures_run))
    return wr.Report(
        entity=entity,
        project=project,
        title=title.removeprefix("# ")[:TITLE],
        blocks=[wr.TableOfContents(), *shown, *runs(identities, links)],
        width="fluid",
    )


def blocks(page: str, figures_run: str) -> Iterator[Any]:
    """Yield the blocks of a page: headings, which the table of contents lists, panels for figures, and Markdown."""
    lines: list[str] = []
    fenced = False

    def text() -> Iterator[wr.MarkdownBlock]:
        block = "\n".join(lines).strip()
        lines.clear()
        if block:
            yield wr.MarkdownBlock(text=block)

    for each in page.splitlines():
        fenced ^= each.startswith("```")
        heading = next((mark for mark in HEADINGS if each.startswith(mark) and not fenced), None)
        picture = PICTURE.fullmatch(each)
        if heading or picture:
            yield from text()
        if heading:
            yield HEADINGS[heading](text=each.removeprefix(heading))
        elif picture:
            yield figure(picture[1], figures_run)
        else:
            lines.append(each)
    yield from text()


def figure(name: str, figures_run: str) -> wr.PanelGrid:
    """Return a panel with a figure of the run `figures_run`."""
    one = wr.Runset(name="figures", filters=f"Metric('ID') == '{figures_run}'")
    panel = wr.MediaBrowser(media_keys=[FIGURES + name], num_columns=1, layout=wr.Layout(w=24, h=14))
    return wr.PanelGrid(runsets=[one], hide_run_sets=True, panels=[panel])


def runs(identities: Sequence[str], links: Mapping[str, Sequence[str]]) -> Iterator[Any]:
    """Yield the section about the runs: links to them, and panels."""
    yield wr.H2(text="The runs")
    if links:
        rows = [f"| {arm} | {', '.join(each)} |" for arm, each in links.items()]
        yield wr.MarkdownBlock(text="\n".join(["| arm | seeds |", "|---|---|", *rows]))
    else:
        yield wr.MarkdownBlock(text="None of these runs was logged to W&B: train them with `logger=wandb`.")
    listed = ", ".join(f"'{identity}'" for identity in identities)
    chosen = wr.Runset(name="runs", filters=f"Config('identity') in [{listed}]", pinned_columns=columns())
    panels: list[Any] = [*trade_offs(), factors(), line("val/acc"), compared()]
    panels[-2].layout = WIDE
    yield wr.PanelGrid(runsets=[chosen], panels=panels)
