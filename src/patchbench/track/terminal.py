"""The results of a run, as text for a terminal."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from string import Formatter

from pytorch_lightning.utilities import rank_zero_only
from rich.console import Console

from patchbench.checks import Size
from patchbench.redact import without_secrets
from patchbench.runs.metrics import Number, metric

# Label and text of each row; {name} is a result of the record with its unit. A row with a missing result is left out.
# Of two rows with one label, the later counts if it is not left out: a CNN has no tokens, for example.
ROWS = (
    ("test accuracy", "{test/acc}, 95 % interval {test/acc_low} to {test/acc_high}, {test/images} images"),
    (
        "test accuracy",
        "{test/acc}, 95 % interval {test/acc_low} to {test/acc_high}, {test/right} of {test/images} images",
    ),
    ("validation accuracy", "{val/acc} at the end, {val/acc_best} at best"),
    ("throughput", "{final/images_per_s}"),
    ("throughput", "{final/images_per_s}, {final/tokens_per_s}"),
    ("step time", "{final/step_ms_median} median, {final/step_ms_p95} p95"),
    ("waiting for data", "{final/data_wait_frac} of the time"),
    ("compute", "{final/tflops_per_gpu} per device"),
    ("MFU", "{final/mfu} of the bf16 peak"),
    ("GPU memory, peak", "{final/gpu_peak_allocated_gib}, {final/gpu_peak_reserved_gib} reserved"),
    ("memory, peak", "{final/cpu_rss_gib} resident"),
    ("network", "{model/params} parameters, {model/gmacs} per image"),
    ("network", "{model/params} parameters, {model/gmacs} per image and {model/gmacs_per_step} per step"),
    ("input stage", "{model/grid} patches, {model/tokens} tokens"),
    ("wall time", "{time/wall_s}"),
)
IN_ROWS = {name for _, text in ROWS for _, name, _, _ in Formatter().parse(text) if name} | {"test/own_images"}
FILES = {
    "run.json": "the record: configuration, figures, versions, machine",
    "metrics.csv": "every metric, step by step",
    "predictions.csv": "the prediction for each test image, the worst first",
    "confusion.csv": "how often each label was predicted as which",
    "best.ckpt": "weights of the epoch with the best validation accuracy",
    "last.ckpt": "weights at the end of training",
    "analysis.html": "what the input stage learned, in pictures",
}


def rows(result: Mapping[str, Number | str]) -> dict[str, str]:
    """Return label and text of each row: those of ROWS, other results of the test split, views of the test images."""
    texts = {name: spell(name, value) for name, value in result.items()}
    filled = {}
    for label, text in ROWS:
        with suppress(KeyError):
            filled[label] = text.format(**texts)
    return filled | other_results(texts) | view_results(texts)


def view_results(texts: Mapping[str, str]) -> dict[str, str]:
    """Return a row for each view of the test images, such as test/canvas48/acc."""
    rows_of_views = {}
    for name in (name for name in texts if is_view(name) and name.endswith("/acc")):
        view = name.removesuffix("/acc")
        same = texts.get(f"{view}/same")
        same_class = "" if same is None else f"; {same} of the images keep their predicted class"
        rows_of_views[view.removeprefix("test/")] = texts[name] + same_class
    return rows_of_views


def other_results(texts: Mapping[str, str]) -> dict[str, str]:
    """Return a row for each result of the test split that ROWS does not contain."""
    names = (name for name in texts if name.startswith("test/") and name not in IN_ROWS)
    shown = (name for name in names if not (is_view(name) and name.endswith(("/acc", "/same", "/lost"))))
    return {metric(name).label: texts[name] for name in shown}


def is_view(name: str) -> bool:
    """True for the name of a result on a view of the test images."""
    return name.startswith("test/") and name.count("/") > 1


def spell(name: str, value: Number | str) -> str:
    """Spell a result with its unit; a percent sign follows the number without a space."""
    if isinstance(value, str):
        return value
    return metric(name).cell(value) if metric(name).unit == "%" else metric(name).value(value)


@rank_zero_only
def print_result(
    title: str, result: Mapping[str, Number | str], out_dir: Path | None = None, tested: str = "best"
) -> None:
    """Print the results in rows and, with `out_dir`, the files of the run. tested: best or last."""
    console = Console(soft_wrap=True, highlight=False)
    console.print(f"\n[bold]{title}[/bold]")
    for label, value in rows(result).items():
        console.print(f"  {label:<21}{value}")
    if out_dir:
        console.print(f"\n[bold]{out_dir}/[/bold]")
        for name, content in FILES.items():
            if (out_dir / name).exists():
                console.print(f"  {name:<21}{content}{', which were tested' * (name == f'{tested}.ckpt')}")


def spell_size(pair: Size) -> str:
    return f"{pair[0]}x{pair[1]}"


def spell_list(values: Sequence[float]) -> str:
    return f"({', '.join(f'{value:.4g}' for value in values)})"


@rank_zero_only
def say(line: str) -> None:
    """Print a line for the user, without passwords and tokens."""
    print(without_secrets(line), flush=True)
