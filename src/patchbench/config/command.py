"""Make train.py, evaluate.py and scripts commands of Hydra. Imports little, so that --help and refusals are quick."""

import functools
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig

from patchbench.config.compose import register_options
from patchbench.config.errors import Refused, one_line_errors
from patchbench.config.names import SWEEP, register, sweep_name
from patchbench.config.options import CONF
from patchbench.config.typed import (
    arranged,
    refuse_added_options,
    refuse_lists_of_options,
    refuse_options_of_the_other_mode,
)


def command(config_name: str) -> Callable[[Callable[[DictConfig], Any]], Callable[[], Any]]:
    """Decorate a function of the configuration: conf/<config_name>.yaml, with the overrides of the command line."""

    def decorate(task: Callable[[DictConfig], Any]) -> Callable[[], Any]:
        register_options()
        register()

        begun = False

        @functools.wraps(task)
        def checked(cfg: DictConfig) -> Any:
            nonlocal begun
            begun = True
            given = HydraConfig.get().overrides.task
            refuse_added_options(given, config_name)
            refuse_lists_of_options(given)
            return task(cfg)

        hydra_main = hydra.main(str(CONF), config_name, version_base="1.3")(one_line_errors(checked, config_name))

        def start() -> Any:
            sys.argv[1:] = arranged(sys.argv[1:], config_name)
            refuse_options_of_the_other_mode(sys.argv[1:])
            if group := sweep_name():
                os.environ[SWEEP] = group  # for the cells that run elsewhere
            elif signal.getsignal(signal.SIGINT) is signal.default_int_handler:
                signal.signal(signal.SIGINT, signal.SIG_DFL)  # imports may swallow KeyboardInterrupt
            try:
                return hydra_main()
            except OSError as error:
                if begun or isinstance(error, HydraException | BrokenPipeError):
                    raise
                raise Refused(
                    f"runs_dir: {error.filename} cannot be made ({error.strerror}): give runs_dir=<folder>, another one"
                ) from error

        return functools.wraps(task)(one_line_errors(start, config_name))

    return decorate
