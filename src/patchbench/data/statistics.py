"""Mean and standard deviation of the pixels of a data set."""

from collections.abc import Sequence

import torch

from patchbench.data.source import Split

IMAGES = 1024  # of 224 pixels: the mean is then known to 0.01


def check_statistics(mean: Sequence[float] | None, std: Sequence[float] | None, in_chans: int) -> None:
    """ValueError if values are given for more or fewer channels than there are; None will be measured."""
    for name, values in (("mean", mean), ("std", std)):
        if values and (len(values) != in_chans or (name == "std" and min(values) <= 0)):
            raise ValueError(
                f"{name}={list(values)} must be a number {'above 0 ' if name == 'std' else ''}for each of the "
                f"{in_chans} channels, or null to measure it"
            )


def statistics(train: Split, in_chans: int) -> tuple[list[float], list[float]]:
    """Mean and standard deviation per channel, of pixels in 0 ... 1, over evenly spaced training images."""
    count = min(IMAGES, len(train))
    chosen = [i * len(train) // count for i in range(count)]
    moments, pixels = torch.zeros(2, in_chans, dtype=torch.float64), 0
    for start in range(0, count, 64):
        images = train.read(chosen[start : start + 64])[0].double() / 255
        moments += torch.stack([images.sum((0, 2, 3)), images.square().sum((0, 2, 3))])
        pixels += images[:, 0].numel()
    first, second = moments / max(pixels, 1)
    spread = (second - first.square()).clamp(min=0).sqrt().clamp(min=1 / 255)  # images of one colour have none
    return first.tolist(), spread.tolist()
