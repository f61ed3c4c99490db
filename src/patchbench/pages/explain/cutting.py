"""The section on the cut: how the image is divided into windows, in words and figures."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from patchbench.html import shown
from patchbench.pages.explain.walk import Walk
from patchbench.pages.plots import OUTLINES, bare, colours, figure, outline, whole_numbers

FOLLOWED = OUTLINES[1]  # colour of the patch that the page follows


def cutting(walk: Walk) -> str:
    """Say how many windows the image gives, and how they lie."""
    (h, w), window, stride = walk.layout.grid_size, walk.window, walk.stride
    channels, tall, wide = walk.pixels.shape
    size = f"{window.height}×{window.width}"
    if walk.reads_all:
        text = (
            f"Here each of the {h * w:,} tokens reads {size} pixels, most of the image: layers in front of the trunk "
            f"have already mixed the pixels. Neighbouring tokens lie {stride[0]}×{stride[1]} pixels apart."
        )
    elif walk.overlaps:
        times = h * w * window.height * window.width / (tall * wide)
        text = (
            f"Each token reads {size} pixels, but the next window starts only {stride[1]} pixels further: windows "
            f"overlap, and a pixel is read {times:.3g} times on average. The stride, not the size of the window, sets "
            f"the number of tokens: {h}×{w} = {h * w:,}. Nothing is lost at the borders between patches; the price is "
            "a longer sequence or a larger matrix."
        )
    else:
        padded = (h * stride[0] - tall, w * stride[1] - wide)
        text = (
            f"{tall}×{wide} pixels in patches of {size} give {tall}/{window.height} × {wide}/{window.width} = "
            f"{h}×{w} = {h * w:,} patches. They lie edge to edge, so every pixel is in exactly one of them."
            if not any(n > 0 for n in padded)
            else f"Patches of {size} do not cover {tall}×{wide} pixels exactly: {padded[0]} rows and {padded[1]} "
            f"columns of zeros are added at the bottom and right, which gives {h}×{w} = {h * w:,} patches."
        )
    caption = (
        f"This page follows the patch at row {walk.place[0]}, column {walk.place[1]} of the grid, whose pixels vary "
        f"most. Its {size} pixels have {channels} channels each: {window.height}·{window.width}·{channels} = "
        f"{walk.patch_values:,} values."
    )
    alt = f"The image, its {h} by {w} patches, and one of them enlarged"
    return f"<h2>1. The image is cut</h2>\n<p>{text}</p>\n{shown(cut(walk), alt, caption)}"


def cut(walk: Walk) -> Figure:
    """Draw the image, the image in patches, and the patch that the page follows."""
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
    name = "pixels of one token" if walk.overlaps or walk.reads_all else "one patch"
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
    """Draw the image with its patches moved apart."""
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
    rgba = np.dstack([np.nan_to_num(canvas), ~np.isnan(canvas[..., 0])])
    ax.imshow(rgba, interpolation="nearest")
    row, col = walk.place
    outline(ax, row * (high + gap_y), col * (broad + gap_x), high, broad, FOLLOWED, 2.5)
    bare(ax, f"cut into {rows} × {cols} = {rows * cols:,} patches")
    for side in ax.spines.values():
        side.set_visible(False)


def neighbouring_windows(ax: Axes, walk: Walk) -> None:
    """Draw the followed window and its neighbours on the part of the image around them."""
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


def picture(walk: Walk) -> np.ndarray:
    """Return the image as an array for imshow."""
    return colours(walk.pixels / 255)
