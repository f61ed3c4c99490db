"""Configurations as Hydra composes them, inside of a command and outside of one."""

import contextlib
from collections.abc import Sequence

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf

from patchbench.config.options import CONF, ExplainOptions, Options


def register_options() -> None:
    """Register the types of options with Hydra, under the names that conf/train.yaml and conf/explain.yaml refer to."""
    ConfigStore.instance().store("schema", Options)
    ConfigStore.instance().store("explain_schema", ExplainOptions)


def composed(overrides: Sequence[str], command: str = "train") -> DictConfig:
    """Compose the configuration that `python <command>.py <overrides>` would have, `hydra` included.

    CompactHydraException or OmegaConfBaseException: overrides that Hydra does not take.
    """
    register_options()
    inside = GlobalHydra.instance().is_initialized()
    with contextlib.nullcontext() if inside else initialize_config_dir(str(CONF), version_base="1.3"):
        return compose(command, overrides=list(overrides), return_hydra_config=True)


def without_hydra(cfg: DictConfig) -> DictConfig:
    """The options of ours in a configuration."""
    return OmegaConf.masked_copy(cfg, [str(name) for name in cfg if name != "hydra"])
