"""A command line that cannot run ends in one line that names option, value and cure, and with exit code 2.

HYDRA_FULL_ERROR=1 shows the traceback instead.
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
from patchbench.config.mistakes import OBJECTIONS, explain
from patchbench.machine import exit_on_broken_pipe
from patchbench.redact import without_secrets

TRACEBACK = os.environ.get("HYDRA_FULL_ERROR") == "1" and "PATCHBENCH_RANKS" not in os.environ


class Refused(Exception):
    """Raised where the configuration cannot run; the message says why, and what would."""


class CellFailed(Exception):
    """Raised where a cell of a sweep failed and its error was already printed."""


@contextmanager
def refusing(*objections: type[Exception]) -> Iterator[None]:
    """Turn exceptions of these classes into refusals; by default those that parts raise while they are built."""
    parts_object = (ValueError, TypeError, OSError, *OBJECTIONS)
    try:
        yield
    except objections or parts_object as error:  # noqa: B030
        cause: Any = error
        while isinstance(cause, HydraException) and cause.__cause__ is not None:
            cause = cause.__cause__
        raise Refused(reason(cause, sys.argv[1:])) from error


def one_line_errors(main: Callable[..., Any], command: str = "train") -> Callable[..., Any]:
    """Wrap a main function of Hydra's: inside of `hydra.main` for refusals of the job, outside for those of Hydra.

    command: the script whose main function it is, as conf/<command>.yaml is called.
    """

    @functools.wraps(main)
    def wrapped(*args: Any) -> Any:
        inside = HydraConfig.initialized()
        if not TRACEBACK:
            # Tells ranks that this process starts that HYDRA_FULL_ERROR was set here, not by the user.
            os.environ["PATCHBENCH_RANKS"] = "1"
        os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra shall raise what it would otherwise print
        try:
            with exit_on_broken_pipe():
                return main(*args)
        except (Refused, *OBJECTIONS) as error:
            in_sweep = inside and HydraConfig.get().mode == RunMode.MULTIRUN
            if TRACEBACK or in_sweep:  # in a sweep the other cells go on, and Hydra raises this at the end
                raise
            print(f"error: {explain(error, sys.argv[1:], command)}", file=sys.stderr)
            raise SystemExit(2) from None
        except CellFailed:
            raise SystemExit(1) from None
        except Exception as error:
            if not TRACEBACK and type(error).__module__ == "submitit.core.utils":
                what = " ".join(str(error).splitlines()[:2])
                cure = "the others go on (squeue), and the same command goes on with it"
                print(f"error: a cell has failed: {what}; {cure}", file=sys.stderr)
                raise SystemExit(1) from None
            shown = [traceback.format_exc(), *sys.argv]  # Hydra prints both
            if shown == (clean := without_secrets(shown)) or (inside and HydraConfig.get().mode == RunMode.MULTIRUN):
                raise
            print(clean[0], end="", file=sys.stderr)
            raise SystemExit(1) from None

    return wrapped
