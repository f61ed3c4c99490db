"""Random numbers as a function of counters (Salmon et al., 2011), the same on any device, rank or worker.

A *draw* is an integer that identifies one presentation of one image. All random numbers of this presentation (noise,
crop, flip) are a function of the draw alone, not of the other images of the batch or of earlier draws. `Images`
separates the draws of different sets of fixed images, `Purpose` the random numbers of one draw.
"""

from enum import IntEnum, unique

import torch
from jaxtyping import Float, Int
from torch import Tensor

STEP = -7046029254386353131  # 2^64 / golden ratio, as SplitMix64 steps (Steele et al., 2014); int64 wraps as needed


@unique
class Images(IntEnum):
    """Sets of images that are the same at every reading: for `eval_draws`."""

    TRAIN = 0  # images of a generated set that are read without training draws
    VAL = 1
    TEST = 2
    CANVAS = 101  # test images on a larger canvas
    SHUFFLE = 102  # test images with shuffled patches


@unique
class Purpose(IntEnum):
    """Uses of the random numbers of a draw: for `uniform` and `normal`."""

    VIEW = 0  # place of a test image on a canvas, or order of its patches
    LABEL = 64  # label of a generated image
    SCENE = 65  # objects of a generated image and their places
    PIXEL_NOISE = 66  # noise of a generated image
    CROP = 101
    FLIP = 102
    RANDAUGMENT = 103
    THREE_AUGMENT = 104
    JITTER = 105
    ERASE = 106
    ERASE_NOISE = 107
    MIX = 108


def hashed(x: Int[Tensor, "*n"]) -> Int[Tensor, "*n"]:
    """Apply the finaliser of SplitMix64, a bijection of 64-bit integers: flipping one bit flips half of the result."""
    x = (x ^ ((x >> 30) & (2**34 - 1))) * -4658895280553007687
    x = (x ^ ((x >> 27) & (2**37 - 1))) * -7723592293110705685
    return x ^ ((x >> 31) & (2**33 - 1))


def keyed(key: Int[Tensor, "*n"], counter: Int[Tensor, "*m"] | int) -> Int[Tensor, "*k"]:
    """Return element `counter` of the sequence of integers with this key."""
    if isinstance(counter, int):  # a tensor would have to be copied to the device
        return hashed(key) + (STEP * (counter + 1) + 2**63) % 2**64 - 2**63
    return hashed(key) + STEP * (counter + 1)


def train_draws(seed: int, epoch: int, places: Int[Tensor, "*b"]) -> Int[Tensor, "*b"]:
    """Return the draws of the images at these places in the order of an epoch; they are never negative."""
    return hashed(keyed(keyed(torch.tensor(seed), epoch), places)) & (2**63 - 1)


def eval_draws(images: Images, indices: Int[Tensor, " b"], seed: int | None = None) -> Int[Tensor, " b"]:
    """Return the draws of fixed images with these indices; they are always negative, unlike training draws.

    seed: each seed, and None, gives other draws.
    """
    start = torch.tensor(int(images))
    start = start if seed is None else hashed(keyed(start, seed))
    return hashed(keyed(start, indices)) | torch.iinfo(torch.int64).min


def uniform(draws: Int[Tensor, " b"], count: int, purpose: Purpose) -> Float[Tensor, "b {count}"]:
    """Return `count` uniform numbers in [0, 1) for each draw, independent for different purposes."""
    counters = torch.arange(count, device=draws.device)
    bits = hashed(keyed(keyed(draws, int(purpose))[:, None], counters))
    return ((bits >> 40) & (2**24 - 1)).float() * 2.0**-24


def normal(draws: Int[Tensor, " b"], count: int, purpose: Purpose) -> Float[Tensor, "b {count}"]:
    """Return `count` normal numbers of mean 0 and standard deviation 1 for each draw, of 65,536 possible values."""
    counters = torch.arange(-(-count // 4), device=draws.device)
    bits = hashed(keyed(keyed(draws, int(purpose))[:, None], counters)).view(torch.int16)[:, :count]
    return torch.erfinv((bits.float() + 0.5) * 2.0**-15) * 2**0.5
