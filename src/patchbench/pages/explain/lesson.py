"""All that the page of an input stage shows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from patchbench.pages.explain.augmented import Showings
from patchbench.pages.explain.bill import Bill
from patchbench.pages.explain.walk import Step, Walk


@dataclass(frozen=True)
class Lesson:
    """All that a page is made of. schemes: who fills which place, in the order of the places."""

    title: str
    options: str  # as on the command line
    weights: str  # where they come from, as a sentence
    trained: bool
    walk: Walk
    steps: Sequence[Step]
    bills: Sequence[Bill]
    schemes: Mapping[str, str]
    net: Any
    showings: Showings | None  # what training makes of some images, if it changes them
    left_out: str  # why there are no pictures of position, if there are none
