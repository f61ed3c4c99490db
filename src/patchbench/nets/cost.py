"""Costs of a network, counted before anything is computed."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode

from patchbench.checks import Size
from patchbench.layout import Layout


@dataclass(frozen=True)
class Cost:
    """Tokens in the trunk (prefix included), parameters, and multiply-accumulates of the forward pass.

    grid_size, num_tokens: None for a network without tokens. macs: for one image. macs_per_step: for a batch of any
    size, for example to resample a kernel, or to compute a bias by a network.
    """

    grid_size: Size | None
    num_tokens: int | None
    params: int
    macs: int
    macs_per_step: int = 0

    def train_flops(self, images: int, steps: int = 1) -> int:
        """Count the FLOPs of training on `images` images in `steps` steps: forward, and backward at twice its cost.

        A step is a step of the optimizer: a computation that each micro-batch or device repeats counts once.
        """
        return 6 * (images * self.macs + steps * self.macs_per_step)

    def facts(self) -> dict[str, int | float | str]:
        """List the costs for configs and records: parameters in millions, MACs and FLOPs in units of 1e9."""
        tokens: dict[str, int | float | str] = {}
        if self.grid_size and self.num_tokens:
            tokens = {"model/grid": "x".join(map(str, self.grid_size)), "model/tokens": self.num_tokens}
        per_step = {"model/gmacs_per_step": self.macs_per_step / 1e9} if self.macs_per_step else {}
        return (
            tokens
            | {
                "model/params": self.params,
                "model/params_m": self.params / 1e6,
                "model/gmacs": self.macs / 1e9,
                "model/gflops_fwd": 2 * self.macs / 1e9,
            }
            | per_step
        )


def cost(net: nn.Module, layout: Layout | None, in_chans: int, img_size: Size) -> Cost:
    """Count the forward passes of one image and of two: the difference is the cost of an image.

    On the meta device nothing is computed.
    """
    one, two = (sum(macs_by_module(net, images, in_chans, img_size).get("Global", {}).values()) for images in (1, 2))
    return Cost(
        grid_size=layout.grid_size if layout else None,
        num_tokens=num_tokens(layout) if layout else None,
        params=sum(p.numel() for p in net.parameters()),
        macs=two - one,
        macs_per_step=2 * one - two,
    )


def macs_by_module(net: nn.Module, images: int, in_chans: int, img_size: Size) -> dict[str, dict[Any, int]]:
    """Count the MACs of a forward pass, by module and operation. MACs are half of the FLOPs."""
    device, training = next(net.parameters()).device, net.training
    net.eval()  # so that batch norms accept one image, and nothing is random
    still = {name: weight.detach() for name, weight in net.named_parameters()}  # the counter fails on views of these
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        functional_call(net, still, torch.empty(images, in_chans, *img_size, device=device))
    net.train(training)
    return {
        module: {operation: flops // 2 for operation, flops in counted.items()}
        for module, counted in counter.get_flop_counts().items()
    }


def num_tokens(layout: Layout) -> int:
    return math.prod(layout.grid_size) + layout.num_prefix_tokens
