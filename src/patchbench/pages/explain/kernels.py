"""The section on kernels: the response of the values of a token to pixels, in words and figures."""

from html import escape
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from patchbench.html import figure_html
from patchbench.measure import readings, spectrum
from patchbench.measure.response import Shares, shares
from patchbench.pages.explain.cutting import FOLLOWED, picture
from patchbench.pages.explain.explanation import Explanation
from patchbench.pages.explain.walk import Walk
from patchbench.pages.plots import (
    DIVERGING,
    SEQUENTIAL,
    WIDTH,
    bare,
    channel_names,
    colours,
    figure,
    largest,
    outline,
    tint,
    tinted,
    whole_numbers,
)
from patchbench.words import count


def kernels(explanation: Explanation) -> str:
    """Return the section: the kernels of an affine embedding, or else the derivative of a token."""
    if not explanation.walk.affine:
        return responses(explanation)
    walk = explanation.walk
    channels, tall, wide = walk.pixels.shape
    (h, w), window, d = walk.layout.grid_size, walk.window, walk.layout.embed_dim
    size = f"{window.height}×{window.width}×{channels}"
    text = (
        f"Each row of W, folded back into {size}, is a kernel: a small image that is laid on the patch, multiplied "
        f"with it and summed. There {'is' if d == 1 else 'are'} D = {count(d, 'kernel')}, so the "
        f"{channels}×{tall}×{wide} image becomes {d}×{h}×{w}. {hint(explanation)}"
    )
    share = shares(explanation.net.embed, walk.image, strongest(walk))
    way = (
        "its per-channel 2-D convolutions, computed one by one"
        if share.by_convolution
        else f"the outputs of the embedding for each of the {count(channels, 'channel')} alone"
    )
    moves = (
        f"A kernel of size {window.height}×{window.width} is in truth a block of {size}: it is as deep as the image. "
        f"It moves over the image in two directions only, and at each of the {h}×{w} places all "
        f"{window.height}·{window.width}·{channels} = {walk.patch_values:,} products are summed into <em>one</em> "
        f"number. So one kernel gives one flat map, however many channels the image has, and {count(d, 'kernel')} "
        f"{'gives' if d == 1 else 'give'} {count(d, 'map')}: {channels}×{tall}×{wide} → {d}×{h}×{w}."
    )
    equality = (
        f'<p class="check">Computed here, for kernel {share.index}: the sum of {way}, plus the bias, equals '
        f"the layer's output at all {h}×{w} places. Largest difference: {share.error:.1e}, the rounding of 32-bit "
        "floats.</p>"
    )
    return (
        f"<h2>3. The kernels</h2>\n<p>{text}</p>\n"
        + figure_html(
            kernel_tiles(walk),
            f"The first kernels of {size} and their feature maps",
            f"Above: the first of {d} kernels, {size} each (grey is zero). Below: the feature map that each kernel "
            f"makes of the image, {h}×{w}.",
        )
        + f"<h3>Why {channels}×{tall}×{wide} becomes {d}×{h}×{w}</h3>\n<p>{moves}</p>\n"
        + figure_html(
            blocks(walk),
            "The image as slices, kernels as blocks, feature maps as slices",
            f"Depth {channels} goes in and is summed away; depth {d} comes out because there "
            f"{'is' if d == 1 else 'are'} {count(d, 'kernel')}.",
        )
        + figure_html(
            channel_sum(walk, share),
            f"Kernel {share.index} taken apart by channel",
            f"Kernel {share.index} taken apart. Each slice of {window.height}×{window.width} moves over its own "
            f"channel and gives a map of {h}×{w}; the {count(channels, 'map')} and the bias are added place by place."
            + (" The maps differ although the channels are equal, because the slices differ." if walk.grey else ""),
        )
        + equality
    )


def responses(explanation: Explanation) -> str:
    """Return the section for an embedding that is not affine: the derivative of the first values of a token."""
    walk = explanation.walk
    (h, w), window = walk.layout.grid_size, walk.window
    text = (
        "No single kernel makes this token, but its response to the image can be measured. The figures show the "
        "pattern to which the first values of the token respond at this place of this image, and how strongly the "
        f"token as a whole responds to each pixel. {hint(explanation)}"
    )
    return (
        f"<h2>3. What the token responds to</h2>\n<p>{text}</p>\n"
        + figure_html(
            kernel_tiles(walk),
            "Responses of the first values of the token, and their feature maps",
            "Above: derivative of one value of the token with respect to the pixels (grey is zero). Below: that value "
            f"at each of the {h}×{w} places, its feature map.",
        )
        + figure_html(
            field(walk),
            "The receptive field of the token",
            f"The receptive field, measured: {window.height}×{window.width} pixels change this token noticeably.",
        )
    )


def hint(explanation: Explanation) -> str:
    """Say whether the kernels are random or changed by training, from a measurement."""
    change, kernels_shown = explanation.walk.change, explanation.walk.kernels
    if change is None:
        return "They come from the weights of another training, and how far they have moved since is not known here."
    if explanation.trained:
        frequency = spectrum.dct_frequency(spectrum.dct_energy(kernels_shown))
        named = "these kernels" if explanation.walk.affine else "these responses"
        return escape(readings.since_start(change, frequency, named))
    see = "<code>ckpt=&lt;run&gt;/best.ckpt</code> shows what a run has learned."
    return f"{escape(readings.before_training(change))} {see}"


def strongest(walk: Walk) -> int:
    """Return the number of the shown kernel whose map varies most over this image."""
    return int(walk.tokens[:, :, : min(8, len(walk.kernels))].flatten(0, 1).std(0).argmax())


def kernel_tiles(walk: Walk) -> Figure:
    """Draw the first kernels, and below each its feature map of the image."""
    number = min(8, len(walk.kernels))
    (rows, cols), ratio = walk.layout.grid_size, walk.window.height / walk.window.width
    tile = WIDTH / number
    fig = figure(0.55 + tile * (ratio + rows / cols) * 0.92)
    axes = np.asarray(fig.subplots(2, number, squeeze=False, height_ratios=[ratio, rows / cols]))
    bound, maps = largest(walk.kernels[:number]), walk.tokens[:, :, :number]
    top = largest(maps)
    for i in range(number):
        kernel = walk.kernels[i]
        if len(kernel) == 3:
            axes[0, i].imshow(colours(0.5 + 0.5 * kernel / bound), interpolation="nearest")
        else:
            axes[0, i].imshow(kernel[0].numpy(), cmap=DIVERGING, vmin=-bound, vmax=bound, interpolation="nearest")
        bare(axes[0, i], f"kernel {i}" if walk.affine else f"value {i}", fontsize=10)
        image = axes[1, i].imshow(maps[:, :, i].numpy(), cmap=DIVERGING, vmin=-top, vmax=top, interpolation="nearest")
        bare(axes[1, i], f"map {i}", fontsize=10)
    fig.colorbar(image, ax=axes[1, :].tolist(), location="right", shrink=0.9, label="value", pad=0.01)
    return fig


def blocks(walk: Walk) -> Figure:
    """Draw C channels, D kernels of C channels each, and D maps, to show why C x H x W becomes D x h x w."""
    channels, tall, wide = walk.pixels.shape
    (rows, cols), window = walk.layout.grid_size, walk.window
    fig = figure(3.1)
    ax = fig.add_subplot()
    names = channel_names(channels)[:3]
    step = max(1, -(-max(tall, wide) // 64))
    bound = largest(walk.kernels)
    for i, name in reversed(list(enumerate(names))):
        slab(ax, tinted(walk.pixels[i, ::step, ::step] / 255, tint(name, i)), 0.35 * i, 0.0, 1.6)
    ax.text(0.85, -0.2, f"image\n{channels} × {tall} × {wide}", ha="center", va="top")
    number = min(4, len(walk.kernels))
    size = 0.8
    for k in range(number):
        for i in reversed(range(len(names))):
            values = walk.kernels[k, i].numpy()
            slab(ax, values, 3.0 + 1.05 * k + 0.17 * i, 0.55, size, cmap=DIVERGING, vmin=-bound, vmax=bound)
        ax.text(3.0 + 1.05 * k + 0.4, 0.42, f"{k}", ha="center", va="top", fontsize=9)
    ax.text(3.0 + 1.05 * number + 0.1, 1.0, "…", fontsize=18, va="center", ha="center")
    kernel = f"{count(walk.layout.embed_dim, 'kernel')}\neach {channels} × {window.height} × {window.width}"
    ax.text(3.0 + 1.05 * number / 2, -0.2, kernel, ha="center", va="top")
    start = 3.0 + 1.05 * number + 1.0
    drawn = min(6, walk.tokens.shape[-1])
    maps = walk.tokens[:, :, :drawn]
    step, top = max(1, -(-max(rows, cols) // 64)), largest(maps)
    for i in reversed(range(drawn)):
        slab(ax, maps[::step, ::step, i].numpy(), start + 0.35 * i, 0.0, 1.6, cmap=DIVERGING, vmin=-top, vmax=top)
    ax.text(start + 0.35 * drawn + 1.05, 1.0, "…", fontsize=18, va="center", ha="center")
    ax.text(start + 1.4, -0.2, f"feature maps\n{walk.layout.embed_dim} × {rows} × {cols}", ha="center", va="top")
    for x in (2.6, start - 0.45):
        ax.text(x, 1.0, "∗" if x < 3 else "=", fontsize=22, va="center", ha="center")
    ax.set(xlim=(-0.2, start + 0.35 * drawn + 1.4), ylim=(-0.8, 2.25), aspect="equal")
    ax.axis("off")
    return fig


def slab(ax: Axes, values: np.ndarray, left: float, bottom: float, width: float, **knobs: Any) -> None:
    """Draw one channel of a block in perspective. values: rows x columns of numbers, or of RGB."""
    rows, cols = values.shape[:2]
    x, y = np.meshgrid(np.linspace(0, width, cols + 1), np.linspace(width * rows / cols, 0, rows + 1))
    ax.pcolormesh(left + x * 0.62, bottom + y + 0.34 * x, values, **knobs)
    edge = np.array([[0, 0], [1, 0.34], [1, 0.34 + rows / cols], [0, rows / cols], [0, 0]]) * width
    ax.plot(left + edge[:, 0] * 0.62, bottom + edge[:, 1], color="#404040", linewidth=0.8)


def channel_sum(walk: Walk, shares: Shares) -> Figure:
    """Draw one kernel by channel: a row per channel with its weights and its map, and the sum of the maps."""
    channels = min(3, len(shares.channels))
    names = channel_names(len(shares.channels))
    kernel = walk.kernels[shares.index]
    fig = figure(2.15 * channels + 0.4)
    grid = fig.add_gridspec(channels, 4, width_ratios=[1, 1, 1.15, 1.7])
    bound, top = largest(kernel), largest(shares.channels, shares.output)
    share_axes = []
    for i in range(channels):
        name = names[i]
        axes = [fig.add_subplot(grid[i, j]) for j in range(3)]
        axes[0].imshow(tinted(walk.pixels[i] / 255, tint(name, i)), interpolation="nearest")
        bare(axes[0], f"{name} of the image", color=tint(name, i), fontsize=10)
        slices = axes[1].imshow(kernel[i].numpy(), cmap=DIVERGING, vmin=-bound, vmax=bound, interpolation="nearest")
        bare(axes[1], f"its slice, {kernel.shape[1]} × {kernel.shape[2]}", fontsize=10)
        axes[1].set_ylabel("∗", rotation=0, fontsize=18, labelpad=14, va="center")
        if kernel[i].numel() <= 25:
            for (r, c), value in np.ndenumerate(kernel[i].numpy()):
                shade = "white" if abs(value) > 0.6 * bound else "black"
                axes[1].text(c, r, f"{value:.2f}", ha="center", va="center", fontsize=7, color=shade)
        axes[2].imshow(shares.channels[i].numpy(), cmap=DIVERGING, vmin=-top, vmax=top, interpolation="nearest")
        bare(axes[2], f"{'+ ' if i else ''}the map of {name}", fontsize=10)
        axes[2].set_ylabel("=", rotation=0, fontsize=18, labelpad=14, va="center")
        share_axes.append(axes[1])
    total = fig.add_subplot(grid[:, 3])
    image = total.imshow(shares.output.numpy(), cmap=DIVERGING, vmin=-top, vmax=top, interpolation="nearest")
    rows, cols = shares.output.shape
    total.set_title(
        f"sum of the {len(shares.channels)} + bias {shares.bias:.3g}\n= feature map {shares.index}, {rows} × {cols}"
    )
    total.set_xlabel("column of the grid")
    total.set_ylabel("row of the grid")
    whole_numbers(total)
    fig.colorbar(image, ax=total, location="bottom", shrink=0.8, label="value of the feature map")
    fig.colorbar(slices, ax=share_axes, location="bottom", shrink=0.9, label="weight")
    return fig


def field(walk: Walk) -> Figure:
    """Draw the response of the followed token to each pixel: the norm over the values that are shown."""
    fig = figure(4.0)
    left, right = fig.subplots(1, 2)
    w = walk.window
    strength = torch.zeros(walk.pixels.shape[1:])
    strength[w.top : w.top + w.height, w.left : w.left + w.width] = walk.kernels.square().sum((0, 1)).sqrt()
    left.imshow(picture(walk), interpolation="nearest")
    outline(left, w.top, w.left, w.height, w.width, FOLLOWED)
    left.set_title(f"the followed token reads {w.height} × {w.width} pixels")
    image = right.imshow(strength.numpy(), cmap=SEQUENTIAL, interpolation="nearest")
    outline(right, w.top, w.left, w.height, w.width, FOLLOWED)
    right.set_title("and responds to each of them this much")
    for ax in (left, right):
        ax.set_xlabel("column (pixels)")
    left.set_ylabel("row (pixels)")
    whole_numbers(left, right)
    fig.colorbar(image, ax=right, shrink=0.9, label="change of the token per unit of the pixel")
    return fig
