"""Errors of the command line: one line that names option, value and cure, and exit code 2.

With HYDRA_FULL_ERROR=1 the traceback is printed instead.
"""

import functools
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode

from patchbench.checks import reason
from patchbench.config.mistakes import HYDRA_ERRORS, explain
from patchbench.machine import exit_on_broken_pipe
from patchbench.redact import without_secrets

TRACEBACK = os.environ.get("HYDRA_FULL_ERROR") == "1" and "PATCHBENCH_RANKS" not in os.environ


class Refused(Exception):
    """Raised for a configuration that cannot run; the message names the reason and the cure."""


class CellFailed(Exception):
    """Raised if a cell of a sweep has failed and its error is already printed."""


@contextmanager
def refusing(*errors: type[Exception]) -> Iterator[None]:
    """Convert exceptions of these classes to Refused; by default those that are raised while parts are built."""
    build_errors = (ValueError, TypeError, OSError, *HYDRA_ERRORS)
    try:
        yield
    except errors or build_errors as error:  # noqa: B030
        cause: Any = error
        while isinstance(cause, HydraException) and cause.__cause__ is not None:
            cause = cause.__cause__
        raise Refused(reason(cause, sys.argv[1:])) from error


def one_line_errors(main: Callable[..., Any], command: str = "train") -> Callable[..., Any]:
    """Wrap a main function, once inside of `hydra.main` for errors of the job, once outside for errors of Hydra.

    command: name of the script, as in conf/<command>.yaml.
    """

    @functools.wraps(main)
    def wrapped(*args: Any) -> Any:
        inside = HydraConfig.initialized()
        if not TRACEBACK:
            # Tells the ranks started by this process that HYDRA_FULL_ERROR was set here, not by the user.
            os.environ["PATCHBENCH_RANKS"] = "1"
        os.environ["HYDRA_FULL_ERROR"] = "1"  # makes Hydra raise errors instead of printing them
        try:
            with exit_on_broken_pipe():
                return main(*args)
        except (Refused, *HYDRA_ERRORS) as error:
            in_sweep = inside and HydraConfig.get().mode == RunMode.MULTIRUN
            if TRACEBACK or in_sweep:  # in a sweep the other cells continue, and Hydra raises this at the end
                raise
            print(f"error: {explain(error, sys.argv[1:], command)}", file=sys.stderr)
            raise SystemExit(2) from None
        except CellFailed:
            raise SystemExit(1) from None
        except Exception as error:
            if not TRACEBACK and type(error).__module__ == "submitit.core.utils":
                what = " ".join(str(error).splitlines()[:2])
                cure = "the others continue (squeue); the same command continues this one"
                print(f"error: a cell has failed: {what}; {cure}", file=sys.stderr)
                raise SystemExit(1) from None
            texts = [traceback.format_exc(), *sys.argv]  # Hydra prints both
            if texts == (redacted := without_secrets(texts)) or (inside and HydraConfig.get().mode == RunMode.MULTIRUN):
                raise
            print(redacted[0], end="", file=sys.stderr)
            raise SystemExit(1) from None

    return wrapped
