"""What tokens attend to: how far, and through all layers together."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from patchbench.checks import Size


@contextmanager
def recorded(net: Any) -> Iterator[list[Tensor]]:
    """Inside, a forward pass appends the attention of each block, `b heads l l`, rows summing to one.

    Fused attention does not show its weights: while recording, the blocks compute the same in steps.
    """
    found: list[Tensor] = []
    fused = [block.attn.fused_attn for block in net.blocks]
    hooks = [
        block.attn.attn_drop.register_forward_hook(lambda _, inputs, __: found.append(inputs[0].detach()))
        for block in net.blocks
    ]
    try:
        for block in net.blocks:
            block.attn.fused_attn = False
        yield found
    finally:
        for block, before, hook in zip(net.blocks, fused, hooks, strict=True):
            block.attn.fused_attn = before
            hook.remove()


def attention(net: Any, images: Float[Tensor, "b c H W"]) -> Float[Tensor, "layers b heads l l"]:
    with recorded(net) as found, torch.no_grad():
        net(images)
    return torch.stack(found).float()


def distances(grid_size: Size, step: tuple[float, float]) -> Float[Tensor, "n n"]:
    """Between the centres of all pairs of places, in pixels; step: pixels from one row, one column, to the next."""
    rows, cols = torch.meshgrid(*(torch.arange(n) * s for n, s in zip(grid_size, step, strict=True)), indexing="ij")
    places = torch.stack([rows.flatten(), cols.flatten()], 1).double()
    return torch.cdist(places, places).float()


def mean_distance(
    attention: Float[Tensor, "layers b heads l l"], distances: Float[Tensor, "n n"]
) -> Float[Tensor, "layers heads"]:
    """Mean distance between a patch and what it attends to, weighed by attention (Dosovitskiy et al., 2021, D.7).

    Prefix tokens have no place: they do not ask, and what they are given is left out of the average.
    """
    n = len(distances)
    among = attention[..., -n:, -n:]
    return ((among * distances).sum(-1) / among.sum(-1).clamp_min(1e-12)).mean((1, 3))


def rollout(attention: Float[Tensor, "layers b heads l l"], pool: str, num_prefix_tokens: int) -> Float[Tensor, "b n"]:
    """Share of each patch in what the head reads, attention followed through all layers (Abnar & Zuidema, 2020).

    Each layer is the mean over heads and the identity, half each for the residual stream; their product is read at the
    class token, or as the average over patches. The shares of the patches of an image sum to one.
    """
    _, b, _, l, _ = attention.shape  # noqa: E741
    reads = torch.zeros(b, 1, l, device=attention.device)
    if pool == "cls":
        reads[..., 0] = 1
    else:
        reads[..., num_prefix_tokens:] = 1 / (l - num_prefix_tokens)
    for layer in attention.flip(0):  # from the last to the first: a row times matrices, not matrices times each other
        reads = (reads @ layer.mean(1) + reads) / 2
    patches = reads[:, 0, num_prefix_tokens:]
    return patches / patches.sum(1, keepdim=True)
