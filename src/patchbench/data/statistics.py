"""Mean and standard deviation of the pixels of a data set."""

from collections.abc import Sequence

import torch
from jaxtyping import UInt8
from torch import Tensor

from patchbench.data.source import Split

IMAGES = 1024  # with images of 224 pixels the mean is then known to 0.01


def check_statistics(mean: Sequence[float] | None, std: Sequence[float] | None, in_chans: int) -> None:
    """Raise ValueError unless mean and std have one value for each channel, or are None and will be measured."""
    for name, values in (("mean", mean), ("std", std)):
        if values and (len(values) != in_chans or (name == "std" and min(values) <= 0)):
            raise ValueError(
                f"{name}={list(values)} must be a number {'above 0 ' if name == 'std' else ''}for each of the "
                f"{in_chans} channels, or null to measure it"
            )


def statistics(train: Split, in_chans: int) -> tuple[list[float], list[float], int]:
    """Return mean and standard deviation per channel, of pixels in 0 ... 1, and the highest level of 0 ... 255.

    They are measured on evenly spaced training images.
    """
    count = min(IMAGES, len(train))
    chosen = [i * len(train) // count for i in range(count)]
    moments, pixels, highest = torch.zeros(2, in_chans, dtype=torch.float64), 0, 0
    for start in range(0, count, 64):
        levels = train.read(chosen[start : start + 64])[0]
        highest = max(highest, int(levels.max())) if len(levels) else highest
        images = levels.double() / 255
        moments += torch.stack([images.sum((0, 2, 3)), images.square().sum((0, 2, 3))])
        pixels += images[:, 0].numel()
    first, second = moments / max(pixels, 1)
    # At least one grey level, because images are divided by it; for images of one colour see `check_variety`.
    spread = (second - first.square()).clamp(min=0).sqrt().clamp(min=1 / 255)
    return first.tolist(), spread.tolist(), highest


def check_identical(split: Split, kind: str) -> tuple[UInt8[Tensor, "n c H W"], str]:
    """Return evenly spaced images of a split, and a sentence if all of them are identical, else "".

    kind: word for the images in the sentence, such as `training`.
    """
    for at_most in (64, IMAGES):  # more images only if the first ones are identical
        count = min(at_most, len(split))
        images, _ = split.read([i * len(split) // count for i in range(count)])
        if len(images) < 2 or not bool((images == images[:1]).all()):
            return images, ""
    low, high = int(images.min()), int(images.max())
    levels = f"every pixel is {low} of 255" if low == high else f"levels {low} to {high} of 255"
    return images, f"all of {len(images)} {kind} images that were checked are the same ({levels})"


def check_variety(train: Split, known_remarks: Sequence[str] = ()) -> list[str]:
    """List remarks on channels that are constant in the training images. ValueError if all images are identical.

    known_remarks: remarks of the set, which may explain the reason.
    """
    images, same = check_identical(train, "training")
    if same:
        raise ValueError(
            f"{same}: nothing can be learnt from them; look at the files, and see how one is read: "
            "python scripts/explain.py with the same options" + "".join(f"; {remark}" for remark in known_remarks)
        )
    dead = [c for c in range(images.shape[1]) if len(images) > 1 and images[:, c].min() == images[:, c].max()]
    if not dead:
        return []
    which = f"channel{'s' * (len(dead) > 1)} {', '.join(map(str, dead))} (from 0)"
    return [f"{which} of {images.shape[1]} had one value in all of {len(images)} training images that were checked"]
