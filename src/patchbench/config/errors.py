"""A command line that cannot run ends in one line that names option, value and cure, and with exit code 2.

HYDRA_FULL_ERROR=1 shows the traceback instead.
"""

import functools
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep
from hydra.errors import CompactHydraException, OverrideParseException
from hydra.types import RunMode
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from patchbench.checks import nearest
from patchbench.config.compose import composed, without_hydra
from patchbench.config.options import CONF

EXTRAS = {"submitit_slurm": "slurm", "optuna": "optuna"}  # options of Hydra's plugins: the extra that brings them
TRACEBACK = os.environ.get("HYDRA_FULL_ERROR") == "1" and "PATCHBENCH_RANKS" not in os.environ


class Refused(Exception):
    """Raised where the configuration cannot run; the message says why, and what would."""


class CellFailed(Exception):
    """Raised where a cell of a sweep failed and its error was already printed."""


@contextmanager
def refusing(*objections: type[Exception]) -> Iterator[None]:
    """Turn exceptions of these classes into refusals; by default those that parts raise while they are built."""
    parts_object = (ValueError, TypeError, OSError, CompactHydraException, OmegaConfBaseException)
    try:
        yield
    except objections or parts_object as error:  # noqa: B030
        cause: BaseException = error
        while isinstance(cause, CompactHydraException) and cause.__cause__ is not None:
            cause = cause.__cause__
        raise Refused(str(cause)) from error


def refuse_added_options(overrides: Iterable[str]) -> None:
    """Hydra accepts `+key=value` for any key; here every option has a default, so a new one would be read by nobody."""
    for override in overrides:
        key = override.lstrip("+~").split("=")[0]
        if override[0] in "+~" and "/" not in key:
            raise Refused(f"no option {key!r} to add or remove: {did_you_mean(key)}; change an option by {key}=value")


def refuse_lists_of_options(overrides: Iterable[str]) -> None:
    """Hydra merges a list of options into one of them; only schemes of position fill places side by side."""
    for override in overrides:
        group, _, options = override.partition("=")
        if group == "pos" or "[" not in options or not (CONF / group).is_dir():
            continue
        try:
            parsed = OverridesParser.create().parse_override(override)
        except OverrideParseException:  # for Hydra to refuse
            continue
        value = parsed.value()
        values = value.list if isinstance(value, ChoiceSweep) else [value]
        if lists := [each for each in values if isinstance(each, list)]:
            names = ",".join(map(str, lists[0])) or "<option>"
            raise Refused(
                f"{override} names several options, and {group} takes one: to sweep, train.py -m {group}={names}"
            )


def one_line_errors(main: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a main function of Hydra's: inside of `hydra.main` for refusals of the job, outside for those of Hydra."""

    @functools.wraps(main)
    def wrapped(*args: Any) -> Any:
        inside = HydraConfig.initialized()
        if not TRACEBACK:
            # Tells ranks that this process starts that HYDRA_FULL_ERROR was set here, not by the user.
            os.environ["PATCHBENCH_RANKS"] = "1"
        os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra shall raise what it would otherwise print
        try:
            return main(*args)
        except (Refused, CompactHydraException, OmegaConfBaseException) as error:
            in_sweep = inside and HydraConfig.get().mode == RunMode.MULTIRUN
            if TRACEBACK or in_sweep:  # in a sweep the other cells go on, and Hydra raises this at the end
                raise
            print(f"error: {explain(error)}", file=sys.stderr)
            raise SystemExit(2) from None
        except CellFailed:
            raise SystemExit(1) from None
        except RuntimeError as error:
            if TRACEBACK or type(error).__module__ != "submitit.core.utils":
                raise
            what = " ".join(str(error).splitlines()[:2])
            cure = "the others go on (squeue), and the same command goes on with it"
            print(f"error: a cell has failed: {what}; {cure}", file=sys.stderr)
            raise SystemExit(1) from None

    return wrapped


def explain(error: Exception) -> str:
    """Say in one line what Hydra says in a paragraph."""
    text = " ".join(str(error).split())
    if isinstance(error, OverrideParseException):
        return f"cannot read the argument {error.override!r}: write group=option, knob=value, or 'knob=[a,b]' in quotes"
    if match := re.search(r"Could not (?:find|load) '(.+)/(\S+)'", text):
        group, option = match.groups()
        if option in EXTRAS:
            extra = EXTRAS[option]
            return f"{group}={extra} needs packages that are not installed: pip install -e '.[{extra}]'"
        options = sorted(path.stem for path in (CONF / group).glob("*.yaml"))
        close = nearest(option, options)
        hint = f"did you mean {group}={close[0]}? " if close else ""
        return f"{group}={option} is no option: {hint}{group} may be {', '.join(options)}"
    if match := re.search(r"Could not override '(.+?)'", text):
        return f"no option {match[1]!r}: {did_you_mean(match[1])}; python train.py --help lists all"
    if match := re.search(r"Value '(.*)' of type '\w+' could not be converted to (\w+).*full_key: (\S+)", text):
        return f"{match[3]}={match[1]} must be of type {match[2]}; python train.py --help shows its default"
    if match := re.search(r"Missing mandatory value: (\S+)", text):
        return f"{match[1]} must be given: {match[1]}=<value>"
    return text


def did_you_mean(key: str) -> str:
    """Name the nearest key of the configuration that the other arguments make."""

    def paths(node: dict[str, Any], prefix: str = "") -> Iterator[str]:
        for name, value in node.items():
            yield prefix + name
            if isinstance(value, dict):
                yield from paths(value, f"{prefix}{name}.")

    rest = [a for a in sys.argv[1:] if a[0] not in "+~-" and "," not in a and a.split("=")[0] != key]
    try:
        tree = OmegaConf.to_container(without_hydra(composed(rest)))
    except (CompactHydraException, OmegaConfBaseException):
        return "check its spelling"
    keys = list(paths(tree))  # type: ignore[arg-type]
    if close := nearest(key, keys):
        return f"did you mean {close[0]}?"
    parent = key.rpartition(".")[0]
    siblings = [k for k in keys if k.rpartition(".")[0] == parent]
    return f"{parent or 'the configuration'} has {', '.join(siblings)}" if siblings else "check its spelling"
