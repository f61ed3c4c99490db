"""Answers of a run to each image of its test split: right or wrong, one bit an image, in the order of the split.

The record stores them beside `result` if all runs share the test images; a generated set may draw other test images
for every run. Images that were not asked, because they do not decode or `limit_batches` left them out, are marked.
"""

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool

from patchbench.runs.record import read_record


@dataclass(frozen=True)
class Hits:
    """Answers by image. right: the answer is right; false if the image was not asked. asked: the image was asked."""

    right: Bool[np.ndarray, " n"]
    asked: Bool[np.ndarray, " n"]

    def packed(self) -> dict[str, Any]:
        """Return values for the record: the number of images, and bits as base64. asked: null if all were asked."""
        return {
            "images": len(self.right),
            "right": to_base64(self.right),
            "asked": None if self.asked.all() else to_base64(self.asked),
        }


def unpacked(packed: Mapping[str, Any]) -> Hits:
    """Restore answers from the plain values of `Hits.packed`."""
    images, bits = packed["images"], packed["asked"]
    return Hits(
        from_base64(packed["right"], images), np.ones(images, bool) if bits is None else from_base64(bits, images)
    )


def read_hits(folder: Path) -> Hits | None:
    """Read the answers of the run in a folder; None if its record has no answers.

    FileNotFoundError if there is no record, ValueError if it is damaged.
    """
    packed = read_record(folder / "run.json").get("hits")
    try:
        return None if packed is None else unpacked(packed)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{folder / 'run.json'} is damaged (its hits: {error}): train it again by rerun=true"
        ) from error


def to_base64(bits: Bool[np.ndarray, " n"]) -> str:
    return base64.b64encode(np.packbits(bits).tobytes()).decode()


def from_base64(text: str, count: int) -> Bool[np.ndarray, " n"]:
    return np.unpackbits(np.frombuffer(base64.b64decode(text), np.uint8), count=count).astype(bool)
