"""Mean and standard deviation of the pixels of a data set."""

from collections.abc import Sequence

import torch

from patchbench.data.source import Split

IMAGES = 1024  # of 224 pixels: the mean is then known to 0.01


def statistics(
    train: Split, in_chans: int, mean: Sequence[float], std: Sequence[float]
) -> tuple[list[float], list[float]]:
    """Per channel, of pixels in 0 ... 1. What is empty is measured on training images, evenly spaced.

    ValueError where a value is given for more or fewer channels than there are.
    """
    for name, values in (("mean", mean), ("std", std)):
        if values and (len(values) != in_chans or (name == "std" and min(values) <= 0)):
            raise ValueError(
                f"data.{name}={list(values)} must be a number {'above 0 ' if name == 'std' else ''}for each of the "
                f"{in_chans} channels, or null to measure it"
            )
    if mean and std:
        return list(mean), list(std)
    count = min(IMAGES, len(train))
    chosen = [i * len(train) // count for i in range(count)]
    moments, pixels = torch.zeros(2, in_chans, dtype=torch.float64), 0
    for start in range(0, count, 64):
        images = train.read(chosen[start : start + 64])[0].double() / 255
        moments += torch.stack([images.sum((0, 2, 3)), images.square().sum((0, 2, 3))])
        pixels += images[:, 0].numel()
    first, second = moments / max(pixels, 1)
    spread = (second - first.square()).clamp(min=0).sqrt().clamp(min=1 / 255)  # images of one colour have none
    return list(mean or first.tolist()), list(std or spread.tolist())
