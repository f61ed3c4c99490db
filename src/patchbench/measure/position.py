"""Measurements of the positional schemes of a network: vectors of places, angles, and bias against distance."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from patchbench.checks import Size
from patchbench.measure import places, spectrum
from patchbench.measure.attention import distances


@dataclass(frozen=True)
class Positions:
    """One vector for each place: the vector that is added to the token, or the sines and cosines of its angles."""

    table: places.Table
    singular: Float[Tensor, " m"]  # singular values after subtracting the mean, as shares of their sum
    energy: Float[Tensor, "h w"]  # see `spectrum.grid_energy`


@dataclass(frozen=True)
class Bias:
    """Attention bias against distance, for each block and head."""

    pixels: Float[Tensor, " k"]  # distances in pixels
    means: Float[Tensor, "blocks heads k"]  # mean bias of all pairs of places at this distance, in logits
    slopes: Float[Tensor, "blocks heads"]  # regression over all pairs of places, in logits per patch


def positions(net: Any) -> dict[str, Positions]:
    """Measure the schemes that have one vector for every place, independent of the image; keys are `places` names.

    If several blocks have separate modules, the first one is measured.
    """
    grid_size, by_place = net.layout.grid_size, {}
    for place in ("tokens", "rotation"):
        if not (modules := places.modules(net, place)):
            continue
        table = (
            places.table(modules[0], grid_size, net.layout.embed_dim)
            if place == "tokens"
            else places.rotation_table(modules[0], grid_size)
        )
        if table is not None:
            flat = table.vectors.flatten(0, 1)
            singular = torch.linalg.svdvals((flat - flat.mean(0)).double())
            shares = (singular / singular.sum()).float()
            by_place[place] = Positions(table, shares, spectrum.grid_energy(table.vectors))
    return by_place


def turns(net: Any) -> Float[Tensor, "blocks heads d 2"]:
    """Return the rotation in radians of each pair of channels from one patch to the next, down and across.

    Angles are in -pi ... pi, because full turns cannot be seen.
    """
    grid_size, blocks = net.layout.grid_size, []
    for rotation in places.modules(net, "rotation"):
        with torch.no_grad():
            sincos = rotation(grid_size).cpu()
        sin, cos = sincos.reshape(-1, *sincos.shape[-2:]).unflatten(1, grid_size).chunk(2, -1)
        angle = torch.atan2(sin, cos)[..., ::2]  # neighbouring channels form a pair
        corner, *neighbours = (
            angle[:, 0, 0],
            angle[:, min(1, grid_size[0] - 1), 0],
            angle[:, 0, min(1, grid_size[1] - 1)],
        )
        steps = [torch.remainder(x - corner + math.pi, 2 * math.pi) - math.pi for x in neighbours]
        blocks.append(torch.stack(steps, -1))
    return torch.stack(blocks)


def bias_by_distance(net: Any, img_size: Size) -> Bias:
    """Measure the bias of all pairs of places against their distance, rounded to whole patches."""
    grid_size = net.layout.grid_size
    step = max(size / n for size, n in zip(img_size, grid_size, strict=True))
    patches = distances(grid_size, (1.0, 1.0)).flatten()
    bins = patches.round().long()
    counts = bins.bincount()
    centred = (patches - patches.mean()).double()
    means, slopes = [], []
    for module in places.modules(net, "bias"):
        with torch.no_grad():
            logits = module(grid_size).flatten(1).double()
        sums = torch.zeros(len(logits), len(counts)).double().index_add_(1, bins, logits)
        means.append(sums / counts)
        slopes.append(logits @ centred / centred.square().sum())
    return Bias(torch.arange(len(counts)) * step, torch.stack(means).float(), torch.stack(slopes).float())
