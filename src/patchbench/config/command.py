"""Decorator that makes train.py, evaluate.py and scripts Hydra commands.

This module imports little, so that --help and errors are quick.
"""

import functools
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
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
    flags_last,
    refuse_added_options,
    refuse_lists_of_options,
    refuse_options_of_the_other_mode,
)


def command(config_name: str) -> Callable[[Callable[[DictConfig], Any]], Callable[[], Any]]:
    """Make a function of the configuration a command that composes conf/<config_name>.yaml and the overrides."""

    def decorate(task: Callable[[DictConfig], Any]) -> Callable[[], Any]:
        register_options()
        register()

        job_started = False

        @functools.wraps(task)
        def checked(cfg: DictConfig) -> Any:
            nonlocal job_started
            job_started = True
            given = HydraConfig.get().overrides.task
            refuse_added_options(given, config_name)
            refuse_lists_of_options(given)
            try:
                return task(cfg)
            except Refused:
                if config_name == "train":
                    with suppress(OSError):  # if it is not empty
                        Path(HydraConfig.get().runtime.output_dir).rmdir()
                raise

        hydra_main = hydra.main(str(CONF), config_name, version_base="1.3")(one_line_errors(checked, config_name))

        def start() -> Any:
            sys.argv[1:] = flags_last(sys.argv[1:], config_name)
            refuse_options_of_the_other_mode(sys.argv[1:])
            if sweep := sweep_name():
                os.environ[SWEEP] = sweep  # for cells in other processes
            elif signal.getsignal(signal.SIGINT) is signal.default_int_handler:
                signal.signal(signal.SIGINT, signal.SIG_DFL)  # imports may swallow KeyboardInterrupt
            try:
                return hydra_main()
            except OSError as error:
                if job_started or isinstance(error, HydraException | BrokenPipeError):
                    raise
                raise Refused(
                    f"runs_dir: {error.filename} cannot be made ({error.strerror}): give another runs_dir=<folder>"
                ) from error

        return functools.wraps(task)(one_line_errors(start, config_name))

    return decorate
