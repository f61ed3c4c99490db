"""The pictures of the embedding: the image in patches, a patch as a vector, the kernels, their channels."""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from patchbench.measure.response import Shares
from patchbench.pages.explain.walk import Walk
from patchbench.pages.plots import (
    DIVERGING,
    OUTLINES,
    SEQUENTIAL,
    WIDTH,
    bare,
    channel_names,
    colours,
    figure,
    limit,
    outline,
    tint,
    tinted,
    whole_numbers,
)

FOLLOWED = OUTLINES[1]


def picture(walk: Walk) -> np.ndarray:
    return colours(walk.pixels / 255)


def cut(walk: Walk) -> Figure:
    """The image, the image in patches, and the patch that the page follows."""
    fig = figure(4.1)
    whole, pieces, patch = fig.subplots(1, 3)
    tall, wide = walk.pixels.shape[1:]
    window = walk.window
    whole.imshow(picture(walk), interpolation="nearest")
    whole.set_title(f"the image: {tall} × {wide} × {len(walk.pixels)}")
    whole.set_xlabel("column (pixels)")
    whole.set_ylabel("row (pixels)")

    if walk.overlaps or walk.reads_all:
        neighbouring_windows(pieces, walk)
    else:
        tiles(pieces, walk)
    outline(whole, window.top, window.left, window.height, window.width, FOLLOWED)

    inner = picture(walk)[window.top : window.top + window.height, window.left : window.left + window.width]
    patch.imshow(inner, interpolation="nearest")
    name = "what one token reads" if walk.overlaps or walk.reads_all else "one patch"
    patch.set_title(f"{name}: {window.height} × {window.width} × {len(walk.pixels)}", color=FOLLOWED)
    if max(window.height, window.width) <= 32:
        patch.set_xticks(np.arange(-0.5, window.width), [], minor=True)
        patch.set_yticks(np.arange(-0.5, window.height), [], minor=True)
        patch.grid(which="minor", color="#80808060", linewidth=0.5)
        patch.tick_params(which="minor", length=0)
    whole_numbers(whole, patch)
    patch.set_xlabel("column of the patch (pixels)" if not walk.overlaps else "column of the window (pixels)")
    for side in patch.spines.values():
        side.set(edgecolor=FOLLOWED, linewidth=2)
    return fig


def tiles(ax: Axes, walk: Walk) -> None:
    """The image with its patches moved apart."""
    rows, cols = walk.layout.grid_size
    (high, broad), image = walk.stride, picture(walk)
    gap_y, gap_x = max(1, round(0.14 * high)), max(1, round(0.14 * broad))
    canvas = np.full((rows * (high + gap_y) - gap_y, cols * (broad + gap_x) - gap_x, 3), np.nan)
    for row in range(rows):
        for col in range(cols):
            piece = image[row * high : (row + 1) * high, col * broad : (col + 1) * broad]  # the last may be padded
            top, left = row * (high + gap_y), col * (broad + gap_x)
            canvas[top : top + high, left : left + broad] = 0
            canvas[top : top + piece.shape[0], left : left + piece.shape[1]] = piece
    shown = np.dstack([np.nan_to_num(canvas), ~np.isnan(canvas[..., 0])])
    ax.imshow(shown, interpolation="nearest")
    row, col = walk.place
    outline(ax, row * (high + gap_y), col * (broad + gap_x), high, broad, FOLLOWED, 2.5)
    bare(ax, f"cut into {rows} × {cols} = {rows * cols:,} patches")
    for side in ax.spines.values():
        side.set_visible(False)


def neighbouring_windows(ax: Axes, walk: Walk) -> None:
    """The followed window among its neighbours, on the part of the image around them."""
    (rows, cols), window, (down, right) = walk.layout.grid_size, walk.window, walk.stride
    tall, wide = walk.pixels.shape[1:]
    ax.imshow(picture(walk), interpolation="nearest")
    row, col = walk.place
    places = [(0, 0), (0, 1), (1, 0), (1, 1)]
    for (r, c), colour in reversed(list(zip(places, [FOLLOWED, *OUTLINES[:1], *OUTLINES[2:]], strict=True))):
        if row + r < rows and col + c < cols:
            outline(ax, window.top + r * down, window.left + c * right, window.height, window.width, colour)
    margin_y, margin_x = 3 * down + window.height // 4, 3 * right + window.width // 4
    bottom, end = window.top + window.height + down, window.left + window.width + right
    ax.set_ylim(min(tall, bottom + margin_y) - 0.5, max(0, window.top - margin_y) - 0.5)
    ax.set_xlim(max(0, window.left - margin_x) - 0.5, min(wide, end + margin_x) - 0.5)
    whole_numbers(ax)
    ax.set_xlabel("column (pixels)")
    ax.set_title(f"{rows} × {cols} = {rows * cols:,} windows, {down} × {right} pixels apart")


def projection(walk: Walk) -> Figure:
    """The patch in a row on top, the matrix below it, the token on the right: y = W x + b as it is written."""
    channels = len(walk.values)
    rows = walk.matrix if walk.matrix is not None else walk.kernels.flatten(1)
    token = walk.tokens[walk.place][: len(rows)]
    names = channel_names(channels)
    fig = figure(5.6)
    grid = fig.add_gridspec(3, 2, height_ratios=[1.15, 0.28, 3.2], width_ratios=[12, 1])
    parts = grid[0, 0].subgridspec(1, channels + 1) if channels <= 4 else None
    if parts is not None:
        raw = patch_pixels(walk)
        axes = [fig.add_subplot(parts[0, i]) for i in range(channels + 1)]
        axes[0].imshow(colours(raw), interpolation="nearest")
        bare(axes[0], "the patch", fontsize=10)
        for i, name in enumerate(names):
            axes[i + 1].imshow(tinted(raw[i], tint(name, i)), interpolation="nearest")
            bare(axes[i + 1], f"{name}: {raw[i].numel():,} values", color=tint(name, i), fontsize=10)

    strip = fig.add_subplot(grid[1, 0])
    raw = patch_pixels(walk)
    line = np.concatenate([tinted(raw[i].reshape(1, -1), tint(name, i)) for i, name in enumerate(names)], axis=1)
    strip.imshow(line, aspect="auto", interpolation="nearest")
    bare(strip, f"x: the same {walk.patch_values:,} values in a row, {', then '.join(names)}", fontsize=10)

    ax = fig.add_subplot(grid[2, 0])
    bound = limit(rows)
    shown = ax.imshow(rows.numpy(), cmap=DIVERGING, vmin=-bound, vmax=bound, aspect="auto", interpolation="nearest")
    ax.set_xlabel("number of the value in x")
    if walk.matrix is not None:
        ax.set_title(
            f"W: {len(rows)} × {walk.patch_values:,} weights, one row for each value of the token", fontsize=10
        )
    elif walk.affine:
        ax.set_title(f"W: its first {len(rows)} rows of {len(walk.tokens[0, 0])}", fontsize=10)
    else:
        ax.set_title(f"how the token's first {len(rows)} values answer to each value in x (derivative)", fontsize=10)
    ax.set_ylabel("number of the value in the token")
    fig.colorbar(shown, ax=ax, location="left", shrink=0.8, label="weight", pad=0.01)

    out = fig.add_subplot(grid[2, 1])
    bound = limit(token)
    shown = out.imshow(token[:, None].numpy(), cmap=DIVERGING, vmin=-bound, vmax=bound, aspect="auto")
    out.set_xticks([])
    out.yaxis.tick_right()
    head = "y = W x + b" if walk.affine else "the token"
    count = (
        f"D = {len(token)} values"
        if len(token) == walk.layout.embed_dim
        else f"first {len(token)} of {walk.layout.embed_dim}"
    )
    out.set_title(f"{head}\n{count}", fontsize=10)
    fig.colorbar(shown, ax=out, location="right", shrink=0.8, label="value", pad=0.3)
    return fig


def patch_pixels(walk: Walk) -> Float[Tensor, "c P Q"]:
    w = walk.window
    return walk.pixels[:, w.top : w.top + w.height, w.left : w.left + w.width] / 255


def kernel_tiles(walk: Walk) -> Figure:
    """The first kernels, and below each the feature map that it draws of the image."""
    count = min(8, len(walk.kernels))
    (rows, cols), ratio = walk.layout.grid_size, walk.window.height / walk.window.width
    tile = WIDTH / count
    fig = figure(0.55 + tile * (ratio + rows / cols) * 0.92)
    axes = np.asarray(fig.subplots(2, count, squeeze=False, height_ratios=[ratio, rows / cols]))
    bound, maps = limit(walk.kernels[:count]), walk.tokens[:, :, :count]
    top = limit(maps)
    for i in range(count):
        kernel = walk.kernels[i]
        if len(kernel) == 3:
            axes[0, i].imshow(colours(0.5 + 0.5 * kernel / bound), interpolation="nearest")
        else:
            axes[0, i].imshow(kernel[0].numpy(), cmap=DIVERGING, vmin=-bound, vmax=bound, interpolation="nearest")
        bare(axes[0, i], f"kernel {i}" if walk.affine else f"value {i}", fontsize=10)
        shown = axes[1, i].imshow(maps[:, :, i].numpy(), cmap=DIVERGING, vmin=-top, vmax=top, interpolation="nearest")
        bare(axes[1, i], f"map {i}", fontsize=10)
    fig.colorbar(shown, ax=axes[1, :].tolist(), location="right", shrink=0.9, label="value", pad=0.01)
    return fig


def slab(ax: Axes, values: np.ndarray, left: float, bottom: float, width: float, **knobs: Any) -> None:
    """One slice of a block, drawn leaning: rows of numbers, or of RGB."""
    rows, cols = values.shape[:2]
    x, y = np.meshgrid(np.linspace(0, width, cols + 1), np.linspace(width * rows / cols, 0, rows + 1))
    ax.pcolormesh(left + x * 0.62, bottom + y + 0.34 * x, values, **knobs)
    edge = np.array([[0, 0], [1, 0.34], [1, 0.34 + rows / cols], [0, rows / cols], [0, 0]]) * width
    ax.plot(left + edge[:, 0] * 0.62, bottom + edge[:, 1], color="#404040", linewidth=0.8)


def blocks(walk: Walk) -> Figure:
    """C slices, D kernels of C slices each, D maps: why C x H x W becomes D x h x w."""
    channels, tall, wide = walk.pixels.shape
    (rows, cols), window = walk.layout.grid_size, walk.window
    fig = figure(3.1)
    ax = fig.add_subplot()
    names = channel_names(channels)[:3]
    step = max(1, -(-max(tall, wide) // 64))
    bound = limit(walk.kernels)
    for i, name in reversed(list(enumerate(names))):
        slab(ax, tinted(walk.pixels[i, ::step, ::step] / 255, tint(name, i)), 0.35 * i, 0.0, 1.6)
    ax.text(0.85, -0.2, f"image\n{channels} × {tall} × {wide}", ha="center", va="top")
    shown = min(4, len(walk.kernels))
    size = 0.8
    for k in range(shown):
        for i in reversed(range(len(names))):
            values = walk.kernels[k, i].numpy()
            slab(ax, values, 3.0 + 1.05 * k + 0.17 * i, 0.55, size, cmap=DIVERGING, vmin=-bound, vmax=bound)
        ax.text(3.0 + 1.05 * k + 0.4, 0.42, f"{k}", ha="center", va="top", fontsize=9)
    ax.text(3.0 + 1.05 * shown + 0.1, 1.0, "…", fontsize=18, va="center", ha="center")
    kernel = f"{walk.layout.embed_dim} kernels\neach {channels} × {window.height} × {window.width}"
    ax.text(3.0 + 1.05 * shown / 2, -0.2, kernel, ha="center", va="top")
    start = 3.0 + 1.05 * shown + 1.0
    drawn = min(6, walk.tokens.shape[-1])
    maps = walk.tokens[:, :, :drawn]
    step, top = max(1, -(-max(rows, cols) // 64)), limit(maps)
    for i in reversed(range(drawn)):
        slab(ax, maps[::step, ::step, i].numpy(), start + 0.35 * i, 0.0, 1.6, cmap=DIVERGING, vmin=-top, vmax=top)
    ax.text(start + 0.35 * drawn + 1.05, 1.0, "…", fontsize=18, va="center", ha="center")
    ax.text(start + 1.4, -0.2, f"feature maps\n{walk.layout.embed_dim} × {rows} × {cols}", ha="center", va="top")
    for x in (2.6, start - 0.45):
        ax.text(x, 1.0, "∗" if x < 3 else "=", fontsize=22, va="center", ha="center")
    ax.set(xlim=(-0.2, start + 0.35 * drawn + 1.4), ylim=(-0.8, 2.25), aspect="equal")
    ax.axis("off")
    return fig


def channel_sum(walk: Walk, shares: Shares) -> Figure:
    """One kernel taken apart: a row per channel, its slice and what that gives, and their sum on the right."""
    channels = min(3, len(shares.channels))
    names = channel_names(len(shares.channels))
    kernel = walk.kernels[shares.index]
    fig = figure(2.15 * channels + 0.4)
    grid = fig.add_gridspec(channels, 4, width_ratios=[1, 1, 1.15, 1.7])
    bound, top = limit(kernel), limit(shares.channels, shares.output)
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
        given = shares.channels[i].numpy()
        axes[2].imshow(given, cmap=DIVERGING, vmin=-top, vmax=top, interpolation="nearest")
        bare(axes[2], f"{'+ ' if i else ''}what {name} gives", fontsize=10)
        axes[2].set_ylabel("=", rotation=0, fontsize=18, labelpad=14, va="center")
        share_axes.append(axes[1])
    total = fig.add_subplot(grid[:, 3])
    shown = total.imshow(shares.output.numpy(), cmap=DIVERGING, vmin=-top, vmax=top, interpolation="nearest")
    rows, cols = shares.output.shape
    total.set_title(
        f"sum of the {len(shares.channels)} + bias {shares.bias:.3g}\n= feature map {shares.index}, {rows} × {cols}"
    )
    total.set_xlabel("column of the grid")
    total.set_ylabel("row of the grid")
    whole_numbers(total)
    fig.colorbar(shown, ax=total, location="bottom", shrink=0.8, label="value of the feature map")
    fig.colorbar(slices, ax=share_axes, location="bottom", shrink=0.9, label="weight")
    return fig


def field(walk: Walk) -> Figure:
    """How strongly the followed token answers to each pixel, all its shown values together."""
    fig = figure(4.0)
    left, right = fig.subplots(1, 2)
    w = walk.window
    strength = torch.zeros(walk.pixels.shape[1:])
    strength[w.top : w.top + w.height, w.left : w.left + w.width] = walk.kernels.square().sum((0, 1)).sqrt()
    left.imshow(picture(walk), interpolation="nearest")
    outline(left, w.top, w.left, w.height, w.width, FOLLOWED)
    left.set_title(f"the followed token reads {w.height} × {w.width} pixels")
    shown = right.imshow(strength.numpy(), cmap=SEQUENTIAL, interpolation="nearest")
    outline(right, w.top, w.left, w.height, w.width, FOLLOWED)
    right.set_title("and answers to each of them this much")
    for ax in (left, right):
        ax.set_xlabel("column (pixels)")
    left.set_ylabel("row (pixels)")
    fig.colorbar(shown, ax=right, shrink=0.9, label="change of the token per unit of the pixel")
    return fig
