"""The section on the division of the image into windows, in words and figures."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from patchbench.html import figure_html
from patchbench.pages.explain.walk import Walk
from patchbench.pages.plots import OUTLINES, bare, colours, figure, outline, whole_numbers
from patchbench.words import count, listed

FOLLOWED = OUTLINES[1]  # colour of the patch that the page follows


def cutting(walk: Walk) -> str:
    """Return the section: number of windows, their arrangement, and pixels that no window reads."""
    (h, w), window, stride = walk.layout.grid_size, walk.window, walk.stride
    channels, tall, wide = walk.pixels.shape
    size = f"{window.height}×{window.width}"
    if walk.reads_all:
        text = (
            f"Here each of the {count(h * w, 'token')} reads {count(window.height * window.width, 'pixel')} ({size}), "
            "most of the image: layers in front of the trunk have already mixed the pixels. Neighbouring tokens lie "
            f"{stride[0]}×{stride[1]} pixels apart."
        )
    elif walk.overlaps:
        times = h * w * window.height * window.width / (tall * wide)
        step = f"{stride[1]}" if stride[0] == stride[1] else f"{stride[0]} down and {stride[1]} across"
        text = (
            f"Each token reads {size} pixels, but the next window starts only {step} further: windows overlap, and a "
            f"pixel is read {times:.3g} times on average. {number_of_windows(walk)} The stride, not the size of the "
            f"window, sets the number of tokens: {h}×{w} = {h * w:,}. {seams(walk)} The price is a longer sequence or "
            "a larger matrix."
        )
    else:
        padded = (h * stride[0] - tall, w * stride[1] - wide)
        if any(n > 0 for n in padded):
            zeros = [count(n, noun) for n, noun in zip(padded, ("row", "column"), strict=True) if n > 0]
            text = (
                f"Patches of {size} do not cover {tall}×{wide} pixels exactly: {listed(zeros)} of zeros "
                f"{'is' if sum(max(n, 0) for n in padded) == 1 else 'are'} added at the bottom and right, which gives "
                f"{h}×{w} = {count(h * w, 'patch', 'patches')}."
            )
        else:
            lie = "They lie edge to edge, so every pixel is in exactly one of them." if h * w > 1 else ""
            text = (
                f"{tall}×{wide} pixels in patches of {size} give {tall}/{window.height} × {wide}/{window.width} = "
                f"{h}×{w} = {count(h * w, 'patch', 'patches')}. {lie}"
                if (window.height, window.width) == stride
                else f"{number_of_windows(walk)} Windows of {size} leave gaps, since the next starts "
                f"{stride[0]}×{stride[1]} pixels further."
            )
    if lost := pixels_lost(walk):
        text += f" {lost}"
    values = count(walk.patch_values, "value")
    caption = (
        f"This page follows the patch at row {walk.place[0]}, column {walk.place[1]} of the grid, whose pixels vary "
        f"most. {count(channels, 'channel')} of {size} {'pixel' if window.height * window.width == 1 else 'pixels'}: "
        f"{window.height}·{window.width}·{channels} = {values}."
    )
    if any(walk.unread):
        caption += " Hatched: pixels that no window reads."
    alt = f"The image, its {h} by {w} patches, and one of them enlarged"
    return f"<h2>1. The image is cut</h2>\n<p>{text}</p>\n{figure_html(cut(walk), alt, caption)}"


def number_of_windows(walk: Walk) -> str:
    """Write the formula of the number of windows with its values, for each axis; empty if the formula does not hold.

    The padding is derived from the windows: a window that begins before the border contains rows of zeros.
    """
    lines = {}
    for axis, name in enumerate(("down", "across")):
        n, g, s = walk.pixels.shape[1 + axis], walk.layout.grid_size[axis], walk.stride[axis]
        k, top = (walk.window.height, walk.window.top) if axis == 0 else (walk.window.width, walk.window.left)
        pad = walk.place[axis] * s - top
        if pad < 0 or (n + 2 * pad - k) // s + 1 != g:
            return ""
        lines[name] = f"⌊({n}{f' + 2·{pad}' if pad else ''} − {k})/{s}⌋ + 1 = {g}"
    if len(set(lines.values())) == 1:
        formulas = f"{lines['down']} each way"
    else:
        formulas = ", ".join(f"{line} {name}" for name, line in lines.items())
    zeros = "" if "2·" not in formulas else " with zeros around it"
    return f"As many as fit into the image{zeros}, the first and one more for each whole step: {formulas}."


def seams(walk: Walk) -> str:
    """Say whether neighbouring pixels always lie in a common window."""
    whole = walk.window.height > walk.stride[0] and walk.window.width > walk.stride[1]
    if not whole:
        return "Along one axis windows lie edge to edge, so seams remain there."
    return "Two pixels side by side always lie together in some window, so nothing is cut apart at a seam" + (
        ", among the pixels that are read." if any(walk.unread) else "."
    )


def pixels_lost(walk: Walk) -> str:
    """Name the rows and columns of pixels that no window reads; empty if there are none."""
    rows, cols = walk.unread
    if not rows and not cols:
        return ""
    named = [
        f"{noun if len(numbers) == 1 else noun + 's'} {spans(numbers)}"
        for noun, numbers in (("row", rows), ("column", cols))
        if numbers
    ]
    tall, wide = walk.pixels.shape[1:]
    lost = len(rows) * wide + len(cols) * tall - len(rows) * len(cols)
    are = "is" if len(rows) + len(cols) == 1 else "are"
    at_the_end = rows == list(range(tall))[tall - len(rows) :] and cols == list(range(wide))[wide - len(cols) :]
    why = "another step would lead out of the image, so" if at_the_end else "windows leave gaps there, so"
    return (
        f"<strong>{listed(named).capitalize()} of the image {are} read by no window:</strong> {why} "
        f"{count(lost, 'pixel')} of {tall * wide:,} never reach the network."
    )


def spans(numbers: Sequence[int]) -> str:
    """Write numbers as spans: 3, 7 to 9."""
    runs: list[list[int]] = []
    for n in numbers:
        if runs and n == runs[-1][-1] + 1:
            runs[-1].append(n)
        else:
            runs.append([n])
    return listed([f"{run[0]} to {run[-1]}" if len(run) > 1 else str(run[0]) for run in runs])


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

    if walk.overlaps or walk.reads_all or (window.height, window.width) != walk.stride:
        neighbouring_windows(pieces, walk)
    else:
        tiles(pieces, walk)
    outline(whole, window.top, window.left, window.height, window.width, FOLLOWED)
    hatch(whole, walk)

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
    patch.set_xlabel("column of the window (pixels)" if walk.overlaps else "column of the patch (pixels)")
    for side in patch.spines.values():
        side.set(edgecolor=FOLLOWED, linewidth=2)
    return fig


def hatch(ax: Axes, walk: Walk) -> None:
    """Mark the rows and columns of pixels that no window reads."""
    tall, wide = walk.pixels.shape[1:]
    style: Any = {"hatch": "////", "facecolor": "#ffffff80", "edgecolor": OUTLINES[3], "linewidth": 0}
    for row in walk.unread[0]:
        ax.add_patch(Rectangle((-0.5, row - 0.5), wide, 1, **style))
    for col in walk.unread[1]:
        ax.add_patch(Rectangle((col - 0.5, -0.5), 1, tall, **style))


def tiles(ax: Axes, walk: Walk) -> None:
    """Draw the patches of the image with gaps between them."""
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
    bare(ax, f"cut into {rows} × {cols} = {count(rows * cols, 'patch', 'patches')}")
    for side in ax.spines.values():
        side.set_visible(False)


def neighbouring_windows(ax: Axes, walk: Walk) -> None:
    """Draw the followed window and its neighbours on the image around them."""
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
    ax.set_title(f"{rows} × {cols} = {count(rows * cols, 'window')}, {down} × {right} pixels apart")


def picture(walk: Walk) -> np.ndarray:
    """Return the image as an array for imshow."""
    return colours(walk.pixels / 255)
