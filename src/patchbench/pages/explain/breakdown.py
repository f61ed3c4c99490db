"""The cost of a network by its parts: embedding, position, trunk."""

from dataclasses import dataclass

from torch import nn

from patchbench.measure.places import PLACES
from patchbench.nets.cost import Cost, macs_by_module
from patchbench.nets.memory import Memory


@dataclass(frozen=True)
class CostBreakdown:
    """Parameters and multiply-accumulates of network, embedding and positional schemes; the trunk is the rest.

    macs: per image. macs_per_step: per batch, for any number of images.
    """

    name: str
    cost: Cost
    embed_params: int
    embed_macs: int
    embed_macs_per_step: int
    position_params: int
    position_macs: int
    position_macs_per_step: int
    training_bytes: int  # estimated memory of training per image

    @property
    def trunk_params(self) -> int:
        return self.cost.params - self.embed_params - self.position_params

    @property
    def trunk_macs(self) -> int:
        return self.cost.macs - self.embed_macs - self.position_macs


def break_down(name: str, net: nn.Module, cost: Cost, memory: Memory, shape: tuple[int, int, int]) -> CostBreakdown:
    """Count the cost of each part of a network on the meta device.

    name: title of the column. shape: channels, height and width of an image.
    """
    in_chans, *img_size = shape
    counted = [macs_by_module(net, images, in_chans, (img_size[0], img_size[1])) for images in (1, 2)]

    def macs(*parts: str) -> tuple[int, int]:
        """Return the MACs per image and per step. A module that several blocks share counts once for each use."""
        keys = []
        for part in parts:
            module = getattr(net, part)
            several = isinstance(module, nn.ModuleList | nn.ModuleDict)
            keys += [f"{part}.{i}" for i, _ in module.named_children()] if several else [part]
        names = [f"{type(net).__name__}.{key}" for key in keys]
        one, two = (sum(sum(counts.get(name, {}).values()) for name in names) for counts in counted)
        return two - one, 2 * one - two

    def params(*parts: str) -> int:
        return sum(p.numel() for n, p in net.named_parameters() if n.split(".")[0] in parts)

    return CostBreakdown(
        name, cost, params("embed"), *macs("embed"), params(*PLACES), *macs(*PLACES), training_bytes=memory.per_image
    )
