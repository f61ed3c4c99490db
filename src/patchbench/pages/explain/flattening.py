"""The section on the flattened patch and the matrix that makes its values a token, in words and figures."""

from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor, nn

from patchbench.html import figure_html
from patchbench.pages.explain.explanation import Explanation
from patchbench.pages.explain.walk import Walk
from patchbench.pages.plots import DIVERGING, bare, channel_names, colours, figure, largest, tint, tinted, whole_numbers
from patchbench.words import count


def flattening(explanation: Explanation) -> str:
    """Return the section: the matrix that makes the values of a patch a token, or the derivative if there is none."""
    walk = explanation.walk
    window, n, d = walk.window, walk.patch_values, walk.layout.embed_dim
    channels = len(walk.pixels)
    names = ", then ".join(f"all {name} values" for name in channel_names(channels))
    where = (
        f"Where have the {channels} channels gone? They follow each other in this row: {names}. {equal_channels(walk)}"
        if channels > 1
        else "There is one channel, so the row is the patch, line after line."
    )
    values = count(n, "value")
    chain = f"{window.height}×{window.width}×{channels} → {values} → D = {d}"
    if walk.matrix is not None:
        product = walk.matrix @ walk.values.flatten() + bias_of(explanation.net.embed)
        difference = float((product - walk.tokens[walk.place]).abs().max())
        text = (
            f"The patch is written as one row of {values}. {where} One matrix W of {d}×{n:,} = "
            f"{count(d * n, 'weight')} and a bias of {d} turn the row into the token: {chain}. The same W serves "
            "every patch."
        )
        check = (
            f'<p class="check">Computed here: W x + b for this patch differs from the output of the layer by at most '
            f"{difference:.1e}.</p>"
        )
        caption = (
            "Read the figure as the product: the row x lies on top of the matrix. Each row of W is multiplied with x "
            "value by value and summed; the sum, plus the bias, is the value at the same height in the token on the "
            "right. The network sees x after the mean is subtracted and the result is divided by the standard "
            "deviation, both of the data set; the colours above are the pixels."
        )
    else:
        layers = len(walk.inside)
        what = (
            f"The embedding is not one layer but still one linear map: {chain}."
            if walk.affine
            else f"Between the {values} that a token reads and its D = {count(d, 'value')} lies more than one matrix "
            f"here ({count(layers, 'layer')}), so there is no single W. The figure shows the derivative instead: how "
            "much each value of this token changes with a small change of each pixel, at this image."
        )
        text = f"The pixels that the token reads are {values}. {where} {what}"
        check = ""
        caption = (
            f"On top, the {values} that this token reads; below, one line for each of the token's first "
            f"{count(len(walk.kernels), 'value')}: positive where a brighter pixel would raise the value, negative "
            "where it would lower it."
        )
    alt = f"A row of {values}, a matrix, and the token of {count(d, 'value')}"
    return (
        f"<h2>2. A patch becomes a vector</h2>\n<p>{text}</p>\n{figure_html(projection(walk), alt, caption)}\n{check}"
    )


def equal_channels(walk: Walk) -> str:
    """Say that the channels of a grey image are equal; empty for an image with colours."""
    if not walk.grey:
        return ""
    return (
        f"This image is grey: its {len(walk.pixels)} channels are equal, so the same values stand in the row "
        f"{len(walk.pixels)} times: of {walk.patch_values:,} values no more than "
        f"{walk.patch_values // len(walk.pixels):,} are independent. <code>image=flower</code> shows an image with "
        "colours."
    )


def bias_of(embed: nn.Module) -> Tensor | float:
    """Return the bias of an embedding that is one layer; 0 if it has none."""
    layer: Any = next(m for m in embed.modules() if not list(m.children()) and hasattr(m, "weight"))
    return layer.bias.detach() if layer.bias is not None else 0.0


def projection(walk: Walk) -> Figure:
    """Draw y = W x + b: the patch as a row at the top, the matrix below, the token on the right."""
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
            bare(axes[i + 1], f"{name}: {count(raw[i].numel(), 'value')}", color=tint(name, i), fontsize=10)

    strip = fig.add_subplot(grid[1, 0])
    raw = patch_pixels(walk)
    line = np.concatenate([tinted(raw[i].reshape(1, -1), tint(name, i)) for i, name in enumerate(names)], axis=1)
    strip.imshow(line, aspect="auto", interpolation="nearest")
    bare(strip, f"x: the same {count(walk.patch_values, 'value')} in a row, {', then '.join(names)}", fontsize=10)

    ax = fig.add_subplot(grid[2, 0])
    bound = largest(rows)
    image = ax.imshow(rows.numpy(), cmap=DIVERGING, vmin=-bound, vmax=bound, aspect="auto", interpolation="nearest")
    ax.set_xlabel("number of the value in x")
    if walk.matrix is not None:
        ax.set_title(
            f"W: {len(rows)} × {walk.patch_values:,} weights, one row for each value of the token", fontsize=10
        )
    elif walk.affine:
        ax.set_title(f"W: its first {len(rows)} rows of {len(walk.tokens[0, 0])}", fontsize=10)
    else:
        ax.set_title(
            f"response of the token's first {count(len(rows), 'value')} to each value in x (derivative)", fontsize=10
        )
    ax.set_ylabel("number of the value in the token")
    whole_numbers(ax)
    fig.colorbar(image, ax=ax, location="left", shrink=0.8, label="weight", pad=0.01)

    out = fig.add_subplot(grid[2, 1])
    bound = largest(token)
    image = out.imshow(token[:, None].numpy(), cmap=DIVERGING, vmin=-bound, vmax=bound, aspect="auto")
    whole_numbers(out)
    out.set_xticks([])
    out.yaxis.tick_right()
    head = "y = W x + b" if walk.affine else "the token"
    length = (
        f"D = {count(len(token), 'value')}"
        if len(token) == walk.layout.embed_dim
        else f"first {len(token)} of {walk.layout.embed_dim}"
    )
    out.set_title(f"{head}\n{length}", fontsize=10)
    fig.colorbar(image, ax=out, location="right", shrink=0.8, label="value", pad=0.3)
    return fig


def patch_pixels(walk: Walk) -> Float[Tensor, "c P Q"]:
    """Return the pixels of the followed patch, in 0 ... 1."""
    w = walk.window
    return walk.pixels[:, w.top : w.top + w.height, w.left : w.left + w.width] / 255
