"""How weights start, in every network of ours: one rule for trunks, one for projections."""

from timm.layers import trunc_normal_
from torch import nn


def init_trunk(module: nn.Module) -> None:
    """timm's default: normal of 0.02, cut at two units."""
    if isinstance(module, nn.Linear):
        trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def init_projection(module: nn.Module) -> None:
    """One rule for every projection of every embedding, variance 1 / fan-in (LeCun et al., 1998).

    So that a study compares projections and not their initialisations: in timm at patch 4 those of conv and linear
    differ fourfold.
    """
    if isinstance(module, nn.Linear | nn.Conv2d):
        trunc_normal_(module.weight, std=module.weight[0].numel() ** -0.5)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
