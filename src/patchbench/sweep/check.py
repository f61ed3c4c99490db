"""Check of a cell, and its cost. Warm processes check all cells before the first cell starts."""

import functools
import json
import os
from pathlib import Path
from typing import Any

import torch
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf, open_dict

from patchbench.commands.build import build_source
from patchbench.commands.draft import check_run
from patchbench.commands.values import check_values
from patchbench.config.compose import composed
from patchbench.config.errors import Refused, refusing
from patchbench.config.mistakes import HYDRA_ERRORS, explain
from patchbench.config.names import register
from patchbench.config.options import CONF
from patchbench.config.origin import origin_of
from patchbench.config.typed import refuse_added_options, refuse_lists_of_options
from patchbench.config.unread import unread
from patchbench.data.source import Source
from patchbench.runs.provenance import environment
from patchbench.sweep.cell import Composed, Facts, setting
from patchbench.train.trainer import quiet

LONGEST_NAME = 255  # bytes
machine = functools.cache(lambda: environment()["machine"])


def gpus() -> int:
    """Number of GPUs that torch sees, without initialising CUDA."""
    return torch.cuda.device_count()


def compose_cell(overrides: list[str], number: int, config_name: str = "train") -> Composed | str:
    """Compose the configuration of `python train.py <overrides>`, or return the reason why that fails.

    number: number of the cell, hydra.job.num. config_name: conf/<config_name>.yaml.
    """
    if not GlobalHydra.instance().is_initialized():
        register()
        initialize_config_dir(str(CONF), version_base="1.3")
    try:
        refuse_added_options(overrides)
        refuse_lists_of_options(overrides)
        cfg = composed([*overrides, f"hydra.job.num={number}"], config_name)
        HydraConfig.instance().set_config(cfg)  # for interpolations such as ${hydra:job.num}
        choices = dict(cfg.hydra.runtime.choices)
        folder = Path(cfg.hydra.sweep.dir, cfg.hydra.sweep.subdir)
        with open_dict(cfg):
            del cfg["hydra"]
        config = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
        with refusing():
            check_values(cfg)
        origin = origin_of(cfg, choices)
        refuse_long_names(folder)
    except (Refused, *HYDRA_ERRORS) as error:
        return explain(error, overrides)
    assert isinstance(config, dict)
    tree: Any = OmegaConf.to_container(cfg, resolve=False)  # ${seed} is equal in all cells
    alike = {key: value for key, value in tree.items() if key not in ("seed", "runs_dir", "rerun", "ckpt")}
    return Composed(
        cfg=cfg,
        origin=origin,
        folder=folder,
        rerun=cfg.rerun,
        accelerator=cfg.trainer.accelerator,
        devices=cfg.trainer.devices,
        all_but_seed=json.dumps(alike, sort_keys=True),
        data=json.dumps(config["data"], sort_keys=True),
        unread=unread(cfg, choices, overrides),
        setting=setting(config, choices["budget"], machine()),
    )


def refuse_long_names(folder: Path) -> None:
    """Raise Refused for a path with a name that is too long for a file system."""
    for name in folder.parts:
        if len(os.fsencode(name)) > LONGEST_NAME:
            raise Refused(
                f"hydra.sweep.subdir gives the cell a folder with a name of {len(os.fsencode(name))} bytes, "
                f"{name[:40]}..., more than {LONGEST_NAME}: use a shorter name"
            )


def check_cell(composed: Composed) -> Facts | str:
    """Build the cell without memory for weights and without training, or return the reason why that fails."""
    quiet()
    torch.set_num_threads(1)  # cells are checked in parallel
    try:
        with refusing():
            costs = check_run(composed.cfg, source(composed.data), composed.folder)
    except Refused as refused:
        return explain(refused)
    except Exception as error:  # an unexpected error: the other cells are checked nevertheless
        return f"{type(error).__name__}: {explain(error)}"
    grid = "x".join(map(str, costs.grid_size)) if costs.grid_size else ""
    return Facts(grid, costs.num_tokens, costs.params, costs.macs / 1e9)


@functools.cache
def source(data: str) -> Source:
    """Build a data source that reads its images once for all cells that this process checks. data: JSON of `data`."""
    shared = build_source(OmegaConf.create({"data": json.loads(data)}))
    setattr(shared, "splits", functools.cache(shared.splits))  # noqa: B010  mypy allows no assignment to a method
    return shared
