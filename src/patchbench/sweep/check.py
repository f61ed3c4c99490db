"""Whether a cell can run, and what it costs; called in warm processes, all before the first cell is started."""

import functools
import json
from pathlib import Path

import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import CompactHydraException
from omegaconf import OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from patchbench.commands.build import build_source, check_run
from patchbench.config.command import register
from patchbench.config.compose import CONF
from patchbench.config.errors import Refused, explain, refuse_added_options, refusing
from patchbench.data.source import Source
from patchbench.runs.record import environment
from patchbench.sweep.cell import Composed, Facts, setting
from patchbench.train.trainer import quiet

machine = functools.cache(lambda: environment()["machine"])


def gpus() -> int:
    """That torch sees, without starting CUDA."""
    return torch.cuda.device_count()


def compose_cell(overrides: list[str]) -> Composed | str:
    """As `python train.py overrides` would; or why not."""
    if not GlobalHydra.instance().is_initialized():
        register()
        initialize_config_dir(str(CONF), version_base="1.3")
    try:
        refuse_added_options(overrides)
        cfg = compose("train", overrides, return_hydra_config=True)
        folder = Path(cfg.hydra.sweep.dir, cfg.hydra.sweep.subdir)
        with open_dict(cfg):
            del cfg["hydra"]
        config = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    except (Refused, CompactHydraException, OmegaConfBaseException) as error:
        return explain(error)
    assert isinstance(config, dict)
    alike = {key: value for key, value in config.items() if key not in ("seed", "runs_dir", "rerun", "ckpt")}
    return Composed(
        cfg=cfg,
        folder=folder,
        rerun=cfg.rerun,
        accelerator=cfg.trainer.accelerator,
        devices=cfg.trainer.devices,
        but_seed=json.dumps(alike, sort_keys=True),
        data=json.dumps(config["data"], sort_keys=True),
        setting=setting(config, machine()),
    )


def check_cell(composed: Composed) -> Facts | str:
    """Build all that can be built without memory and without training; or why it cannot be."""
    quiet()
    torch.set_num_threads(1)  # cells are checked side by side
    try:
        with refusing():
            costs = check_run(composed.cfg, source(composed.data), composed.folder)
    except Refused as refused:
        return explain(refused)
    except Exception as error:  # a part that fails in a way of its own: the other cells can still be checked
        return f"{type(error).__name__}: {explain(error)}"
    grid = "x".join(map(str, costs.grid_size)) if costs.grid_size else ""
    return Facts(grid, costs.num_tokens, costs.params, costs.macs / 1e9)


@functools.cache
def source(data: str) -> Source:
    """Its images are read once for all cells that this process checks."""
    found = build_source(OmegaConf.create({"data": json.loads(data)}))
    setattr(found, "splits", functools.cache(found.splits))  # noqa: B010  a method may not be assigned to
    return found
