"""Random numbers as a function of counters (Salmon et al., 2011), the same on any device, rank or worker.

A *draw* is an integer that stands for one showing of one image. Whatever is random about that showing, its noise, its
crop, its flip, follows from the draw alone: not from the batch it came in, nor from what was drawn before.
"""

from enum import IntEnum

import torch
from jaxtyping import Float, Int
from torch import Tensor

STEP = -7046029254386353131  # 2^64 / golden ratio, as SplitMix64 steps (Steele et al., 2014); int64 wraps as needed


def hashed(x: Int[Tensor, "*n"]) -> Int[Tensor, "*n"]:
    """SplitMix64's finaliser: a bijection of 64-bit integers in which each bit of `x` moves half of the result's."""
    x = (x ^ ((x >> 30) & (2**34 - 1))) * -4658895280553007687
    x = (x ^ ((x >> 27) & (2**37 - 1))) * -7723592293110705685
    return x ^ ((x >> 31) & (2**33 - 1))


def keyed(key: Int[Tensor, "*n"], counter: Int[Tensor, "*m"] | int) -> Int[Tensor, "*k"]:
    """Number `counter` of the sequence that `key` starts."""
    return hashed(key) + STEP * (torch.as_tensor(counter, device=key.device) + 1)


def train_draws(seed: int, epoch: int, places: Int[Tensor, " b"]) -> Int[Tensor, " b"]:
    """Of the images at `places` of an epoch's order. Never negative: `eval_draws` are."""
    return hashed(keyed(keyed(torch.tensor(seed), epoch), places)) & (2**63 - 1)


def eval_draws(split: int, indices: Int[Tensor, " b"]) -> Int[Tensor, " b"]:
    """Of the fixed images of a split, whatever the seed of the run."""
    return hashed(keyed(torch.tensor(split), indices)) | torch.iinfo(torch.int64).min


def uniform(draws: Int[Tensor, " b"], count: int, purpose: int = 0) -> Float[Tensor, "b {count}"]:
    """`count` numbers in [0, 1) for each draw; independent for different purposes."""
    counters = torch.arange(count, device=draws.device)
    bits = hashed(keyed(keyed(draws, purpose)[:, None], counters))
    return ((bits >> 40) & (2**24 - 1)).float() * 2.0**-24


def normal(draws: Int[Tensor, " b"], count: int, purpose: int = 0) -> Float[Tensor, "b {count}"]:
    """`count` numbers of mean 0 and standard deviation 1 for each draw: of 65,536 values, four from each hash."""
    counters = torch.arange(-(-count // 4), device=draws.device)
    bits = hashed(keyed(keyed(draws, purpose)[:, None], counters)).view(torch.int16)[:, :count]
    return torch.erfinv((bits.float() + 0.5) * 2.0**-15) * 2**0.5


class Purpose(IntEnum):
    CROP = 101
    FLIP = 102
    RANDAUGMENT = 103
    THREE = 104
    JITTER = 105
    ERASE = 106
    NOISE = 107
    MIX = 108
