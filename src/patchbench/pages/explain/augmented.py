"""What training makes of a few images: each as it is, and as the network meets it, with what it is told they are."""

from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import shorten

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor

from patchbench.pages.plots import WIDTH, bare, colours, figure


@dataclass(frozen=True)
class Showings:
    """One row for each image: first as it is, then as training shows it. Pixels in 0 ... 1; the share of each class."""

    pixels: Float[Tensor, "n s c H W"]
    labels: Float[Tensor, "n s classes"]
    names: Sequence[str]  # of the classes


def grid(showings: Showings) -> Figure:
    rows, columns, _, tall, wide = showings.pixels.shape
    tile = WIDTH / columns
    fig = figure(rows * (tile * tall / wide + 0.4) + 0.2)
    axes = np.asarray(fig.subplots(rows, columns, squeeze=False))
    for row in range(rows):
        for column in range(columns):
            ax = axes[row, column]
            ax.imshow(colours(showings.pixels[row, column]), interpolation="nearest")
            bare(ax, "" if row else "as it is" if column == 0 else f"showing {column}", fontsize=10)
            ax.set_xlabel(told(showings.labels[row, column], showings.names), fontsize=8)
    return fig


def told(shares: Float[Tensor, " classes"], names: Sequence[str]) -> str:
    """The classes of an image, the largest share first; without shares where there is one only."""
    most = shares.topk(min(2, len(shares)))
    found = [
        (shorten(names[i], 20, placeholder="…"), share) for share, i in zip(*map(Tensor.tolist, most), strict=True)
    ]
    if round(100 * found[0][1]) == 100:
        return found[0][0]
    return "\n".join(f"{name} {share:.0%}" for name, share in found)
