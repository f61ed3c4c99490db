"""What the parts of a network cost: embedding, position, trunk."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from patchbench.cost import Cost

POSITION = ("tokens", "rotation", "bias", "between")


@dataclass(frozen=True)
class Bill:
    """Of one image, for a network as a whole and for the parts of its input stage; the trunk is what remains."""

    name: str
    cost: Cost
    embed_params: int
    embed_macs: int
    position_params: int
    position_macs: int
    activations: int | None = None  # bytes that training keeps of one image, where there is an estimate

    @property
    def trunk_params(self) -> int:
        return self.cost.params - self.embed_params - self.position_params

    @property
    def trunk_macs(self) -> int:
        return self.cost.macs - self.embed_macs - self.position_macs


def bill(name: str, net: Any, cost: Cost, shape: tuple[int, int, int]) -> Bill:
    """Read off a network on the meta device, where nothing is computed. shape: channels, height, width of an image."""
    layout = net.layout
    tokens = torch.empty(1, *layout.grid_size, layout.embed_dim, device="meta")
    return Bill(
        name,
        cost,
        params(net, "embed"),
        macs(lambda: net.embed(torch.empty(1, *shape, device="meta"))),
        params(net, *POSITION),
        macs(lambda: [part(tokens) for part in (net.tokens, *net.between.values())]),
    )


def params(net: nn.Module, *parts: str) -> int:
    return sum(p.numel() for name, p in net.named_parameters() if name.split(".")[0] in parts)


def macs(compute: Callable[[], object]) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad(), torch.device("meta"):
        compute()
    return counter.get_total_flops() // 2
