"""The embedding of a run at the start of training, built again from the seed."""

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
    """Build the embedding at the seed of the run and at the next seed. data: set up, since a basis may be fitted."""
    return Starts(*(build_start(cfg, source, data, seed) for seed in (cfg.seed, cfg.seed + 1)))


def build_start(cfg: DictConfig, source: Source, data: Batches, seed: int) -> nn.Module:
    """Build the embedding at a seed. The trunk is built too, since it takes its random numbers before the embedding."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        embed = build_net(cfg, source).embed
    if images := getattr(embed, "fit_images", 0):
        embed.fit(data.sample(images))  # as training does before its first step
    return embed.eval()


def starts_elsewhere(config: Mapping[str, Any]) -> bool:
    """True if a run starts from weights of another training. config: its configuration, as in the record."""
    return bool(config["model"].get("init_from") or config.get("embed", {}).get("pretrained"))
