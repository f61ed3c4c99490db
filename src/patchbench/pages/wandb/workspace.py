"""The workspace of a project in W&B, with a panel for each metric that runs log.

The metrics and their titles are in runs/metrics.py, their definitions in the docstring of track/meter.py.
"""

from collections.abc import Sequence
from typing import Any

import wandb_workspaces.reports.v2 as wr
import wandb_workspaces.workspaces as ws

from patchbench.runs.metrics import FACTORS, LESS, curves, main_metrics, metric
from patchbench.track.wandb_run import STEP

VARIED = tuple(name for name in FACTORS if name != "seed")
ACCURACY, SPEED, TIME = "test/acc", "final/images_per_s", "final/ms_per_image"
GPU, HOST = "final/gpu_peak_allocated_gib", "final/cpu_rss_gib"
WIDE = wr.Layout(w=24, h=10)
HALF = wr.Layout(w=12, h=9)
MANY = 100  # largest number of runs in one panel


def columns() -> list[str]:
    """List the columns that are pinned in the table of runs."""
    figures = dict.fromkeys([*main_metrics(), GPU, HOST])
    return [*(f"config:{name}.value" for name in FACTORS), *(f"summary:{name}" for name in figures)]


def title(name: str) -> str:
    """Return the label of a metric with its unit; without a percent sign, since W&B shows shares between 0 and 1."""
    row = metric(name)
    return row.label if row.unit == "%" else row.title


def line(name: str, *, x: str = STEP, over: str = "") -> wr.LinePlot:
    """Return a plot of a metric over `x`. over: addition to the title."""
    return wr.LinePlot(title=title(name) + over, x=x, y=[name], max_runs_to_show=MANY)


def bars(name: str, by: str) -> wr.BarPlot:
    """Return bars with the mean over the runs of each level of a factor, and its standard error."""
    grouped: Any = {"groupby": wr.Config(by), "groupby_aggfunc": "mean", "groupby_rangefunc": "stderr"}
    return wr.BarPlot(title=f"{title(name)} by {by}", metrics=[wr.SummaryMetric(name)], **grouped)


def scatter(x: str) -> wr.ScatterPlot:
    """Return a plot of accuracy against x, coloured by speed, with the Pareto front if W&B can draw it.

    W&B draws a running maximum from the left, which is the front if less of x is better.
    """
    front = metric(x).better == LESS
    metrics: Any = {"x": wr.SummaryMetric(x), "y": wr.SummaryMetric(ACCURACY), "z": wr.SummaryMetric(SPEED)}
    named = f"{title(ACCURACY)} against {title(x)}" + "; the line is the Pareto front" * front
    return wr.ScatterPlot(title=named, **metrics, log_x=True, running_ymax=front, layout=HALF)


def trade_offs() -> list[Any]:
    """Return plots of accuracy against speed and memory. The front of speed is that over ms per image."""
    return [scatter(x) for x in (SPEED, TIME, GPU, HOST)]


def factors() -> wr.ParallelCoordinatesPlot:
    column = wr.ParallelCoordinatesPlotColumn
    axes = [column(wr.Config(name)) for name in VARIED]
    axes += [column(wr.SummaryMetric(SPEED), log=True), column(wr.SummaryMetric(ACCURACY))]
    return wr.ParallelCoordinatesPlot(title="factors, speed, accuracy", columns=axes, layout=WIDE)


def compared() -> wr.RunComparer:
    return wr.RunComparer(diff_only="split", layout=WIDE)


def pictures(keys: Sequence[str]) -> list[Any]:
    """Return a panel for each key of pictures, or a note if there are none."""
    if keys:
        return [wr.MediaBrowser(title=key, media_keys=[key], num_columns=3, layout=HALF) for key in keys]
    text = "No run has pictures below `analysis/` yet; once one has, `python scripts/publish.py` shows them here."
    return [wr.MarkdownPanel(markdown=text, layout=WIDE)]


def sections(keys: Sequence[str]) -> list[ws.Section]:
    """Return all sections of the workspace. keys: names of the media that runs have logged below `analysis/`."""
    accuracy: list[Any] = [line(name) for stage in ("val", "train") for name in curves(stage)]
    accuracy.insert(1, line("val/acc", x="RelativeTime(Wall)", over=" by time"))
    accuracy += [bars(ACCURACY, factor) for factor in VARIED]
    throughput: list[Any] = [line(name) for name in curves("throughput")]
    throughput += [bars(SPEED, factor) for factor in ("embed", "pos")]
    memory: list[Any] = [line(name) for name in curves("memory")]
    memory += [bars(name, "embed") for name in (GPU, HOST)]
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
            filters="Metric('JobType') == 'train'",
            order=[ws.Ordering(ws.Summary(ACCURACY), ascending=False)],
            pinned_columns=columns(),
        ),
    )
