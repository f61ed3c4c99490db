"""The steps of an image through the input stage, as a table in the terminal."""

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from patchbench.pages.explain.breakdown import CostBreakdown
from patchbench.pages.explain.costs import cost_rows
from patchbench.pages.explain.walk import Step


def print_walk(title: str, steps: Sequence[Step], breakdowns: Sequence[CostBreakdown]) -> None:
    """Print the steps of the image and the costs."""
    console = Console(highlight=False)
    console.print(f"\n[bold]{title}[/bold]", soft_wrap=True)
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("step", style="bold", overflow="fold")
    table.add_column("shape", justify="right", overflow="fold")
    table.add_column("values", justify="right", no_wrap=True)
    table.add_column("what happens", overflow="fold", ratio=1)
    for step in steps:
        values = f"{step.values:,}" if step.shape else ""
        table.add_row(step.name, step.shape_text, values, step.note.replace("[", r"\["))
    console.print(table)
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("cost of one image", style="bold")
    for breakdown in breakdowns:
        table.add_column(breakdown.name, justify="right", overflow="fold")
    for name, cells in cost_rows(breakdowns):
        table.add_row(name, *cells)
    console.print(table)
