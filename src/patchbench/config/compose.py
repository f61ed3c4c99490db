"""Configurations as Hydra composes them, inside and outside of a command."""

import contextlib
from collections.abc import Sequence

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf

from patchbench.config.options import (
    CONF,
    AnalyzeOptions,
    EvaluateOptions,
    ExplainOptions,
    ExportOptions,
    Options,
    PrepareOptions,
)

SCHEMAS = {
    "schema": Options,
    "analyze_schema": AnalyzeOptions,
    "evaluate_schema": EvaluateOptions,
    "explain_schema": ExplainOptions,
    "export_schema": ExportOptions,
    "prepare_schema": PrepareOptions,
}


def register_options() -> None:
    """Register the types of options with Hydra, under the names that conf/<command>.yaml refers to."""
    for name, schema in SCHEMAS.items():
        ConfigStore.instance().store(name, schema)


def composed(overrides: Sequence[str], command: str = "train") -> DictConfig:
    """Compose the configuration of `python <command>.py <overrides>`, with the key `hydra`.

    HydraException or OmegaConfBaseException if Hydra does not accept the overrides.
    """
    register_options()
    inside = GlobalHydra.instance().is_initialized()
    with contextlib.nullcontext() if inside else initialize_config_dir(str(CONF), version_base="1.3"):
        return compose(command, overrides=list(overrides), return_hydra_config=True)


def without_hydra(cfg: DictConfig) -> DictConfig:
    """Return a configuration without its key `hydra`."""
    return OmegaConf.masked_copy(cfg, [str(name) for name in cfg if name != "hydra"])
