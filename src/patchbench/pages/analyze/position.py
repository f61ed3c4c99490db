"""Figures of position: vectors, angles and biases, by place and by distance."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator
from torch import Tensor

from patchbench.measure.position import Bias, Positions
from patchbench.pages.analyze.scales import ENERGY
from patchbench.pages.plots import OUTLINES, SEQUENTIAL, figure, map_of_maps, whole_numbers

COLUMNS = 3  # of panels
MOST_PANELS = 6
TURN_TICKS = [-1, -0.1, -0.01, 0, 0.01, 0.1, 1]  # radians
LOGIT_TICKS = [-10, -1, -0.1, 0, 0.1, 1, 10]


def positions(p: Positions) -> Figure:
    """Draw the map of similarities, the singular values of the vectors, and the spectrum of the vectors."""
    fig = figure(4.4)
    maps, ax, waves = fig.subplots(1, 3, width_ratios=[1.35, 1, 1.1])
    map_of_maps(maps, p.table)
    fig.colorbar(maps.images[0], ax=maps, location="bottom", shrink=0.8, label="cosine similarity")
    values = p.singular.numpy()
    values = values[values > 1e-6]
    ax.semilogy(np.arange(1, len(values) + 1), values, color=OUTLINES[0], marker="." if len(values) < 40 else None)
    ax.set(ylim=(1e-5, 1.2), xlabel="number of the singular value", ylabel="share of their sum")
    ax.set_title("singular values, mean subtracted")
    ax.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
    h, w = p.energy.shape
    extent = (-(w // 2) - 0.5, w - w // 2 - 0.5, h - h // 2 - 0.5, -(h // 2) - 0.5)
    energy = p.energy.clamp_min(1e-9).numpy()
    energy[h // 2, w // 2] = np.nan  # the mean
    image = waves.imshow(energy, cmap=SEQUENTIAL, norm=ENERGY, extent=extent, interpolation="nearest")
    waves.set(xlabel="periods across the grid", ylabel="periods down the grid", title="energy by frequency (Fourier)")
    whole_numbers(waves)
    fig.colorbar(image, ax=waves, location="bottom", shrink=0.9, label="share of energy", extend="min")
    return fig


def rotation(turns: Float[Tensor, "blocks heads d 2"]) -> Figure:
    """Draw each pair of channels of each head at its angles per patch, down and across."""
    fig, axes, blocks = panels(len(turns), "every block")
    for ax, block in zip(axes, blocks, strict=False):
        for head, turn in enumerate(turns[block]):
            style = head_style(head) | {"marker": "osD^v*"[head // 4 % 6]}
            style |= {} if len(turns[block]) > 1 else {"label": "every head"}
            ax.scatter(turn[:, 1], turn[:, 0], s=20, alpha=0.8, linewidths=0, **style)
        for line in (ax.axhline, ax.axvline):
            line(0, color="#b0b0b0", linewidth=0.8, zorder=0)
        ax.set_xscale("symlog", linthresh=0.01, linscale=0.5)
        ax.set_yscale("symlog", linthresh=0.01, linscale=0.5)
        ax.set(xlim=(-math.pi, math.pi), ylim=(-math.pi, math.pi), aspect="equal", adjustable="box")
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_locator(FixedLocator(TURN_TICKS))
            axis.set_minor_locator(NullLocator())
            axis.set_major_formatter(FuncFormatter(lambda x, _: "" if abs(x) == 0.01 else tick_text(x)))
    label_outer(axes, len(blocks), "radians per patch, across", "radians per patch, down")
    legend(axes[min(COLUMNS, len(blocks)) - 1])
    return fig


def bias(b: Bias, img_size: tuple[int, int]) -> Figure:
    """Draw the mean bias at each distance, head by head."""
    fig, axes, blocks = panels(len(b.means), "every block")
    for ax, block in zip(axes, blocks, strict=False):
        for head, means in enumerate(b.means[block]):
            ax.plot(b.pixels, means, linestyle=["-", "--", ":", "-."][head // 4 % 4], **head_style(head))
        ax.axhline(0, color="#b0b0b0", linewidth=0.8, zorder=0)
        ax.set_yscale("symlog", linthresh=0.1)
        ax.set(xlim=(0, math.hypot(*img_size)), ylim=(-30, 30))
        ax.yaxis.set_major_locator(FixedLocator(LOGIT_TICKS))
        ax.yaxis.set_minor_locator(NullLocator())
        ax.yaxis.set_major_formatter(FuncFormatter(lambda x, _: tick_text(x)))
    label_outer(axes, len(blocks), "distance between patches (pixels)", "mean bias (logits)")
    legend(axes[min(COLUMNS, len(blocks)) - 1])
    return fig


def panels(count: int, name: str) -> tuple[Figure, Sequence[Axes], list[int]]:
    """Return a figure with a panel for each of some blocks, its axes, and the numbers of these blocks.

    count: number of blocks. name: title of the panel if there is one block.
    """
    blocks = some_blocks(count)
    rows = math.ceil(len(blocks) / COLUMNS)
    fig = figure(0.6 + 3.1 * rows)
    grid = fig.subplots(rows, COLUMNS, squeeze=False, sharex=True, sharey=True)
    axes = list(grid.ravel())
    for ax, block in zip(axes, blocks, strict=False):
        ax.set_title(name if count == 1 else f"block {block}")
    for ax in axes[len(blocks) :]:
        ax.set_visible(False)
    return fig, axes, blocks


def some_blocks(count: int) -> list[int]:
    """Return the numbers of at most MOST_PANELS blocks, evenly spaced, with the first and the last."""
    return torch.linspace(0, count - 1, min(count, MOST_PANELS)).round().long().unique().tolist()


def head_style(head: int) -> dict[str, Any]:
    """Return colour and label of a head."""
    return {"color": OUTLINES[head % 4], "label": f"head {head}"}


def tick_text(x: float) -> str:
    """Write a number with a true minus sign."""
    return f"{x:g}".replace("-", "−")


def label_outer(axes: Sequence[Axes], count: int, across: str, down: str) -> None:
    """Label the axes at the left and at the bottom of the panels."""
    for i, ax in enumerate(axes[:count]):
        if i + COLUMNS >= count:
            ax.set_xlabel(across)
            ax.xaxis.set_tick_params(labelbottom=True)
        if i % COLUMNS == 0:
            ax.set_ylabel(down)


def legend(ax: Axes) -> None:
    """Draw the legend beside the panels if it has at most 16 entries."""
    if len(ax.get_legend_handles_labels()[1]) <= 16:
        ax.legend(frameon=False, loc="center left", bbox_to_anchor=(1.02, 0.5))
