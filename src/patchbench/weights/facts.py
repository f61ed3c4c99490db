"""Facts that a state dict of timm's tells about its network."""

import math
from typing import Any

from torch import Tensor, nn

from patchbench.layout import PLACES
from patchbench.nets.vit import ViT


def places(net: ViT) -> set[str]:
    filled = {place for place in PLACES if place != "tokens" and len(getattr(net, place))}
    return filled if isinstance(net.tokens, nn.Identity) else filled | {"tokens"}


def mlp_ratio(net: ViT) -> float:
    block: Any = net.blocks[0]
    return block.mlp.fc1.out_features / net.layout.embed_dim


def in_chans(net: ViT) -> int:
    embed: Any = net.embed
    return embed.proj.weight[0].numel() // math.prod(embed.patch_size)


def shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "a number"
