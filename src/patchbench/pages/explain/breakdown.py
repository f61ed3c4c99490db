"""The cost of a network by its parts: embedding, position, trunk."""

from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from patchbench.measure.places import PLACES
from patchbench.nets.cost import Cost, Memory


@dataclass(frozen=True)
class CostBreakdown:
    """Parameters and multiply-accumulates for one image: of the network, and of the parts of its input stage.

    The trunk is the rest.
    """

    name: str
    cost: Cost
    embed_params: int
    embed_macs: int
    position_params: int
    position_macs: int
    activations: int  # bytes that training stores for one image, by estimate

    @property
    def trunk_params(self) -> int:
        return self.cost.params - self.embed_params - self.position_params

    @property
    def trunk_macs(self) -> int:
        return self.cost.macs - self.embed_macs - self.position_macs


def break_down(name: str, net: nn.Module, cost: Cost, memory: Memory, shape: tuple[int, int, int]) -> CostBreakdown:
    """Count by part, for a network on the meta device, where nothing is computed.

    shape: channels, height and width of an image.
    """
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net(torch.empty(1, *shape, device="meta"))
    flops = counter.get_flop_counts()

    def macs(*parts: str) -> int:
        """A module that serves several blocks counts once for each use."""
        keys = []
        for part in parts:
            module = getattr(net, part)
            several = isinstance(module, nn.ModuleList | nn.ModuleDict)
            keys += [f"{part}.{i}" for i, _ in module.named_children()] if several else [part]
        return sum(sum(flops.get(f"{type(net).__name__}.{key}", {}).values()) for key in keys) // 2

    def params(*parts: str) -> int:
        return sum(p.numel() for n, p in net.named_parameters() if n.split(".")[0] in parts)

    return CostBreakdown(name, cost, params("embed"), macs("embed"), params(*PLACES), macs(*PLACES), memory.per_image)
