"""The figure of robustness: accuracy on images that are shuffled, scaled or moved."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from scipy.stats import binomtest

from patchbench.pages.analyze.scales import GREY
from patchbench.pages.plots import OUTLINES, figure


def robustness(robust: Mapping[str, float]) -> Figure:
    """Draw accuracy with its 95 % Wilson interval (Wilson, 1927), for each view, and by the distance in pixels.

    robust: `<view>/acc` and `<view>/same`, and the number of `images`.
    """
    images = round(robust["images"])
    views = [name.removesuffix("/acc") for name in robust if name.endswith("/acc")]
    moves = sorted(int(name.removeprefix("moved")) for name in views if name.startswith("moved"))
    others = [name for name in views if not name.startswith("moved")]
    fig = figure(max(3.6, 1.4 + 0.38 * len(others)))
    left, right = fig.subplots(1, 2)

    def interval(name: str) -> tuple[float, list[list[float]]]:
        share = robust[f"{name}/acc"]
        wilson = binomtest(round(share * images), images).proportion_ci(method="wilson")
        return 100 * share, [[100 * max(0, share - wilson.low)], [100 * max(0, wilson.high - share)]]

    style: Any = {"color": OUTLINES[0], "capsize": 3, "linewidth": 1.5}
    for row, name in enumerate(others):
        share, error = interval(name)
        left.errorbar(share, row, xerr=error, fmt="o", **style)
    left.axvline(interval("moved0")[0], **GREY)
    left.set_yticks(range(len(others)), [view_label(name) for name in others])
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


def view_label(name: str) -> str:
    """Turn the name of a view, `scale48` or `shuffled_pixels`, into the label of an axis."""
    return f"scaled to {name.removeprefix('scale')} pixels" if name.startswith("scale") else name.replace("_", " ")
