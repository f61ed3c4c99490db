"""What the parts of a network cost: embedding, position, trunk."""

from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from patchbench.measure.places import PLACES
from patchbench.nets.cost import Cost, Memory


@dataclass(frozen=True)
class Bill:
    """Of one image, for a network as a whole and for the parts of its input stage; the trunk is what remains."""

    name: str
    cost: Cost
    embed_params: int
    embed_macs: int
    position_params: int
    position_macs: int
    activations: int  # bytes that training keeps of one image, by estimate

    @property
    def trunk_params(self) -> int:
        return self.cost.params - self.embed_params - self.position_params

    @property
    def trunk_macs(self) -> int:
        return self.cost.macs - self.embed_macs - self.position_macs


def bill(name: str, net: nn.Module, cost: Cost, held: Memory, shape: tuple[int, int, int]) -> Bill:
    """Read off a network on the meta device, where nothing is computed. shape: channels, height, width of an image."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net(torch.empty(1, *shape, device="meta"))
    flops = counter.get_flop_counts()

    def macs(*parts: str) -> int:
        """A module that serves several blocks is counted as often as it is used."""
        keys = []
        for part in parts:
            module = getattr(net, part)
            several = isinstance(module, nn.ModuleList | nn.ModuleDict)
            keys += [f"{part}.{i}" for i, _ in module.named_children()] if several else [part]
        return sum(sum(flops.get(f"{type(net).__name__}.{key}", {}).values()) for key in keys) // 2

    def params(*parts: str) -> int:
        return sum(p.numel() for n, p in net.named_parameters() if n.split(".")[0] in parts)

    return Bill(name, cost, params("embed"), macs("embed"), params(*PLACES), macs(*PLACES), held.per_image)
