"""A command line that cannot run ends in one line that names option, value and cure, and with exit code 2."""

import functools
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.errors import CompactHydraException, MissingConfigException, OverrideParseException
from hydra.types import RunMode
from omegaconf.errors import OmegaConfBaseException


class Refused(Exception):
    """The configuration cannot run; the message says why and what would."""


@contextmanager
def refusing() -> Iterator[None]:
    """Whatever the parts object to while they are built, before anything is trained, is a refusal.

    HYDRA_FULL_ERROR=1 shows where it came from.
    """
    try:
        yield
    except (ValueError, TypeError, OSError, ImportError, CompactHydraException, OmegaConfBaseException) as error:
        if os.environ.get("HYDRA_FULL_ERROR") == "1" and "PATCHBENCH_QUIET" not in os.environ:
            raise
        while isinstance(error, CompactHydraException) and error.__cause__ is not None:
            error = error.__cause__
        raise Refused(" ".join(str(error).split())) from error


def one_line_errors(main: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a Hydra main twice, inside and outside of `hydra.main`: refusals of the job, and refusals of Hydra itself."""

    @functools.wraps(main)
    def wrapped(*args: Any) -> Any:
        outside = not HydraConfig.initialized()
        if outside and "HYDRA_FULL_ERROR" not in os.environ:
            os.environ |= {"HYDRA_FULL_ERROR": "1", "PATCHBENCH_QUIET": "1"}  # Hydra raises what it would print
        try:
            return main(*args)
        except (Refused, CompactHydraException, OmegaConfBaseException) as error:
            quiet = "PATCHBENCH_QUIET" in os.environ
            in_sweep = not outside and HydraConfig.get().mode == RunMode.MULTIRUN
            if not quiet or in_sweep:  # in a sweep the other cells go on, and Hydra raises this at the end
                raise
            print(f"error: {explain(error)}", file=sys.stderr)
            raise SystemExit(2) from None

    return wrapped


def explain(error: Exception) -> str:
    """What Hydra says in a paragraph, in a line."""
    said = " ".join(str(error).split())
    if isinstance(error, MissingConfigException) and error.options:
        group, _, option = (error.missing_cfg_file or "").rpartition("/")
        close = get_close_matches(option, error.options, 1)
        hint = f"did you mean {group}={close[0]}? " if close else ""
        return f"{group}={option} is no option: {hint}{group} may be {', '.join(error.options)}"
    if isinstance(error, OverrideParseException):
        return f"cannot read the argument {error.override!r}: write group=option, knob=value, or knob=[a,b] in quotes"
    if found := re.search(r"Could not (?:override|append to config\. An item is already at|delete from config\.) '(.+?)'", said):
        return f"no option {found[1]!r}: {did_you_mean(found[1])}; python train.py --help lists all"
    if found := re.search(r"Key '(\S+)' (?:is )?not in '(?:Options|Compared)'", said):
        return f"no option {found[1]!r}: {did_you_mean(found[1])}; python train.py --help lists all"
    if found := re.search(r"Value '(.*)' of type '\w+' could not be converted to (\w+).*full_key: (\S+)", said):
        return f"{found[3]}={found[1]} must be of type {found[2]}: python train.py --help shows the default"
    return said


def did_you_mean(key: str) -> str:
    """The nearest key of the configuration that the other arguments make."""
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    from patchbench.command import CONF

    def paths(node: Any, prefix: str = "") -> Iterator[str]:
        for name, value in (node or {}).items():
            yield prefix + name
            if isinstance(value, dict):
                yield from paths(value, f"{prefix}{name}.")

    rest = [a for a in sys.argv[1:] if "=" in a and a.lstrip("+~").split("=")[0] != key and "," not in a]
    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            keys = list(paths(OmegaConf.to_container(compose("train", overrides=rest))))
    except (CompactHydraException, OmegaConfBaseException):
        return "check its spelling"
    parent = key.rpartition(".")[0]
    if close := get_close_matches(key, keys, 1, 0.6):
        return f"did you mean {close[0]}?"
    siblings = [k for k in keys if k.rpartition(".")[0] == parent]
    return f"{parent or 'the configuration'} has {', '.join(siblings)}" if siblings else "check its spelling"
