"""The terminal view of a sweep: its cells before they run, while they run, and their results."""

import json
import shlex
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from patchbench.sweep.cell import Cell
from patchbench.sweep.pool import Running
from patchbench.words import count

COLOURS = {"done": "green", "skipped": "green", "failed": "red", "invalid": "red", "stopped": "yellow"}
WORDS = {"skipped": "done before", "same": "same run as another cell"}
ENDED = ("done", "skipped", "same", "failed", "stopped", "invalid")


def duration(seconds: float) -> str:
    """Write a duration: 12 s, 3 min 05 s, 2 h 10 min."""
    s = round(seconds)
    if s < 60:
        return f"{s} s"
    return f"{s // 60} min {s % 60:02} s" if s < 3600 else f"{s // 3600} h {s % 3600 // 60:02} min"


def console(*, stderr: bool = False) -> Console:
    """Return a console as wide as the terminal; without a terminal, lines are neither cut nor folded."""
    terminal = Console(stderr=stderr, highlight=False)
    return terminal if terminal.is_terminal else Console(stderr=stderr, highlight=False, width=10_000)


def plain_table(*columns: str) -> Table:
    """Return an empty table without lines."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, justify="left" if column in ("cell", "state", "why", "grid") else "right")
    return table


def print_cells(cells: Sequence[Cell], estimate: Callable[[Cell], float | None], jobs: int) -> None:
    """Print tokens, parameters and multiply-accumulates of each cell, its state, and the estimate of its time."""
    table = plain_table("", "cell", "grid", "tokens", "parameters", "GMACs", "state", "time")
    for number, cell in enumerate(cells, 1):
        seconds = estimate(cell) if cell.state == "waiting" else 0.0
        shown = "" if cell.state != "waiting" else "unknown" if seconds is None else f"about {duration(seconds)}"
        costs = ["", "", "", ""]
        if cell.facts:
            facts = cell.facts
            tokens = f"{facts.tokens:,}" if facts.tokens else ""
            costs = [facts.grid, tokens, f"{facts.params:,}", f"{facts.gmacs:.3g}"]
        table.add_row(str(number), Text(cell.title), *costs, state_text(cell), shown)
    console().print(table)
    console().print()
    print_costs(cells, estimate, jobs)


def print_costs(cells: Sequence[Cell], estimate: Callable[[Cell], float | None], jobs: int) -> None:
    """Print the number of cells by state, and the estimated time of all cells."""
    times = [estimate(cell) for cell in cells if cell.state == "waiting"]
    known = [seconds for seconds in times if seconds is not None]
    total = f"about {total_time(known, jobs)}"
    if unknown := len(times) - len(known):
        why = "no similar cell was measured here"
        total = f"{total}, and {count(unknown, 'cell')} for which {why}" if known else f"unknown: {why}"
    console().print(f"{count_by_state(cells)}; {jobs} at a time, time in all: {total}")


def total_time(seconds: Sequence[float], jobs: int) -> str:
    """Spell the total time of cells of these durations, `jobs` at a time."""
    return duration(max(sum(seconds) / jobs, max(seconds, default=0.0)))


def state_text(cell: Cell) -> Text:
    """Return the state of a cell as coloured text."""
    state = WORDS.get(cell.state, cell.state)
    if cell.same_as:
        state = f"same run as {cell.same_as.title}"
    if cell.state == "waiting":
        state = "resumes" if (cell.folder / "last.ckpt").exists() else "to run"
    return Text(state, COLOURS.get(cell.state, ""))


def count_by_state(cells: Sequence[Cell]) -> str:
    """Spell the numbers of cells by state: 24 cells: 10 done, 2 running, ..."""
    counts = Counter(cell.state for cell in cells)
    return f"{count(len(cells), 'cell')}: " + ", ".join(
        f"{counts[state]} {WORDS.get(state, state)}"
        for state in ("done", "skipped", "same", "running", "failed", "stopped", "invalid", "waiting")
        if counts[state]
    )


def print_invalid(cells: Sequence[Cell]) -> None:
    """Print every cell that cannot run, with the reason and the cure."""
    table = plain_table("cell", "why")
    table.columns[1].overflow = "fold"
    for cell in cells:
        table.add_row(Text(cell.title), Text(cell.error))
    console(stderr=True).print(table)


def print_report_command(runs_dir: str) -> None:
    """Print the command that compares the runs of a sweep."""
    print(f"python scripts/report.py {shlex.quote(runs_dir)} compares all runs of this folder")


class View:
    """The view while a sweep runs: a live screen in a terminal, else a line for each cell that ends."""

    def __init__(
        self,
        name: str,
        cells: Sequence[Cell],
        running: list[Running],
        estimate: Callable[[Cell], float | None],
        jobs: int,
    ) -> None:
        self.name, self.cells, self.running, self.estimate, self.jobs = name, cells, running, estimate, jobs
        self.console = console()
        self.began = time.monotonic()
        self.stack = ExitStack()
        self.live: Live | None = None

    def __enter__(self) -> "View":
        if self.console.is_terminal:
            live = Live(console=self.console, get_renderable=self.screen, refresh_per_second=2, transient=True)
            self.live = self.stack.enter_context(live)
        return self

    def __exit__(self, *_: object) -> None:
        self.stack.close()

    def ended(self, cell: Cell) -> None:
        """Print a line for a cell that has ended, above the screen if there is one."""
        ended = sum(cell.state in ENDED for cell in self.cells)
        line = Text(f"{ended:>{len(str(len(self.cells)))}}/{len(self.cells)} ")
        line.append(f"{WORDS.get(cell.state, cell.state):<8}", COLOURS.get(cell.state, ""))
        line.append(f" {cell.title}")
        if cell.state == "done":
            line.append(f"  val acc {cell.value:.1%}, {duration(cell.seconds)}")
        elif cell.state == "failed":
            line.append(f"  {cell.error}; {cell.log}")
        self.console.print(line, soft_wrap=True)

    def screen(self) -> RenderableType:
        """Return a progress bar of the whole sweep, and one for each running cell."""
        lines: list[RenderableType] = []
        can_run = [cell.state for cell in self.cells if cell.state not in ("invalid", "same")]
        finished = sum(state in ENDED for state in can_run)
        top = Table.grid(padding=(0, 2))
        top.add_row(
            Text(self.name, "bold"),
            ProgressBar(len(can_run) or 1, finished, width=30),
            f"{duration(time.monotonic() - self.began)} so far",
            f"{self.left()} left",
        )
        lines += [Text(), top, Text(count_by_state(self.cells))]
        table = Table.grid(padding=(0, 2))
        room = max(1, self.console.height - 6)
        for attempt in self.running[:room]:
            step, total, figures = progress(attempt.cell.progress)
            table.add_row(
                Text(attempt.cell.title),
                ProgressBar(total or 1, step, width=16),
                f"{step}/{total}" if total else "starts",
                duration(time.monotonic() - attempt.began),
                Text(figures, no_wrap=True, overflow="ellipsis"),
            )
        return Group(*lines, table)

    def left(self) -> str:
        """Spell the remaining time, from the speed of running cells and the estimates of waiting cells."""
        seconds = []
        for attempt in self.running:
            step, total, _ = progress(attempt.cell.progress)
            taken = time.monotonic() - attempt.began
            guess = self.estimate(attempt.cell)
            if step:
                seconds.append(taken * (total - step) / step)
            elif guess is not None:
                seconds.append(max(0.0, guess - taken))
            else:
                return "unknown time"
        for cell in self.cells:
            if cell.state == "waiting":
                guess = self.estimate(cell)
                if guess is None:
                    return "unknown time"
                seconds.append(guess)
        return f"about {total_time(seconds, self.jobs)}"


def progress(file: Path) -> tuple[int, int, str]:
    """Read the number of steps done, of all steps, and metrics as text; 0, 0 before training, or for a damaged file."""
    try:
        state = json.loads(file.read_text())
        return int(state["step"]), int(state["total"]), str(state["figures"])
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return 0, 0, ""


def print_results(cells: Sequence[Cell]) -> None:
    """Print the result of every cell: accuracy, or error and path of the log."""
    table = plain_table("", "cell", "val acc", "time", "state")
    for number, cell in enumerate(cells, 1):
        value = "" if cell.value is None else f"{cell.value:.2%}"
        seconds = duration(cell.seconds) if cell.attempts else ""
        table.add_row(str(number), Text(cell.title), value, seconds, state_text(cell))
    out = console()
    if len(cells) > 1:  # for a single cell, as in a search, its own line is enough
        out.print()
        out.print(table)
    for cell in cells:
        if cell.state == "failed":
            tries = f" ({cell.attempts} attempts)" if cell.attempts > 1 else ""
            out.print(
                Text.assemble(("\nfailed ", "red"), cell.title, tries, f"\n  {cell.error}\n  {cell.log}"),
                soft_wrap=True,
            )
    if len(cells) > 1:
        out.print(f"\n{count_by_state(cells)}")
