"""The way of an image as a table in a terminal."""

from collections.abc import Sequence
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from patchbench.pages.explain.bill import Bill
from patchbench.pages.explain.costs import costs
from patchbench.pages.explain.walk import Step


def print_walk(title: str, steps: Sequence[Step], bills: Sequence[Bill], page: Path) -> None:
    """What happens to the image, what it costs beside the other bills, and where the page with the figures is."""
    console = Console(highlight=False)
    console.print(f"\n[bold]{title}[/bold]", soft_wrap=True)
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("step", style="bold", overflow="fold")
    table.add_column("shape", justify="right", overflow="fold")
    table.add_column("values", justify="right", no_wrap=True)
    table.add_column("what happens", overflow="fold", ratio=1)
    for step in steps:
        values = f"{step.values:,}" if step.shape else ""
        table.add_row(step.name, step.spelled, values, step.note.replace("[", r"\["))
    console.print(table)
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("cost of one image", style="bold")
    for bill in bills:
        table.add_column(bill.name, justify="right", overflow="fold")
    for name, cells in costs(bills):
        table.add_row(name, *cells)
    console.print(table)
    console.print(f"{page}", soft_wrap=True, markup=False)
