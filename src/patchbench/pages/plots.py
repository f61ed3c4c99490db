"""Size, colours and axes of all figures, and mosaics of tiles."""

from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from patchbench.measure.places import Table

WIDTH = 11.0  # inches, which a page shows as 1100 pixels
DIVERGING, SEQUENTIAL = "PuOr_r", "viridis"
LOOK: Any = {"font.size": 10, "axes.titlesize": 11, "axes.spines.top": True, "savefig.facecolor": "white"}
OUTLINES = ["#0072B2", "#D55E00", "#009E73", "#CC79A7"]  # Okabe & Ito (2008): distinct for colour-blind readers too
TINTS = {"red": "#c1272d", "green": "#1a7f37", "blue": "#1f4fbf"}


def figure(height: float, width: float = WIDTH) -> Figure:
    """Return an empty figure; sizes in inches."""
    return Figure(figsize=(width, height), layout="constrained", dpi=150)


def channel_names(count: int) -> list[str]:
    """Name the channels of an image: red, green and blue if there are three, else numbers."""
    return list(TINTS) if count == 3 else [f"channel {i}" for i in range(count)]


def tint(name: str, i: int) -> str:
    """Return the colour of channel `i` with this name."""
    return TINTS.get(name, OUTLINES[i % len(OUTLINES)])


def colours(values: Float[Tensor, "c h w"]) -> np.ndarray:
    """Convert values in 0 ... 1 to an array for imshow: RGB, or grey unless there are three channels."""
    rgb = values if len(values) == 3 else values[:1].expand(3, -1, -1)
    return rgb.permute(1, 2, 0).clamp(0, 1).numpy()


def largest(*values: Tensor) -> float:
    """Return the largest absolute value, a limit for both signs that puts zero in the middle of the colour map."""
    return max(float(v.abs().max()) for v in values) or 1.0


def bare(ax: Axes, title: str = "", **knobs: Any) -> None:
    """Remove the ticks of an axis, and set its title."""
    ax.set_xticks([])
    ax.set_yticks([])
    if title:
        ax.set_title(title, **knobs)


def whole_numbers(*axes: Axes) -> None:
    """Set ticks at whole numbers only."""
    for ax in axes:
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_locator(MaxNLocator("auto", integer=True, min_n_ticks=1))


def outline(ax: Axes, top: int, left: int, height: int, width: int, colour: str, line: float = 2.0) -> None:
    """Draw a rectangle around pixels of an image, with a white rim that separates it from the colours of the image."""
    frame = Rectangle((left - 0.5, top - 0.5), width, height, fill=False, edgecolor=colour, linewidth=line)
    frame.set_path_effects([withStroke(linewidth=line + 2, foreground="white")])
    ax.add_patch(frame)


def mosaic(tiles: np.ndarray, gap: float = 1 / 12) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Join tiles to one image, with gaps of NaN; return the image, and the centres of the rows and columns of tiles.

    tiles: rows x columns x h x w, or rows x columns x h x w x rgb. gap: share of the side of a tile.
    """
    rows, cols, h, w = tiles.shape[:4]
    tall, wide = h + max(1, round(gap * h)), w + max(1, round(gap * w))
    canvas = np.full((rows * tall - (tall - h), cols * wide - (wide - w), *tiles.shape[4:]), np.nan)
    for r in range(rows):
        for c in range(cols):
            canvas[r * tall : r * tall + h, c * wide : c * wide + w] = tiles[r, c]
    return canvas, np.arange(rows) * tall + (h - 1) / 2, np.arange(cols) * wide + (w - 1) / 2


def tinted(values: Tensor, colour: str) -> np.ndarray:
    """Convert values in 0 ... 1 to colours, from black to a light tone of `colour`."""
    rgb = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    light = 0.25 + 0.75 * rgb
    return values.clamp(0, 1).numpy()[..., None] * (light / light.max())


def map_of_maps(ax: Axes, table: Table) -> None:
    """Draw the cosine similarity of each place with all places, a tile per place, with one scale in all figures."""
    h, w = table.similarity.shape[2:]
    canvas, rows, cols = mosaic(table.similarity.numpy())
    ax.imshow(canvas, cmap=DIVERGING, vmin=-1, vmax=1, interpolation="nearest")
    ax.set_xticks(cols, [str(c) for c in table.cols])
    ax.set_yticks(rows, [str(r) for r in table.rows])
    ax.set_xlabel("column of the place that is compared")
    ax.set_ylabel("row of the place that is compared")
    ax.set_title(f"each tile: one place against all {h} × {w}")
