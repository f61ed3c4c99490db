"""The project in W&B as a person sees it: a saved workspace of panels, each of metrics that runs log.

What runs log, and under which name: track/meter.py and `start_loggers` in commands/train.py.
"""

from collections.abc import Sequence
from typing import Any

import wandb_workspaces.reports.v2 as wr
import wandb_workspaces.workspaces as ws

from patchbench.track.wandb_run import STEP

FACTORS = ("embed", "patch", "pos", "data")
ACCURACY, SPEED, TIME = "test/acc", "final/images_per_s", "final/ms_per_image"
GPU, HOST = "final/gpu_peak_allocated_gib", "final/cpu_rss_gib"
COLUMNS = [f"config:{name}.value" for name in (*FACTORS, "model", "seed")]
COLUMNS += [f"summary:{name}" for name in (ACCURACY, "val/acc_best", SPEED, GPU, HOST, "time/wall_s")]
WIDE = wr.Layout(w=24, h=10)
HALF = wr.Layout(w=12, h=9)
MANY = 100  # most runs drawn in one panel


def line(title: str, *names: str, x: str = STEP) -> wr.LinePlot:
    return wr.LinePlot(title=title, x=x, y=list(names), max_runs_to_show=MANY)


def bars(title: str, name: str, by: str) -> wr.BarPlot:
    """The mean over runs of each level of a factor, with its standard error."""
    grouped: Any = {"groupby": wr.Config(by), "groupby_aggfunc": "mean", "groupby_rangefunc": "stderr"}
    return wr.BarPlot(title=title, metrics=[wr.SummaryMetric(name)], **grouped)


def scatter(title: str, x: str, *, front: bool) -> wr.ScatterPlot:
    """Accuracy against x, coloured by images/s. front: the best so far from the left, where less of x is better."""
    metrics: Any = {"x": wr.SummaryMetric(x), "y": wr.SummaryMetric(ACCURACY), "z": wr.SummaryMetric(SPEED)}
    return wr.ScatterPlot(title=title, **metrics, log_x=True, running_ymax=front, layout=HALF)


def trade_offs() -> list[Any]:
    """With their Pareto fronts.

    W&B draws a running maximum from the left. Over time and memory this is the front; images/s run the other way, so
    their front is drawn over their inverse.
    """
    return [
        scatter("test accuracy against images/s", SPEED, front=False),
        scatter("test accuracy against ms per image; the line is the Pareto front", TIME, front=True),
        scatter("test accuracy against GPU memory, GiB; the line is the Pareto front", GPU, front=True),
        scatter("test accuracy against host memory, GiB; the line is the Pareto front", HOST, front=True),
    ]


def factors() -> wr.ParallelCoordinatesPlot:
    column = wr.ParallelCoordinatesPlotColumn
    columns = [column(wr.Config(name)) for name in FACTORS]
    columns += [column(wr.SummaryMetric(SPEED), log=True), column(wr.SummaryMetric(ACCURACY))]
    return wr.ParallelCoordinatesPlot(title="factors, images/s, test accuracy", columns=columns, layout=WIDE)


def compared() -> wr.RunComparer:
    return wr.RunComparer(diff_only="split", layout=WIDE)


def pictures(keys: Sequence[str]) -> list[Any]:
    """A panel for each key that holds pictures."""
    if keys:
        return [wr.MediaBrowser(title=key, media_keys=[key], num_columns=3, layout=HALF) for key in keys]
    said = "No run has pictures below `analysis/` yet; once one has, `python scripts/publish.py` shows them here."
    return [wr.MarkdownPanel(markdown=said, layout=WIDE)]


def sections(keys: Sequence[str]) -> list[ws.Section]:
    """keys: of media that runs have logged below `analysis/`."""
    accuracy: list[Any] = [
        line("validation accuracy", "val/acc"),
        line("validation accuracy by time", "val/acc", x="RelativeTime(Wall)"),
        line("validation loss", "val/loss"),
        line("training loss", "train/loss"),
        line("training accuracy", "train/acc"),
        line("norm of the gradient", "train/grad_norm"),
        *(bars(f"test accuracy by {factor}", ACCURACY, factor) for factor in FACTORS),
    ]
    throughput: list[Any] = [
        line("images/s, all devices", "throughput/images_per_s"),
        line("tokens/s, all devices", "throughput/tokens_per_s"),
        line("ms per step, and of that waiting for data", "throughput/step_ms", "throughput/data_wait_ms"),
        line("share of time waiting for data", "throughput/data_wait_frac"),
        line("TFLOP/s per device", "throughput/tflops_per_gpu"),
        line("MFU, share of the bf16 peak", "throughput/mfu"),
        bars("images/s by embed", SPEED, "embed"),
        bars("images/s by pos", SPEED, "pos"),
    ]
    memory: list[Any] = [
        line("GPU: most that tensors took, GiB", "memory/gpu_peak_allocated_gib"),
        line("GPU: most that the allocator held, GiB", "memory/gpu_peak_reserved_gib"),
        line("GPU: allocations tried again", "memory/gpu_alloc_retries"),
        line("host: resident, GiB", "memory/cpu_rss_gib"),
        bars("GPU memory by embed, GiB", GPU, "embed"),
        bars("host memory by embed, GiB", HOST, "embed"),
    ]
    placed = ws.SectionLayoutSettings(columns=2, rows=2)
    return [
        ws.Section(name="accuracy", panels=accuracy, is_open=True),
        ws.Section(name="throughput", panels=throughput, is_open=True),
        ws.Section(name="memory", panels=memory, is_open=True),
        ws.Section(name="accuracy against speed and memory", panels=trade_offs(), is_open=True, layout_settings=placed),
        ws.Section(name="factors", panels=[factors()], is_open=True),
        ws.Section(name="runs compared", panels=[compared()]),
        ws.Section(name="learned pictures", panels=pictures(keys), is_open=True),
    ]


def workspace(entity: str, project: str, keys: Sequence[str]) -> ws.Workspace:
    return ws.Workspace(
        entity=entity,
        project=project,
        name="patch embeddings",
        sections=sections(keys),
        settings=ws.WorkspaceSettings(x_axis=STEP, max_runs=MANY),
        runset_settings=ws.RunsetSettings(
            filters=[ws.Metric("JobType") == "train"],
            order=[ws.Ordering(ws.Summary(ACCURACY), ascending=False)],
            pinned_columns=list(COLUMNS),
        ),
    )
