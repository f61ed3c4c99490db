"""Make train.py, evaluate.py and scripts commands of Hydra. Imports little, so that --help and refusals are quick."""

import functools
import os
import sys
from collections.abc import Callable
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from patchbench.config.compose import register_options
from patchbench.config.errors import one_line_errors, refuse_added_options, refuse_lists_of_options
from patchbench.config.names import SWEEP, register, sweep_name
from patchbench.config.options import CONF
from patchbench.config.unread import refuse_options_of_the_other_mode


def command(config_name: str) -> Callable[[Callable[[DictConfig], Any]], Callable[[], Any]]:
    """Decorate a function of the configuration: conf/<config_name>.yaml, with the overrides of the command line."""

    def decorate(task: Callable[[DictConfig], Any]) -> Callable[[], Any]:
        register_options()
        register()

        @functools.wraps(task)
        def checked(cfg: DictConfig) -> Any:
            given = HydraConfig.get().overrides.task
            refuse_added_options(given)
            refuse_lists_of_options(given)
            return task(cfg)

        if "--dry-run" in sys.argv:
            rest = [argument for argument in sys.argv[1:] if argument not in ("--dry-run", "-m", "--multirun")]
            sys.argv[1:] = ["-m", *rest, "hydra.launcher.dry_run=true"]
        hydra_main = hydra.main(str(CONF), config_name, version_base="1.3")(one_line_errors(checked))

        @functools.wraps(task)
        @one_line_errors
        def start() -> Any:
            refuse_lists_of_options(sys.argv[1:])
            refuse_options_of_the_other_mode(sys.argv[1:])
            if group := sweep_name():
                os.environ[SWEEP] = group  # for the cells that run elsewhere
            return hydra_main()

        return start

    return decorate
