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

    With one rule for all embeddings, a study compares projections and not initialisations: in timm, with patches of 4
    pixels, the initial weights of conv and linear differ by a factor of four. For images of unit noise, tokens start
    with a standard deviation of about 1. It is 0.7 after ReLUs (stem, overlap_stack) and after a weighted sum of
    channels (luminance), 1.3 after the backbone of hybrid, and depends on the resized kernel in flexi.
    """
    if isinstance(module, nn.Linear | nn.Conv2d):
        trunc_normal_(module.weight, std=module.weight[0].numel() ** -0.5)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
