"""Initialisation of weights: one rule for the trunks of all our networks, one for all projections of embeddings."""

from timm.layers import trunc_normal_
from torch import nn


def init_trunk(module: nn.Module) -> None:
    """Initialise as timm does by default: a normal distribution of standard deviation 0.02, truncated at -2 and 2."""
    if isinstance(module, nn.Linear):
        trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def init_projection(module: nn.Module) -> None:
    """Initialise every projection of every embedding with variance 1 / fan-in (LeCun et al., 1998).

    With one rule a study compares projections and not their initialisations: in timm at patch 4 those of conv and
    linear differ fourfold. Tokens of unit noise start with a standard deviation of about 1; of 0.7 where ReLUs (stem,
    overlap_stack) or a weighted sum of channels (luminance) take from it, of 1.3 after the backbone of hybrid, and of
    flexi as its resized kernel has it.
    """
    if isinstance(module, nn.Linear | nn.Conv2d):
        trunc_normal_(module.weight, std=module.weight[0].numel() ** -0.5)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
