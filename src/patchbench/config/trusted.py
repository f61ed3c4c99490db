"""Classes and functions that this program may build for a checkpoint or a record.

A configuration in a file names classes and functions, and the author of the file could name any function. So a name is
allowed only if an option in conf/ has it at the same path, if it is an optimizer of torch or timm, or if its module is
listed in TRUST.
"""

import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from hydra.errors import HydraException
from hydra.utils import get_object

from patchbench.config.knobs import groups, knobs
from patchbench.config.options import CONF

TRUST = "PATCHBENCH_TRUST"  # environment variable with modules of the user, separated by commas
CALL_KEYS = ("_target_", "_args_", "_recursive_")  # keys with which Hydra calls a class or function
OPTIMIZERS = ("torch.optim.", "timm.optim.")


def check_options(options: Mapping[str, Any]) -> None:
    """Raise ValueError unless every option is a file in its group of conf/, so that no name leads to another file."""
    for group, chosen in options.items():
        names = chosen if isinstance(chosen, list) else [chosen]
        if group not in groups():
            raise ValueError(f"the file names {group}={chosen}, and conf/ has no {group}")
        for name in names:
            if not re.fullmatch(r"\w[\w-]*", str(name)) or not (CONF / group / f"{name}.yaml").is_file():
                raise ValueError(f"the file names {group}={name}, which conf/{group}/ does not have")


def check_target(path: str, target: str) -> None:
    """Raise ValueError unless `target` is allowed at this path. path: of the key, such as data._target_."""
    if target in map(str, knobs().get(path, {}).values()) or is_trusted(target):
        return
    if path == "optim.optimizer._target_" and is_optimizer(target):
        return
    module = target.partition(".")[0]
    raise ValueError(
        f"the file names {path}={target}, which no option in conf/ has, so this program does not run it: if it is your "
        f"own code, set {TRUST}={module}"
    )


def is_trusted(target: str) -> bool:
    """True if the user trusts the module or package of a target, and the object is defined there, not imported."""
    modules = [name.strip() for name in os.environ.get(TRUST, "").split(",") if name.strip()]
    if not any(target.startswith(f"{name}.") for name in modules):
        return False
    own = getattr(get_object(target), "__module__", "") or ""
    return any(own == name or own.startswith(f"{name}.") for name in modules)


def is_optimizer(target: str) -> bool:
    """True for a class of optimizers of torch or timm."""
    if not target.startswith(OPTIMIZERS):
        return False
    try:
        loaded = get_object(target)
    except (HydraException, ImportError, ValueError, AttributeError):
        return False
    return isinstance(loaded, type) and issubclass(loaded, torch.optim.Optimizer)


def check_targets(tree: Mapping[str, Any]) -> None:
    """Raise ValueError unless all targets of a configuration are allowed.

    tree: the whole configuration as plain mappings and lists.
    """
    for path, target in call_keys(tree, ""):
        if path.endswith("._target_"):
            check_target(path, str(target))
        else:
            raise ValueError(f"the file names {path}={target}, which no run writes")


def call_keys(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Yield path and value of all CALL_KEYS, at any depth, also in lists."""
    if isinstance(value, Mapping):
        for key, each in value.items():
            below = f"{path}.{key}" if path else str(key)
            if str(key) in CALL_KEYS:
                yield below, each
            yield from call_keys(each, below)
    elif isinstance(value, list | tuple):
        for number, each in enumerate(value):
            yield from call_keys(each, f"{path}[{number}]")


def check_value(path: str, value: Any) -> None:
    """Raise ValueError for a value that no run writes, and that OmegaConf or Hydra would not read as a plain value.

    These are: a text with an interpolation, since a run stores the resolved value; a mapping in a list, which Hydra
    would build; a key with brackets or a point, which OmegaConf would read as a path.
    """
    if isinstance(value, Mapping):
        for key, each in value.items():
            if not re.fullmatch(r"\w[\w-]*", str(key)):
                raise ValueError(f"the file has {path}.{key}, which is no name of an option")
            check_value(f"{path}.{key}", each)
    elif isinstance(value, list | tuple):
        for each in value:
            if isinstance(each, Mapping):
                raise ValueError(f"the file has a mapping in the list {path}, which no run writes")
            check_value(path, each)
    elif "${" in str(value):
        raise ValueError(f"the file has {path}={value}, an interpolation, which no run writes")
