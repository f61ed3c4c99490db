"""The section on augmentation: some training images, unchanged and augmented, with their labels."""

from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import shorten

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor

from patchbench.html import figure_html
from patchbench.pages.plots import WIDTH, bare, colours, figure
from patchbench.words import count


@dataclass(frozen=True)
class AugmentedSamples:
    """Images in rows: first the unchanged image, then augmented versions."""

    pixels: Float[Tensor, "n s c H W"]  # in 0 ... 1
    labels: Float[Tensor, "n s classes"]  # share of each class
    names: Sequence[str]  # of the classes


def training(samples: AugmentedSamples) -> str:
    """Return the section: the effect of augmentation in words, and a figure."""
    rows, columns = samples.pixels.shape[:2]
    mixed = bool(((samples.labels > 0).sum(2) > 1).any())
    text = (
        "Training shows an image differently each time. The random changes depend only on the seed, the epoch and the "
        "place of the image in the epoch, so the same command shows the same again. Validation and test see the images "
        "as they are."
    )
    if mixed:
        text += " Where two images are mixed, so are the labels: the network has to predict the share of each class."
    images = count(rows, "training image")
    caption = f"{images} as they are, and {columns - 1} times as training shows them, with their labels."
    alt = f"{images} in {columns} columns: as they are, and augmented"
    return f"<h2>5. What training shows</h2>\n<p>{text}</p>\n{figure_html(grid(samples), alt, caption)}"


def grid(samples: AugmentedSamples) -> Figure:
    """Draw the images with their labels."""
    rows, columns, _, tall, wide = samples.pixels.shape
    tile = WIDTH / columns
    fig = figure(rows * (tile * tall / wide + 0.4) + 0.2)
    axes = np.asarray(fig.subplots(rows, columns, squeeze=False))
    for row in range(rows):
        for column in range(columns):
            ax = axes[row, column]
            ax.imshow(colours(samples.pixels[row, column]), interpolation="nearest")
            bare(ax, "" if row else "as it is" if column == 0 else f"showing {column}", fontsize=10)
            ax.set_xlabel(label_text(samples.labels[row, column], samples.names), fontsize=8)
    return fig


def label_text(shares: Float[Tensor, " classes"], names: Sequence[str]) -> str:
    """Spell the two largest classes of a label with their shares; the name alone if there is one class."""
    largest = shares.topk(min(2, len(shares)))
    classes = [
        (shorten(names[i], 20, placeholder="…"), share) for share, i in zip(*map(Tensor.tolist, largest), strict=True)
    ]
    if round(100 * classes[0][1]) == 100:
        return classes[0][0]
    return "\n".join(f"{name} {share:.0%}" for name, share in classes)
