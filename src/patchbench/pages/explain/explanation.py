"""All that a page about an input stage shows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from patchbench.pages.explain.augmented import AugmentedSamples
from patchbench.pages.explain.breakdown import CostBreakdown
from patchbench.pages.explain.walk import Step, Walk


@dataclass(frozen=True)
class Explanation:
    """The content of the page, measured and counted, before it is written."""

    title: str
    options: str  # as on the command line
    weights: str  # a sentence that says where the weights come from
    trained: bool
    walk: Walk
    steps: Sequence[Step]
    breakdowns: Sequence[CostBreakdown]
    schemes: Mapping[str, str]  # place: the scheme that fills it, in the order of the places
    net: Any
    augmented: AugmentedSamples | None  # some images as training shows them, if it changes them
    left_out: str  # a sentence that says why there are no figures of position, empty if there are
