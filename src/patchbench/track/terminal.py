"""What came of a run, as a person reads it in a terminal."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from pytorch_lightning.utilities import rank_zero_only
from rich.console import Console

from patchbench.checks import Size
from patchbench.runs.metrics import ROWS

FILES = {
    "run.json": "the record: configuration, figures, versions, machine",
    "metrics.csv": "every metric, step by step",
    "predictions.csv": "what was said of each test image, the worst first",
    "confusion.csv": "which label was taken for what, and how often",
    "best.ckpt": "best by validation accuracy: what was tested",
    "last.ckpt": "after the last epoch",
    "analysis.html": "what the input stage learned, in pictures",
}


def rows(result: Mapping[str, float | str]) -> dict[str, str]:
    """Label and value of each row that the figures suffice for."""
    filled = {}
    for label, template in ROWS:
        with suppress(KeyError):
            filled[label] = template.format(**result)
    return filled | views(result)


def views(result: Mapping[str, float | str]) -> dict[str, str]:
    """A row for each thing that was asked beside the test images as they are."""
    found = {}
    for name, value in result.items():
        if name.startswith("test/") and name.endswith("/acc") and name != "test/acc":
            view = name.removesuffix("/acc")
            same = result.get(f"{view}/same")
            found[view.removeprefix("test/")] = f"{value:.2%}" + (
                "" if same is None else f", {same:.2%} same as unmoved"
            )
    return found


@rank_zero_only
def print_result(title: str, result: Mapping[str, float | str], out_dir: Path | None = None) -> None:
    """The figures in rows and, with `out_dir`, where everything lies."""
    console = Console(soft_wrap=True, highlight=False)
    console.print(f"\n[bold]{title}[/bold]")
    for label, value in rows(result).items():
        console.print(f"  {label:<21}{value}")
    if out_dir:
        console.print(f"\n[bold]{out_dir}/[/bold]")
        for name, what in FILES.items():
            if (out_dir / name).exists():
                console.print(f"  {name:<21}{what}")


def spell_size(pair: Size) -> str:
    return f"{pair[0]}x{pair[1]}"


def spell_list(values: Sequence[float]) -> str:
    return f"({', '.join(f'{value:.4g}' for value in values)})"


@rank_zero_only
def say(line: str) -> None:
    print(line, flush=True)
