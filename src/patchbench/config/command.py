"""How train.py and evaluate.py become Hydra commands. Imports little, so that --help and refusals are quick."""

import functools
import hashlib
import os
import sys
from collections.abc import Callable
from typing import Any

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from patchbench.config.compose import CONF
from patchbench.config.errors import one_line_errors, refuse_added_options
from patchbench.config.identity import display_name, factors_of, identity_of
from patchbench.config.options import ExplainOptions, Options


def command(config_name: str) -> Callable[[Callable[[DictConfig], Any]], Callable[[], Any]]:
    """Decorate a function of the configuration: conf/<config_name>.yaml, with the overrides of the command line."""

    def decorate(task: Callable[[DictConfig], Any]) -> Callable[[], Any]:
        register()

        @functools.wraps(task)
        def checked(cfg: DictConfig) -> Any:
            refuse_added_options(HydraConfig.get().overrides.task)
            return task(cfg)

        if "--dry-run" in sys.argv:
            rest = [argument for argument in sys.argv[1:] if argument not in ("--dry-run", "-m", "--multirun")]
            sys.argv[1:] = ["-m", *rest, "hydra.launcher.dry_run=true"]
        main = one_line_errors(hydra.main(str(CONF), config_name, version_base="1.3")(one_line_errors(checked)))

        @functools.wraps(task)
        def start() -> Any:
            if group := sweep_name():
                os.environ["PATCHBENCH_SWEEP"] = group  # for the cells that run elsewhere
            return main()

        return start

    return decorate


def register() -> None:
    """Tell Hydra what the files under conf/ refer to: the types of options, and the names of runs and sweeps."""
    ConfigStore.instance().store("schema", Options)
    ConfigStore.instance().store("explain_schema", ExplainOptions)
    OmegaConf.register_new_resolver("run_name", run_name, replace=True)
    OmegaConf.register_new_resolver("sweep_name", sweep_name, replace=True)


def run_name(*, _root_: DictConfig) -> str:
    """conv-16_learned_digits_s0_1a2b3c4d: what a person wants to see, and the identity."""
    levels = display_name(factors_of(_root_, _root_.hydra.runtime.choices))
    return f"{levels.replace('/', '-').replace(' ', '_')}_{identity_of(_root_)}"


def sweep_name() -> str | None:
    """Of the sweep that this process runs or is a cell of, None outside one; started again, it has the same name."""
    if "PATCHBENCH_SWEEP" in os.environ:
        return os.environ["PATCHBENCH_SWEEP"]
    return name_sweep() if {"-m", "--multirun"} & set(sys.argv) else None


def name_sweep() -> str:
    """From the command line, without what only says how the sweep is run."""
    grid = sorted(argument for argument in sys.argv[1:] if not argument.startswith("hydra"))
    return "sweep-" + hashlib.sha256(" ".join(grid).encode()).hexdigest()[:8]
