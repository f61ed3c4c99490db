"""Figures of the embedding: kernels with their spectra, and kernels by channel."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from patchbench.measure.kernels import NUM_IMAGES, Kernels
from patchbench.pages.analyze.scales import ENERGY, GREY
from patchbench.pages.plots import (
    DIVERGING,
    OUTLINES,
    SEQUENTIAL,
    channel_names,
    colours,
    figure,
    largest,
    mosaic,
    whole_numbers,
)

TILES = (4, 7)  # rows and columns of components


def kernels(k: Kernels) -> Figure:
    """Draw principal components as tiles, their spectrum, and the frequencies of the kernels."""
    fig = figure(3.5)
    parts: Any = fig.subfigures(1, 2, width_ratios=[1, 1.25])
    left, (middle, right) = parts[0].subplots(), parts[1].subplots(1, 2)
    c, h, w = k.weights.shape[1:]
    bound = 3 / (c * h * w) ** 0.5  # three times the value of a constant component of length 1
    tiles = np.ones((*TILES, h, w, 3))
    for i, component in enumerate(k.components):
        tiles[divmod(i, TILES[1])] = colours(0.5 + 0.5 * component / bound)
    canvas, rows, cols = mosaic(tiles, gap=0.3)
    left.imshow(np.nan_to_num(canvas, nan=1.0), interpolation="nearest")
    for i, share in enumerate(k.shares[: len(k.components)].tolist()):
        top = rows[i // TILES[1]] - h / 2
        left.text(cols[i % TILES[1]], top, f"{share:.1%}", fontsize=8, ha="center", va="bottom")
    left.axis("off")
    what = "kernels" if k.affine else f"derivative, mean of {NUM_IMAGES} images"
    left.set_title(f"components of the {what} ({h} × {w} pixels)", pad=16)

    ax = middle
    shares = k.shares.numpy()
    count = np.arange(1, len(shares) + 1)
    ax.plot(count, shares.cumsum(), color=OUTLINES[0], label="these kernels", marker="o" if len(count) == 1 else None)
    ax.plot(count, count / len(count), **GREY, label="all directions alike")
    ax.set(ylim=(0, 1.02), xlabel="number of components", ylabel="share of variance, summed up", title="spectrum")
    ax.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
    ax.legend(frameon=False, loc="lower right")

    ax = right
    image = ax.imshow(k.energy.clamp_min(1e-9).numpy(), cmap=SEQUENTIAL, norm=ENERGY, interpolation="nearest")
    ax.set(xlabel="half-periods across", ylabel="half-periods down", title="energy by frequency (DCT)")
    whole_numbers(ax)
    parts[1].colorbar(image, ax=ax, location="bottom", shrink=0.9, label="share of energy", extend="min")
    return fig


def channels(k: Kernels) -> Figure:
    """Draw the kernels with the largest norm, and below each its three channels."""
    strongest = k.weights.flatten(1).norm(dim=1).argsort(descending=True)[:10]
    bound = largest(k.weights[strongest])
    kernels = k.weights[strongest] / bound
    h, w = kernels.shape[2:]
    fig = figure(0.7 + 4 * 0.88 * h / w)
    together, slices = fig.subplots(2, 1, height_ratios=[1, 3.1])
    canvas, _, cols = mosaic(np.stack([colours(0.5 + 0.5 * kernel) for kernel in kernels])[None])
    together.imshow(np.nan_to_num(canvas, nan=1.0), interpolation="nearest")
    together.set_xticks(cols, [f"kernel {i}" for i in strongest.tolist()])
    together.set_yticks([(h - 1) / 2], ["together"])
    together.xaxis.tick_top()
    canvas, rows, _ = mosaic(kernels.transpose(0, 1).numpy())
    image = slices.imshow(canvas, cmap=DIVERGING, vmin=-1, vmax=1, interpolation="nearest")
    slices.set_xticks([])
    slices.set_yticks(rows, channel_names(3))
    for ax in (together, slices):
        ax.tick_params(length=0)
        ax.spines[:].set_visible(False)
    fig.colorbar(image, ax=[together, slices], shrink=0.7, label=f"weight / {bound:.2g}, the largest", pad=0.01)
    return fig
