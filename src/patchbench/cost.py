"""What a network costs, known before anything is computed."""

import math
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from patchbench.layout import Layout, Size


@dataclass(frozen=True)
class Cost:
    """Of one image: tokens in the trunk (prefix included), parameters, multiply-accumulates of the forward pass."""

    grid_size: Size
    num_tokens: int
    params: int
    macs: int

    @property
    def train_flops(self) -> int:
        """Of one training step per image: forward, and backward at twice that; nothing is recomputed."""
        return 6 * self.macs

    def facts(self) -> dict[str, int | float | str]:
        """For configs and records: parameters in millions, MACs and FLOPs in units of 1e9."""
        return {
            "model/grid": "x".join(map(str, self.grid_size)),
            "model/tokens": self.num_tokens,
            "model/params": self.params,
            "model/params_m": self.params / 1e6,
            "model/gmacs": self.macs / 1e9,
            "model/gflops_fwd": 2 * self.macs / 1e9,
        }


def cost(net: nn.Module, layout: Layout, in_chans: int, img_size: Size) -> Cost:
    """Count what one forward pass of `net` does; on the meta device nothing is computed. MACs are half its FLOPs."""
    device, training = next(net.parameters()).device, net.training
    net.eval()  # one image is no batch to normalise by, and nothing is to be drawn
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net(torch.empty(1, in_chans, *img_size, device=device))
    net.train(training)
    return Cost(
        grid_size=layout.grid_size,
        num_tokens=math.prod(layout.grid_size) + layout.num_prefix_tokens,
        params=sum(p.numel() for p in net.parameters()),
        macs=counter.get_total_flops() // 2,
    )
