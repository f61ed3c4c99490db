"""Attention of a network: its distance, and its rollout through all layers."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from patchbench.checks import Size

ROLLOUTS = 6  # images


@dataclass(frozen=True)
class Attention:
    """Distance and rollout of the attention of a network."""

    distance: Float[Tensor, "layers heads"]  # in pixels
    uniform: float  # distance of uniform attention, in pixels
    rollout: Float[Tensor, "k h w"]  # of the first ROLLOUTS images


@contextmanager
def recorded(net: Any) -> Iterator[list[Tensor]]:
    """Record the attention of all blocks in the forward passes inside this context: `b heads l l`, rows sum to one.

    Fused attention does not expose its weights, so the blocks use unfused attention meanwhile.
    """
    recording: list[Tensor] = []
    fused = [block.attn.fused_attn for block in net.blocks]
    hooks = [
        block.attn.attn_drop.register_forward_hook(lambda _, inputs, __: recording.append(inputs[0].detach()))
        for block in net.blocks
    ]
    try:
        for block in net.blocks:
            block.attn.fused_attn = False
        yield recording
    finally:
        for block, before, hook in zip(net.blocks, fused, hooks, strict=True):
            block.attn.fused_attn = before
            hook.remove()


def attention(net: Any, images: Float[Tensor, "b c H W"]) -> Float[Tensor, "layers b heads l l"]:
    """Return the attention of all layers."""
    with recorded(net) as recording, torch.no_grad():
        net(images)
    return torch.stack(recording).float()


def distances(grid_size: Size, step: tuple[float, float]) -> Float[Tensor, "n n"]:
    """Return the distances between the centres of all pairs of places of a grid.

    step: distance between neighbouring rows, and between neighbouring columns.
    """
    rows, cols = torch.meshgrid(*(torch.arange(n) * s for n, s in zip(grid_size, step, strict=True)), indexing="ij")
    places = torch.stack([rows.flatten(), cols.flatten()], 1).double()
    return torch.cdist(places, places).float()


def mean_distance(
    attention: Float[Tensor, "layers b heads l l"], distances: Float[Tensor, "n n"]
) -> Float[Tensor, "layers heads"]:
    """Return the mean distance between a query and the keys, weighted by attention (Dosovitskiy et al., 2021, D.7).

    Prefix tokens have no place, so they are left out, as queries and as keys.
    """
    n = len(distances)
    patches = attention[..., -n:, -n:]
    return ((patches * distances).sum(-1) / patches.sum(-1).clamp_min(1e-12)).mean((1, 3))


def rollout(attention: Float[Tensor, "layers b heads l l"], pool: str, num_prefix_tokens: int) -> Float[Tensor, "b n"]:
    """Return the share of each patch in the input of the head, through the attention of all layers.

    Rollout (Abnar & Zuidema, 2020): each layer counts as the average of two matrices, its attention (mean over heads)
    and the identity, which represents the residual stream. The product of all layers is read at the class token, or
    averaged over patches. The shares of the patches of an image sum to one.
    """
    _, b, _, l, _ = attention.shape  # noqa: E741
    reads = torch.zeros(b, 1, l, device=attention.device)
    if pool == "cls":
        reads[..., 0] = 1
    else:
        reads[..., num_prefix_tokens:] = 1 / (l - num_prefix_tokens)
    for layer in attention.flip(0):  # from the last to the first layer: vector times matrix is cheaper
        reads = (reads @ layer.mean(1) + reads) / 2
    patches = reads[:, 0, num_prefix_tokens:]
    return patches / patches.sum(1, keepdim=True)


def measure_attention(net: Any, images: Float[Tensor, "b c H W"], img_size: Size) -> Attention:
    """Measure attention image by image, because the attention of one image may fill the memory."""
    grid_size = net.layout.grid_size
    pixels = distances(grid_size, (img_size[0] / grid_size[0], img_size[1] / grid_size[1])).to(images.device)
    distance: list[Tensor] = []
    rollouts: list[Tensor] = []
    for image in images:
        weights = attention(net, image[None])
        distance.append(mean_distance(weights, pixels).cpu())
        if len(rollouts) < ROLLOUTS:
            rollouts.append(rollout(weights, net.pool, net.layout.num_prefix_tokens).cpu())
    shares = torch.cat(rollouts).unflatten(1, grid_size)
    return Attention(torch.stack(distance).mean(0), float(pixels.mean()), shares)
