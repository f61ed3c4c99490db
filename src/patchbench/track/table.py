"""What came of a run, as a person reads it in a terminal."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from pytorch_lightning.utilities import rank_zero_only
from rich.console import Console

from patchbench.layout import Size

# A row, and how the figures of the record make it; it is left out where one of them is not there. Of two with one
# label the later one counts, unless it is left out: a CNN has no tokens.
ROWS = (
    (
        "test accuracy",
        "{test/acc:.2%}, 95 % interval {test/acc_low:.1%} to {test/acc_high:.1%}, {test/images:,} images",
    ),
    ("validation accuracy", "{val/acc_best:.2%}  at best"),
    ("throughput", "{final/images_per_s:,.0f} images/s"),
    ("throughput", "{final/images_per_s:,.0f} images/s, {final/tokens_per_s:,.0f} tokens/s"),
    ("step time", "{final/step_ms_median:.1f} ms median, {final/step_ms_p95:.1f} ms p95"),
    ("waiting for data", "{final/data_wait_frac:.1%} of the time"),
    ("compute", "{final/tflops_per_gpu:.3g} TFLOP/s per device"),
    ("MFU", "{final/mfu:.1%} of the bf16 peak"),
    ("GPU memory, peak", "{final/gpu_peak_allocated_gib:.2f} GiB, {final/gpu_peak_reserved_gib:.2f} GiB reserved"),
    ("memory, peak", "{final/cpu_rss_gib:.2f} GiB resident"),
    ("network", "{model/params:,} parameters, {model/gmacs:.4g} GMACs per image"),
    ("input stage", "{model/grid} patches, {model/tokens:,} tokens"),
    ("wall time", "{time/wall_s:.0f} s"),
)
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
