"""Shortcuts on every generated set: they score at chance, or no more than this table allows, for the given reason.

A shortcut is a few numbers of an image. Its score is the accuracy of the best of three classifiers that know where each
patch lies (boosted trees, quadratic and linear discriminant), or of a linear classifier if the shortcut is linear. A
shortcut is at chance if its accuracy on 4,000 new images is not above chance at p = 1e-4, which means less than three
points above chance.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from jaxtyping import Float
from scipy.stats import binomtest
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis, QuadraticDiscriminantAnalysis
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.neighbors import NearestCentroid
from support import configure, generated, some
from torch import Tensor

from patchbench.commands.build import build_source
from patchbench.data.diagnostics.stream import Diagnostic
from patchbench.data.draws import Purpose, train_draws, uniform
from patchbench.embed.channels import STANDARDS

Images = Float[Tensor, "b c H W"]
Numbers = Float[Tensor, "b k"]
FITTED, TESTED = 8000, 4000  # images

PLACE = "the place of the square is the question, and one number finds the square"
IN_PATCH = "the label lies in the look of single patches, whose order is of no use"
PART = "any number of a patch holds a part of what the label is made of"
HUES = "other weights than those of luminance see the hues"
MIX = "red plus green is larger where the two go together"
NEAR = "the square of one colour, if it lies at the left, is likely the left one of the two: no layout avoids that"
PLAIN = "two plain tiles, one, or none: the sum tells the plain tile from the others, which leaves 75 %"
VALUES = "a sum of the values agrees with each of them more often than not: see Pointer.ceiling_of"

# The highest allowed score of each shortcut, and the reason, by set; other shortcuts must be at chance.
ALLOWED: dict[str, dict[str, tuple[float, str]]] = {
    "arrangement": {"border": (0.98, "the block fills the image, and a border of each tile tells which it is")},
    "correlated_channels": {
        "sum": (0.87, MIX),
        "min": (0.60, MIX),
        "max": (0.61, MIX),
        "bag": (0.92, IN_PATCH),
        "border": (0.60, IN_PATCH),
        "colour": (0.65, MIX),
        "luminance": (0.91, MIX),
    },
    "isoluminant": {
        "sum": (0.66, HUES),
        "min": (0.56, HUES),
        "max": (0.58, HUES),
        "projection": (0.57, HUES),
        "border": (0.76, IN_PATCH),
        "bag": (0.98, IN_PATCH),
        "mean": (0.98, "every pixel of an image has the same expected hue"),
        "colour": (0.99, "colour is the question, and the image is as good as its mean"),
        "red": (0.89, "red is brighter in one of the two hues; green is needed to take the noise off"),
    },
    "left_of": {
        "projection": (0.58, "a number with weights of its own for red and green tells the colours apart"),
        "border": (0.66, NEAR),
        "mean": (0.81, NEAR),
        "red": (5 / 6, NEAR),
        "luminance": (0.73, "red and green are not equally bright"),
    },
    "motif": {
        "max": (0.60, "where the border of a patch cuts a motif, the number of bright pixels in each part tells"),
        "squares": (0.58, "as with the largest pixel"),
        "projection": (0.58, PART),
        "bag": (0.86, IN_PATCH),
    },
    "pointer": {
        "sum": (0.63, VALUES),
        "max": (0.56, "one more bright value makes the largest of them larger, by little"),
        "projection": (0.63, VALUES),
        "border": (0.78, "three of four pixels of two cells side by side lie there"),
        "bag": (0.61, VALUES),
        "mean": (0.61, VALUES),
        "colour": (0.68, VALUES),
        "red": (0.63, VALUES),
        "luminance": (0.63, VALUES),
    },
    "quadrant": {
        "sum": (0.99, PLACE),
        "min": (0.72, PLACE),
        "max": (0.61, PLACE),
        "squares": (0.75, PLACE),
        "border": (0.50, "half of the squares touch it"),
        "mean": (0.86, PLACE),
    },
    "same_different": {
        "sum": (0.75, PLAIN),
        "min": (0.65, PLAIN),
        "projection": (0.61, PART),
        "colour": (0.58, PLAIN),
    },
    "stripes": {
        "projection": (0.64, PART),
        "border": (0.59, IN_PATCH),
        "bag": (0.76, IN_PATCH),
    },
    "texture": {
        "projection": (0.55, PART),
        "border": (0.48, IN_PATCH),
        "bag": (0.86, IN_PATCH),
        "mean": (
            0.36,
            "a grating's own mean image varies most along it, so the largest of four numbers is its own too often",
        ),
    },
}
COLOUR = ("red", "luminance")
LINEAR: dict[str, Any] = {
    "mean": NearestCentroid(),
    "bag": LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.1),
}

# Share of the squared difference between classes that lies in the last row and column, where it exceeds their share of
# the pixels.
AT_THE_BORDER = {
    "arrangement": (0.38, "all tiles have a bright upper left quarter, so they differ in the other three"),
    "same_different": (0.38, "the same tiles, one of them at the right edge"),
}


def patches(images: Images, size: int) -> Float[Tensor, "b n k"]:
    return images.unfold(2, size, size).unfold(3, size, size).permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(1, 2)


def ordered(numbers: Float[Tensor, "b n"]) -> Numbers:
    """Return the numbers of the patches in the order of the patches, then the same numbers sorted (a bag)."""
    return torch.cat([numbers, numbers.sort(1).values], 1)


def some_projection(values: int, count: int) -> Float[Tensor, "values count"]:
    return torch.randn(values, count, generator=torch.Generator().manual_seed(0)) / values**0.5


def luminance(images: Images) -> Images:
    return torch.einsum("b c h w, c -> b h w", images, torch.tensor(STANDARDS["rec601"]))[:, None]


SHORTCUTS: dict[str, Callable[[Images, int], Numbers]] = {
    # one number of each patch, and where the patch lies
    "sum": lambda images, p: ordered(patches(images, p).sum(2)),
    "min": lambda images, p: ordered(patches(images, p).amin(2)),
    "max": lambda images, p: ordered(patches(images, p).amax(2)),
    "squares": lambda images, p: ordered(patches(images, p).square().sum(2)),
    "projection": lambda images, p: ordered((patches(images, p) @ some_projection(3 * p * p, 1))[..., 0]),
    # the mean over patches of a random feature map, without the order of patches
    "bag": lambda images, p: (patches(images, p) / 25 @ some_projection(3 * p * p, 300)).relu().mean(1),
    # the last row and the last column alone
    "border": lambda images, p: torch.cat([images[:, :, -1], images[:, :, :, -1]], 2).flatten(1),
    # a linear classifier compares an image with the mean images of the classes
    "mean": lambda images, p: images.flatten(1),
    # the mean of each channel; one channel; luminance. The last two are skipped for grey sets
    "colour": lambda images, p: images.mean((2, 3)),
    "red": lambda images, p: torch.cat(
        [ordered(patches(images[:, :1], p).sum(2)), ordered(patches(images[:, :1], p).square().sum(2))], 1
    ),
    "luminance": lambda images, p: ordered(patches(luminance(images), p).sum(2)),
}


def score(features: Numbers, labels: Tensor, classifier: Any | None) -> int:
    """Count the new images that the classifier, or the best of three, classifies correctly."""
    spread = features.std(0)
    features = ((features - features.mean(0)) / (spread + 1e-6))[:, spread > 0]
    known, new, y, truth = *features.split([FITTED, TESTED]), *(part.numpy() for part in labels.split([FITTED, TESTED]))
    classifiers = [
        HistGradientBoostingClassifier(
            max_iter=25, max_leaf_nodes=8, learning_rate=0.2, early_stopping=False, random_state=0
        ),
        QuadraticDiscriminantAnalysis(reg_param=0.1),
        LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.1),
    ]
    if classifier is not None:
        classifiers = [classifier]
    return max(int((c.fit(known.numpy(), y).predict(new.numpy()) == truth).sum()) for c in classifiers)


def scores(source: Diagnostic, patch: int) -> dict[str, int]:
    """Count the new images that each shortcut classifies correctly; all shortcuts use the same images."""
    count = FITTED + TESTED
    images, labels = source.splits()["train"].read(range(count), train_draws(0, 0, torch.arange(count)))
    images = images.float() - 128
    grey = torch.equal(images[:, 0], images[:, 1])
    return {
        name: score(numbers(images, patch), labels, LINEAR.get(name))
        for name, numbers in SHORTCUTS.items()
        if not (grey and name in COLOUR)
    }


def at_chance(right: int, chance: float) -> bool:
    return binomtest(right, TESTED, chance, alternative="greater").pvalue > 1e-4


@cache
def load(name: str) -> Diagnostic:
    return build_source(configure(f"data={name}"))


def test_the_table_has_every_generated_set_and_no_other():
    assert sorted(ALLOWED) == generated()
    assert {shortcut for allowed in ALLOWED.values() for shortcut in allowed} <= set(SHORTCUTS)


@pytest.mark.parametrize("name", some(generated(), "arrangement", "pointer"))
def test_a_shortcut_is_at_chance_or_scores_no_more_than_is_allowed(name):
    source, allowed = load(name), ALLOWED.get(name, {})
    found = {}
    for shortcut, right in scores(source, getattr(source.scene, "cell", 4)).items():
        accuracy, (most, _) = right / TESTED, allowed.get(shortcut, (0.0, ""))
        if at_chance(right, source.chance) == (shortcut in allowed) or (most and accuracy > most):
            found[shortcut] = f"{accuracy:.1%}, of {most:.0%}" if most else f"{accuracy:.1%}"
    assert not found


class TwoSigns:
    """Two pixels of one cell with equal or opposite signs: an earlier set, solved by one number of a patch."""

    num_classes, mirrors, chance, noise, noise_chans = 2, True, 0.5, 10.0, 1

    def check_size(self, img_size):
        pass

    def ceiling(self, img_size):
        return 1.0

    def draw(self, draws, labels, img_size):
        chosen = uniform(draws, 16, Purpose.SCENE).argsort(1)[:, :2]
        sign = (uniform(draws, 1, Purpose.LABEL) < 0.25).float() * 160 - 80
        values = torch.cat([sign, sign * (1 - 2 * labels[:, None])], 1)
        return torch.zeros(len(draws), 16).scatter_(1, chosen, values).view(-1, 1, 4, 4)


def test_the_table_would_have_shown_that_one_number_solves_a_set_of_two_signs():
    sizes = {"train_size": 10, "val_size": 10, "test_size": 10}
    planted = Diagnostic(scene=TwoSigns(), unit=1.0, img_size=4, eval_seed=0, **sizes)
    found = scores(planted, 4)
    assert found["sum"] > 0.9 * TESTED
    assert at_chance(found["mean"], 0.5)


def test_absolute_places_alone_tell_which_square_is_further_left():
    """A sum over pixels, weighted by column, is enough: no patch is compared with another."""
    source = build_source(configure("data=left_of", "data.scene.contrast=40.0"))
    images, labels = source.splits()["train"].read(range(4000), train_draws(0, 0, torch.arange(4000)))
    columns = torch.arange(16.0) - 7.5
    further_right = ((images[:, 0].float() - images[:, 1].float()) * columns).sum((1, 2)) > 0
    assert 0.93 < (further_right == (labels == 0)).float().mean() < 0.96
    tiles = build_source(configure("data=arrangement", "data.scene.orders=all"))
    images, labels = tiles.splits()["train"].read(range(12_000), train_draws(0, 0, torch.arange(12_000)))
    pixels = images[:, 0].flatten(1).float()
    linear = LinearDiscriminantAnalysis().fit(pixels[:8000].numpy(), labels[:8000].numpy())
    assert at_chance(int((linear.predict(pixels[8000:].numpy()) == labels[8000:].numpy()).sum()), 0.5), "not in others"


@pytest.mark.parametrize("name", generated())
def test_a_network_that_misses_the_last_row_and_column_misses_no_more_than_their_share(name):
    """Unpadded strides may not read the last row and column: their share of the squared difference must be fair."""
    source = load(name)
    draws, labels = train_draws(0, 0, torch.arange(4000)), torch.arange(4000) % source.num_classes
    one, other = (source.scene.draw(draws, k, source.img_size) for k in (labels, (labels + 1) % source.num_classes))
    difference = (one - other).square().sum((0, 1))
    height, width = source.img_size
    share = 1 - (difference[:-1, :-1].sum() / difference.sum()).item()
    fair = 1 - (height - 1) * (width - 1) / (height * width)
    most, _ = AT_THE_BORDER.get(name, (1.05 * fair, ""))
    assert share < most
    assert name not in AT_THE_BORDER or share > 1.05 * fair
