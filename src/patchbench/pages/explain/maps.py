"""Figures of position: similarity, angles, biases and mixing, as maps over the grid."""

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor

from patchbench.checks import Size
from patchbench.measure.places import BiasMaps, Mixing, RotationMaps, Table
from patchbench.pages.plots import DIVERGING, SEQUENTIAL, WIDTH, bare, figure, largest, map_of_maps, whole_numbers
from patchbench.words import count


def similarity(table: Table) -> Figure:
    """Draw the map of similarities, and the vectors of the middle row of the grid."""
    h, w = table.similarity.shape[2:]
    fig = figure(5.4)
    ax, row = fig.subplots(1, 2, width_ratios=[1.1, 1])
    map_of_maps(ax, table)
    fig.colorbar(ax.images[0], ax=ax, shrink=0.85, label="cosine similarity")
    middle = table.vectors[h // 2].T
    bound = largest(middle)
    shown = row.imshow(middle.numpy(), cmap=DIVERGING, vmin=-bound, vmax=bound, aspect="auto", interpolation="nearest")
    row.set_title(f"row {h // 2}: {count(w, 'vector')}")
    whole_numbers(row)
    row.set_xlabel("column of the grid")
    row.set_ylabel(f"value, 0 to {len(middle) - 1}")
    fig.colorbar(shown, ax=row, shrink=0.85, label="added to the token")
    return fig


def angles(turn: RotationMaps) -> Figure:
    """Draw a map of the angles for each channel of `turn`."""
    number = len(turn.channels)
    h, w = turn.angles.shape[1:]
    fig = figure(0.7 + WIDTH / max(number, 5) * h / w * 0.9)
    axes = fig.subplots(1, number, squeeze=False)[0]
    for ax, channel, values in zip(axes, turn.channels, turn.angles, strict=True):
        # The colour map is cyclic, since pi and -pi are the same angle.
        shown = ax.imshow(values.numpy(), cmap="twilight", vmin=-np.pi, vmax=np.pi, interpolation="nearest")
        bare(ax, f"channel {channel}", fontsize=10)
    bar = fig.colorbar(shown, ax=list(axes), shrink=0.9, label="angle", pad=0.01)
    bar.set_ticks([-np.pi, 0, np.pi], labels=["−π", "0", "π"])
    return fig


def score(turn: RotationMaps) -> Figure:
    """Draw the score of a query with equal keys."""
    heads = [f"head {i}" for i in range(len(turn.score))] if turn.num_heads > 1 else ["every head"]
    return over_grid(turn.score, turn.queries, "mean cosine", SEQUENTIAL, heads)


def biases(shift: BiasMaps) -> Figure:
    """Draw the bias of some queries for all keys."""
    heads = [f"head {i}" for i in shift.heads] if shift.num_heads > 1 else ["every head"]
    return over_grid(shift.logits, shift.queries, "added to the logit", DIVERGING, heads)


def over_grid(
    maps: Float[Tensor, "heads q h w"], queries: list[Size], label: str, cmap: str, heads: list[str]
) -> Figure:
    """Draw a row of maps per head and a column per query; a circle marks the query."""
    h, w = maps.shape[2:]
    fig = figure(0.6 + len(maps) * WIDTH / max(len(queries), 5) * h / w * 0.85)
    axes = fig.subplots(len(maps), len(queries), squeeze=False)
    finite = maps[maps.isfinite()]
    high = float(finite.max()) if finite.numel() else 1.0
    low = float(finite.min()) if finite.numel() else 0.0
    if cmap == DIVERGING:
        high = largest(finite)
        low = -high
    for i, row in enumerate(axes):
        for j, (query, ax) in enumerate(zip(queries, row, strict=True)):
            shown = ax.imshow(maps[i, j].numpy(), cmap=cmap, vmin=low, vmax=high, interpolation="nearest")
            ax.plot(
                query[1],
                query[0],
                "o",
                markersize=7,
                markerfacecolor="none",
                markeredgecolor="#D55E00",
                markeredgewidth=1.6,
            )
            bare(ax, f"query at {query[0]}, {query[1]}" if i == 0 else "", fontsize=10)
            if j == 0:
                ax.set_ylabel(heads[i])
    fig.colorbar(shown, ax=axes.ravel().tolist(), shrink=0.9, label=label, pad=0.01)
    return fig


def kernels(mixing: Mixing) -> Figure:
    """Draw the response of one place to its neighbours, for some channels."""
    number = len(mixing.channels)
    h, w = mixing.kernels.shape[1:]
    fig = figure(0.6 + WIDTH / max(number, 6) * h / w * 0.95)
    axes = fig.subplots(1, number, squeeze=False)[0]
    bound = largest(mixing.kernels)
    for ax, channel, values in zip(axes, mixing.channels, mixing.kernels, strict=True):
        shown = ax.imshow(values.numpy(), cmap=DIVERGING, vmin=-bound, vmax=bound, interpolation="nearest")
        bare(ax, f"value {channel}", fontsize=9)
    fig.colorbar(shown, ax=list(axes), shrink=0.9, label="response", pad=0.01)
    return fig


def mean_length(vectors: Float[Tensor, "h w d"]) -> float:
    """Return the mean length of the vectors of a grid."""
    return float(torch.linalg.vector_norm(vectors, dim=-1).mean())
