"""The pictures of what was measured. Scales are fixed, so that those of two networks can be laid side by side."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator
from scipy.stats import binomtest
from torch import Tensor

from patchbench.measure.field import extent
from patchbench.measure.summary import FIELD_SHARE, SLOPES, Attended, Bias, Kernels, Measures, Positions
from patchbench.pages.plots import (
    DIVERGING,
    OUTLINES,
    SEQUENTIAL,
    bare,
    channel_names,
    colours,
    figure,
    limit,
    map_of_maps,
    mosaic,
    whole_numbers,
)

GREY: Any = {"color": "#606060", "linestyle": "--", "linewidth": 1.2}
ENERGY = LogNorm(1e-5, 1, clip=True)
TILES, COLUMNS = (4, 7), 3
TURN = [-1, -0.1, -0.01, 0, 0.01, 0.1, 1]
LOGITS = [-10, -1, -0.1, 0, 0.1, 1, 10]
FIELDS = {
    "embedding": "of the embedding",
    "network": "after the last block",
    "resnet18": "of an untrained ResNet-18",
}


def pictures(m: Measures, robust: Mapping[str, float]) -> dict[str, Figure]:
    """By name; those that this network has. robust: `<view>/acc`, `<view>/same`, and the number of `images`."""
    found = {}
    if m.kernels:
        found["kernels"] = kernels(m.kernels)
        if m.kernels.weights.shape[1] == 3:
            found["channels"] = channels(m.kernels)
    for place, told in m.positions.items():
        found[f"positions_{place}"] = positions(told)
    if m.turns is not None:
        found["rotation"] = rotation(m.turns)
    if m.bias:
        found["bias"] = bias(m.bias, m.img_size)
    if m.attended:
        found["distance"] = distance(m.attended, m.img_size)
        found["rollout"] = rollout(m.attended.rollout, m.images)
    if m.fields:
        found["fields"] = fields(m.fields)
    if m.readout:
        found["readout"] = readout(m.readout)
    if robust:
        found["robustness"] = robustness(robust)
    return found


def kernels(k: Kernels) -> Figure:
    """Principal components as tiles, the spectrum, and the frequencies."""
    fig = figure(3.5)
    parts: Any = fig.subfigures(1, 2, width_ratios=[1, 1.25])
    left, (middle, right) = parts[0].subplots(), parts[1].subplots(1, 2)
    c, h, w = k.weights.shape[1:]
    bound = 3 / (c * h * w) ** 0.5  # components have length 1: three times what an even one has everywhere
    shown = np.ones((*TILES, h, w, 3))
    for i, component in enumerate(k.components):
        shown[divmod(i, TILES[1])] = colours(0.5 + 0.5 * component / bound)
    canvas, rows, cols = mosaic(shown, gap=0.3)
    left.imshow(np.nan_to_num(canvas, nan=1.0), interpolation="nearest")
    for i, share in enumerate(k.shares[: len(k.components)].tolist()):
        top = rows[i // TILES[1]] - h / 2
        left.text(cols[i % TILES[1]], top, f"{share:.1%}", fontsize=8, ha="center", va="bottom")
    left.axis("off")
    what = "kernels" if k.affine else f"derivative, mean of {SLOPES} images"
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
    shown = ax.imshow(k.energy.clamp_min(1e-9).numpy(), cmap=SEQUENTIAL, norm=ENERGY, interpolation="nearest")
    ax.set(xlabel="half-periods across", ylabel="half-periods down", title="energy by frequency (DCT)")
    whole_numbers(ax)
    parts[1].colorbar(shown, ax=ax, location="bottom", shrink=0.9, label="share of energy", extend="min")
    return fig


def channels(k: Kernels) -> Figure:
    """The three slices of the kernels with the largest norm, one below the other."""
    strongest = k.weights.flatten(1).norm(dim=1).argsort(descending=True)[:10]
    bound = limit(k.weights[strongest])
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
    shown = slices.imshow(canvas, cmap=DIVERGING, vmin=-1, vmax=1, interpolation="nearest")
    slices.set_xticks([])
    slices.set_yticks(rows, channel_names(3))
    for ax in (together, slices):
        ax.tick_params(length=0)
        ax.spines[:].set_visible(False)
    fig.colorbar(shown, ax=[together, slices], shrink=0.7, label=f"weight / {bound:.2g}, the largest", pad=0.01)
    return fig


def positions(p: Positions) -> Figure:
    """A map of maps, how many directions the position vectors use, and which waves they are made of."""
    fig = figure(4.4)
    maps, ax, waves = fig.subplots(1, 3, width_ratios=[1.35, 1, 1.1])
    map_of_maps(maps, p.table)
    fig.colorbar(maps.images[0], ax=maps, location="bottom", shrink=0.8, label="cosine similarity")
    values = p.singular.numpy()
    values = values[values > 1e-6]
    ax.semilogy(np.arange(1, len(values) + 1), values, color=OUTLINES[0], marker="." if len(values) < 40 else None)
    ax.set(ylim=(1e-5, 1.2), xlabel="number of the singular value", ylabel="share of their sum")
    ax.set_title("singular values, mean taken off")
    ax.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
    h, w = p.energy.shape
    extent = (-(w // 2) - 0.5, w - w // 2 - 0.5, h - h // 2 - 0.5, -(h // 2) - 0.5)
    energy = p.energy.clamp_min(1e-9).numpy()
    energy[h // 2, w // 2] = np.nan  # the mean
    shown = waves.imshow(energy, cmap=SEQUENTIAL, norm=ENERGY, extent=extent, interpolation="nearest")
    waves.set(xlabel="periods across the grid", ylabel="periods down the grid", title="energy by frequency (Fourier)")
    whole_numbers(waves)
    fig.colorbar(shown, ax=waves, location="bottom", shrink=0.9, label="share of energy", extend="min")
    return fig


def chosen(count: int) -> list[int]:
    """At most six of the blocks, the first and the last among them."""
    return torch.linspace(0, count - 1, min(count, 6)).round().long().unique().tolist()


def head_style(head: int) -> dict[str, Any]:
    return {"color": OUTLINES[head % 4], "label": f"head {head}"}


def panels(count: int, name: str) -> tuple[Figure, Sequence[Axes], list[int]]:
    """A panel for each of some blocks, or one for what all share."""
    blocks = chosen(count)
    rows = math.ceil(len(blocks) / COLUMNS)
    fig = figure(0.6 + 3.1 * rows)
    grid = fig.subplots(rows, COLUMNS, squeeze=False, sharex=True, sharey=True)
    axes = list(grid.ravel())
    for ax, block in zip(axes, blocks, strict=False):
        ax.set_title(name if count == 1 else f"block {block}")
    for ax in axes[len(blocks) :]:
        ax.set_visible(False)
    return fig, axes, blocks


def rotation(turns: Float[Tensor, "blocks heads d 2"]) -> Figure:
    """Each pair of channels of each head by how fast it turns, down and across."""
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
            axis.set_major_locator(FixedLocator(TURN))
            axis.set_minor_locator(NullLocator())
            axis.set_major_formatter(FuncFormatter(lambda x, _: "" if abs(x) == 0.01 else spelled(x)))
    label_outer(axes, len(blocks), "radians per patch, across", "radians per patch, down")
    legend(axes[min(COLUMNS, len(blocks)) - 1])
    return fig


def spelled(x: float) -> str:
    return f"{x:g}".replace("-", "−")


def label_outer(axes: Sequence[Axes], count: int, across: str, down: str) -> None:
    for i, ax in enumerate(axes[:count]):
        if i + COLUMNS >= count:
            ax.set_xlabel(across)
            ax.xaxis.set_tick_params(labelbottom=True)
        if i % COLUMNS == 0:
            ax.set_ylabel(down)


def legend(ax: Axes) -> None:
    if len(ax.get_legend_handles_labels()[1]) <= 16:
        ax.legend(frameon=False, loc="center left", bbox_to_anchor=(1.02, 0.5))


def bias(b: Bias, img_size: tuple[int, int]) -> Figure:
    """The mean bias at each distance, head by head."""
    fig, axes, blocks = panels(len(b.means), "every block")
    for ax, block in zip(axes, blocks, strict=False):
        for head, means in enumerate(b.means[block]):
            ax.plot(b.pixels, means, linestyle=["-", "--", ":", "-."][head // 4 % 4], **head_style(head))
        ax.axhline(0, color="#b0b0b0", linewidth=0.8, zorder=0)
        ax.set_yscale("symlog", linthresh=0.1)
        ax.set(xlim=(0, math.hypot(*img_size)), ylim=(-30, 30))
        ax.yaxis.set_major_locator(FixedLocator(LOGITS))
        ax.yaxis.set_minor_locator(NullLocator())
        ax.yaxis.set_major_formatter(FuncFormatter(lambda x, _: spelled(x)))
    label_outer(axes, len(blocks), "distance between patches (pixels)", "mean bias (logits)")
    legend(axes[min(COLUMNS, len(blocks)) - 1])
    return fig


def distance(a: Attended, img_size: tuple[int, int]) -> Figure:
    """Each head of each layer (Dosovitskiy et al., 2021, fig. 7)."""
    fig = figure(3.4)
    ax = fig.subplots()
    layers, heads = a.distance.shape
    for head in range(heads):
        label = "a head" if head == 0 else None
        ax.scatter(range(layers), a.distance[:, head], s=26, color=OUTLINES[0], alpha=0.7, linewidths=0, label=label)
    ax.plot(range(layers), a.distance.mean(1), color=OUTLINES[1], linewidth=1.5, label="mean of the heads")
    ax.axhline(a.uniform, **GREY, label="uniform attention")
    ax.set(xlabel="block", ylabel="mean attention distance (pixels)", ylim=(0, math.hypot(*img_size)))
    ax.set_title(f"how far each of the {heads} heads of a block looks; the axis ends at the image's diagonal")
    ax.set_xticks(range(0, layers, max(1, layers // 12)))
    ax.legend(frameon=False, loc="upper left", ncols=3)
    return fig


def rollout(shares: Float[Tensor, "k h w"], images: UInt8[Tensor, "b c H W"]) -> Figure:
    """The images, and below each what the head of the network reads of it."""
    count, (h, w) = len(shares), shares.shape[1:]
    fig = figure(0.6 + 2 * 10.2 / max(count, 4) * h / w)
    axes = np.asarray(fig.subplots(2, count, squeeze=False))
    for i in range(count):
        axes[0, i].imshow(colours(images[i] / 255), interpolation="nearest")
        bare(axes[0, i], f"image {i}", fontsize=10)
        times = (shares[i] * h * w).clamp_min(1e-9).log2()
        shown = axes[1, i].imshow(times.numpy(), cmap=DIVERGING, vmin=-2, vmax=2, interpolation="nearest")
        bare(axes[1, i])
    axes[1, 0].set_ylabel("rollout")
    bar = fig.colorbar(shown, ax=axes[1].tolist(), shrink=0.9, label="times an even share", pad=0.01, extend="both")
    bar.set_ticks([-2, -1, 0, 1, 2], labels=["¼", "½", "1", "2", "4"])
    return fig


def fields(maps: Mapping[str, Float[Tensor, "H W"]]) -> Figure:
    """Of the input stage, of the network, and of a CNN, on one scale."""
    fig = figure(4.2)
    axes = np.atleast_1d(fig.subplots(1, len(maps)))
    for ax, (name, values) in zip(axes, maps.items(), strict=True):
        relative = (values / values.max()).clamp_min(1e-9)
        shown = ax.imshow(relative.numpy(), cmap=SEQUENTIAL, norm=ENERGY, interpolation="nearest")
        side = f"{extent(values, FIELD_SHARE):.1f}"
        ax.set_title(f"{FIELDS[name]}\n{FIELD_SHARE:.0%} within {side} × {side} pixels", fontsize=10)
        whole_numbers(ax)
        ax.set(xlabel="column (pixels)")
    axes[0].set_ylabel("row (pixels)")
    fig.colorbar(shown, ax=list(axes), shrink=0.85, label="squared gradient / its maximum", pad=0.01, extend="min")
    return fig


def readout(scores: Mapping[str, tuple[float, float]]) -> Figure:
    """By depth, how well row and column can be read from a token."""
    fig = figure(3.4)
    ax = fig.subplots()
    depths = range(len(scores))
    for i, (name, style) in enumerate({"row": "o-", "column": "s--"}.items()):
        ax.plot(depths, [score[i] for score in scores.values()], style, color=OUTLINES[i], label=name)
    ax.set(ylim=(-0.02, 1.02), ylabel="R², held-out images")
    ax.set_xticks(list(depths), list(scores), rotation=45, ha="right")
    ax.set_title("where is this token? a linear probe of the token itself")
    ax.legend(frameon=False)
    return fig


def view(name: str) -> str:
    """As it stands on an axis: `scale48` and `shuffled_pixels`."""
    return f"scaled to {name.removeprefix('scale')} pixels" if name.startswith("scale") else name.replace("_", " ")


def robustness(robust: Mapping[str, float]) -> Figure:
    """Accuracy with its 95 % Wilson interval: of each view, and by how far images are moved."""
    images = round(robust["images"])
    views = [name.removesuffix("/acc") for name in robust if name.endswith("/acc")]
    moves = sorted(int(name.removeprefix("moved")) for name in views if name.startswith("moved"))
    others = [name for name in views if not name.startswith("moved")]
    fig = figure(max(3.6, 1.4 + 0.38 * len(others)))
    left, right = fig.subplots(1, 2)

    def interval(name: str) -> tuple[float, list[list[float]]]:
        share = robust[f"{name}/acc"]
        sure = binomtest(round(share * images), images).proportion_ci(method="wilson")
        return 100 * share, [[100 * max(0, share - sure.low)], [100 * max(0, sure.high - share)]]

    plain = interval("moved0")[0]
    style: Any = {"color": OUTLINES[0], "capsize": 3, "linewidth": 1.5}
    for row, name in enumerate(others):
        share, error = interval(name)
        left.errorbar(share, row, xerr=error, fmt="o", **style)
    left.axvline(plain, **GREY)
    left.set_yticks(range(len(others)), [view(name) for name in others])
    left.set_ylim(len(others) - 0.5, -0.5)
    left.set(xlim=(0, 100), xlabel="accuracy (%)", title=f"{images:,} test images; dashed: as they are")

    shares = [interval(f"moved{pixels}") for pixels in moves]
    errors = np.concatenate([error for _, error in shares], 1)
    right.errorbar(moves, [share for share, _ in shares], yerr=errors, fmt="o-", **style, label="correct")
    same = [100 * robust[f"moved{pixels}/same"] for pixels in moves]
    right.plot(moves, same, "s--", color=OUTLINES[1], label="same class as unmoved")
    right.set(ylim=(0, 103), ylabel="share of the images (%)", xlabel="moved down and right, cyclically (pixels)")
    right.set_title(f"the same {images:,} images, moved")
    right.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
    right.legend(frameon=False, loc="best")
    return fig
