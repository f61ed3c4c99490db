"""The embedding of a run as training starts from it, built anew from the seed."""

from collections.abc import Mapping
from typing import Any

import torch
from omegaconf import DictConfig
from torch import nn

from patchbench.commands.build import build_net
from patchbench.data.batches import Batches
from patchbench.data.source import Source
from patchbench.measure.start import Starts


def build_starts(cfg: DictConfig, source: Source, data: Batches) -> Starts:
    """Build the embedding at the seed of the run and at the next one. data: set up, for a basis that is fitted."""
    return Starts(*(build_start(cfg, source, data, seed) for seed in (cfg.seed, cfg.seed + 1)))


def build_start(cfg: DictConfig, source: Source, data: Batches, seed: int) -> nn.Module:
    """Build the whole network, since the embedding takes its random numbers after the trunk, and keep the embedding."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        embed = build_net(cfg, source).embed
    if images := getattr(embed, "fit_images", 0):
        embed.fit(data.sample(images))  # as training does before its first step
    return embed.eval()


def starts_elsewhere(config: Mapping[str, Any]) -> bool:
    """True if a run starts from weights of another training. config: as its record has it."""
    return bool(config["model"].get("init_from") or config.get("embed", {}).get("pretrained"))
