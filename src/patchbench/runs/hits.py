"""Answers of a run to each image of its test split: right or wrong, a bit an image, in the order of the split.

They stand in the record beside `result`, where all runs share the test images; a generated set may draw them anew for
every run. Images that were not asked, because they do not decode or `limit_batches` left them out, are marked.
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
    """Answers by image. right: false where the image was not asked."""

    right: Bool[np.ndarray, " n"]
    asked: Bool[np.ndarray, " n"]

    def packed(self) -> dict[str, Any]:
        """Plain values for the record: the number of images, and bits as base64; `asked` is null if all images were."""
        return {
            "images": len(self.right),
            "right": as_text(self.right),
            "asked": None if self.asked.all() else as_text(self.asked),
        }


def unpacked(packed: Mapping[str, Any]) -> Hits:
    """Answers from the plain values of `Hits.packed`."""
    images, asked = packed["images"], packed["asked"]
    return Hits(as_bits(packed["right"], images), np.ones(images, bool) if asked is None else as_bits(asked, images))


def read_hits(folder: Path) -> Hits | None:
    """Answers of the run in a folder; None where its record has none.

    FileNotFoundError without a record, ValueError where it is damaged.
    """
    packed = read_record(folder / "run.json").get("hits")
    try:
        return None if packed is None else unpacked(packed)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{folder / 'run.json'} is damaged (its hits: {error}): train it again by rerun=true"
        ) from error


def as_text(bits: Bool[np.ndarray, " n"]) -> str:
    return base64.b64encode(np.packbits(bits).tobytes()).decode()


def as_bits(text: str, count: int) -> Bool[np.ndarray, " n"]:
    return np.unpackbits(np.frombuffer(base64.b64decode(text), np.uint8), count=count).astype(bool)
