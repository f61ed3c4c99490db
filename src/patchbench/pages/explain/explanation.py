"""The data of a page about an input stage."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from patchbench.pages.explain.augmented import AugmentedSamples
from patchbench.pages.explain.breakdown import CostBreakdown
from patchbench.pages.explain.walk import Step, Walk


@dataclass(frozen=True)
class Explanation:
    """The data from which the page is written: measurements, costs and sentences."""

    title: str
    options: str  # as on the command line
    weights: str  # a sentence about the source of the weights
    trained: bool
    walk: Walk
    steps: Sequence[Step]
    breakdowns: Sequence[CostBreakdown]
    schemes: Mapping[str, str]  # scheme of each filled place, in the order of the places
    net: Any
    augmented: AugmentedSamples | None  # augmented images; None if training does not change images
    left_out: str  # the reason why there are no figures of position, empty if there are
