"""A report of a study or sweep in W&B: its page, its figures, and panels of its runs."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import wandb_workspaces.reports.v2 as wr

from patchbench.pages.wandb.workspace import COLUMNS, WIDE, compared, factors, line, trade_offs

FIGURES = "figures/"  # of the run that holds them, by file name
PICTURE = re.compile(r"!\[.*\]\((\w+)\.svg\)")
HEADINGS: dict[str, Any] = {"## ": wr.H2, "### ": wr.H3}
TITLE = 128  # most characters that W&B takes for a title


def report(
    entity: str,
    project: str,
    page: str,
    *,
    figures_run: str,
    identities: Sequence[str],
    links: Mapping[str, Sequence[str]],
) -> wr.Report:
    """page: Markdown, with its title in the first line and figures as `![...](name.svg)`.

    figures_run: the id of the run that holds them. identities: of the runs whose panels are shown. links: Markdown
    links to runs, by arm. Entity and project are left off the run sets, where they would be asked of the server.
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
    """Headings as headings, so that they are in the table of contents; figures as panels; all else as Markdown."""
    kept: list[str] = []
    fenced = False

    def text() -> Iterator[wr.MarkdownBlock]:
        said = "\n".join(kept).strip()
        kept.clear()
        if said:
            yield wr.MarkdownBlock(text=said)

    for written in page.splitlines():
        fenced ^= written.startswith("```")
        heading = next((mark for mark in HEADINGS if written.startswith(mark) and not fenced), None)
        picture = PICTURE.fullmatch(written)
        if heading or picture:
            yield from text()
        if heading:
            yield HEADINGS[heading](text=written.removeprefix(heading))
        elif picture:
            yield figure(picture[1], figures_run)
        else:
            kept.append(written)
    yield from text()


def figure(name: str, figures_run: str) -> wr.PanelGrid:
    one = wr.Runset(name="figures", filters=f"Metric('ID') == '{figures_run}'")
    panel = wr.MediaBrowser(media_keys=[FIGURES + name], num_columns=1, layout=wr.Layout(w=24, h=14))
    return wr.PanelGrid(runsets=[one], hide_run_sets=True, panels=[panel])


def runs(identities: Sequence[str], links: Mapping[str, Sequence[str]]) -> Iterator[Any]:
    yield wr.H2(text="The runs")
    if links:
        rows = [f"| {arm} | {', '.join(each)} |" for arm, each in links.items()]
        yield wr.MarkdownBlock(text="\n".join(["| arm | seeds |", "|---|---|", *rows]))
    else:
        yield wr.MarkdownBlock(text="None of these runs was logged to W&B: train them with `logger=wandb`.")
    listed = ", ".join(f"'{identity}'" for identity in identities)
    chosen = wr.Runset(name="runs", filters=f"Config('identity') in [{listed}]", pinned_columns=list(COLUMNS))
    panels: list[Any] = [*trade_offs(), factors(), line("validation accuracy", "val/acc"), compared()]
    panels[-2].layout = WIDE
    yield wr.PanelGrid(runsets=[chosen], panels=panels)
