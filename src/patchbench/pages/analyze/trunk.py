"""Figures of the trunk: attention distance, rollout, receptive fields, and the position that tokens contain."""

import math
from collections.abc import Mapping

import numpy as np
from jaxtyping import Float, UInt8
from matplotlib.figure import Figure
from torch import Tensor

from patchbench.measure.attention import Attention
from patchbench.measure.field import extent
from patchbench.measure.summary import FIELD_SHARE
from patchbench.pages.analyze.scales import ENERGY, GREY
from patchbench.pages.plots import DIVERGING, OUTLINES, SEQUENTIAL, bare, colours, figure, whole_numbers

FIELDS = {
    "embedding": "of the embedding",
    "network": "after the last block",
    "resnet18": "of an untrained ResNet-18",
}


def distance(a: Attention, img_size: tuple[int, int]) -> Figure:
    """Draw the mean attention distance of each head of each layer (Dosovitskiy et al., 2021, fig. 7)."""
    fig = figure(3.4)
    ax = fig.subplots()
    layers, heads = a.distance.shape
    for head in range(heads):
        label = "a head" if head == 0 else None
        ax.scatter(range(layers), a.distance[:, head], s=26, color=OUTLINES[0], alpha=0.7, linewidths=0, label=label)
    ax.plot(range(layers), a.distance.mean(1), color=OUTLINES[1], linewidth=1.5, label="mean of the heads")
    ax.axhline(a.uniform, **GREY, label="uniform attention")
    ax.set(xlabel="block", ylabel="mean attention distance (pixels)", ylim=(0, math.hypot(*img_size)))
    ax.set_title(f"how far each of the {heads} heads of a block looks; the axis ends at the diagonal of the image")
    ax.set_xticks(range(0, layers, max(1, layers // 12)))
    ax.legend(frameon=False, loc="upper left", ncols=3)
    return fig


def rollout(shares: Float[Tensor, "k h w"], images: UInt8[Tensor, "b c H W"]) -> Figure:
    """Draw the images, and below each the share of its patches in the input of the head (Abnar and Zuidema, 2020)."""
    count, (h, w) = len(shares), shares.shape[1:]
    fig = figure(0.6 + 2 * 10.2 / max(count, 4) * h / w)
    axes = np.asarray(fig.subplots(2, count, squeeze=False))
    for i in range(count):
        axes[0, i].imshow(colours(images[i] / 255), interpolation="nearest")
        bare(axes[0, i], f"image {i}", fontsize=10)
        times = (shares[i] * h * w).clamp_min(1e-9).log2()
        image = axes[1, i].imshow(times.numpy(), cmap=DIVERGING, vmin=-2, vmax=2, interpolation="nearest")
        bare(axes[1, i])
    axes[1, 0].set_ylabel("rollout")
    bar = fig.colorbar(image, ax=axes[1].tolist(), shrink=0.9, label="times an equal share", pad=0.01, extend="both")
    bar.set_ticks([-2, -1, 0, 1, 2], labels=["¼", "½", "1", "2", "4"])
    return fig


def fields(maps: Mapping[str, Float[Tensor, "H W"]]) -> Figure:
    """Draw the receptive fields of the embedding, the network and a CNN with one scale."""
    fig = figure(4.2)
    axes = np.atleast_1d(fig.subplots(1, len(maps)))
    for ax, (name, values) in zip(axes, maps.items(), strict=True):
        relative = (values / values.max()).clamp_min(1e-9)
        image = ax.imshow(relative.numpy(), cmap=SEQUENTIAL, norm=ENERGY, interpolation="nearest")
        side = f"{extent(values, FIELD_SHARE):.1f}"
        ax.set_title(f"{FIELDS[name]}\n{FIELD_SHARE:.0%} within {side} × {side} pixels", fontsize=10)
        whole_numbers(ax)
        ax.set(xlabel="column (pixels)")
    axes[0].set_ylabel("row (pixels)")
    fig.colorbar(image, ax=list(axes), shrink=0.85, label="squared gradient / its maximum", pad=0.01, extend="min")
    return fig


def readout(scores: Mapping[str, tuple[float, float]]) -> Figure:
    """Draw R² of the prediction of row and column from a token, by depth."""
    fig = figure(3.4)
    ax = fig.subplots()
    depths = range(len(scores))
    for i, (name, style) in enumerate({"row": "o-", "column": "s--"}.items()):
        ax.plot(depths, [score[i] for score in scores.values()], style, color=OUTLINES[i], label=name)
    ax.set(ylim=(-0.02, 1.02), ylabel="R² on other images")
    ax.set_xticks(list(depths), list(scores), rotation=45, ha="right")
    ax.set_title("position of a token, predicted from the token by a linear probe")
    ax.legend(frameon=False)
    return fig
