"""Parts that a checkpoint or a record may make this program build: those that conf/ names, and those of the user.

A configuration that is read from a file chooses classes and functions by name, and whoever wrote the file could name
any. So a name counts only where an option in conf/ has it at the same place, where it is an optimizer of torch or timm,
or where it is of a module that TRUST names.
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

TRUST = "PATCHBENCH_TRUST"  # in the environment: modules, by commas, of parts of the user's own
CALLING = ("_target_", "_args_", "_recursive_")  # keys by which Hydra calls something
OPTIMIZERS = ("torch.optim.", "timm.optim.")


def check_options(options: Mapping[str, Any]) -> None:
    """ValueError unless every option is a file in its group of conf/, so that none leads to another file."""
    for group, chosen in options.items():
        names = chosen if isinstance(chosen, list) else [chosen]
        if group not in groups():
            raise ValueError(f"the file names {group}={chosen}, and conf/ has no {group}")
        for name in names:
            if not re.fullmatch(r"\w[\w-]*", str(name)) or not (CONF / group / f"{name}.yaml").is_file():
                raise ValueError(f"the file names {group}={name}, which conf/{group}/ does not have")


def check_target(path: str, target: str) -> None:
    """ValueError unless a file may make this program build `target`. path: where it stands, as data._target_."""
    if target in map(str, knobs().get(path, {}).values()) or is_trusted(target):
        return
    if path == "optim.optimizer._target_" and is_optimizer(target):
        return
    module = target.partition(".")[0]
    raise ValueError(
        f"the file names {path}={target}, which no option in conf/ has, and a file may not make this program run what "
        f"it likes: if it is a part of your own, set {TRUST}={module}"
    )


def is_trusted(target: str) -> bool:
    """True if the user trusts the module, or the package, of a target, and the object is of there, not imported."""
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
        found = get_object(target)
    except (HydraException, ImportError, ValueError, AttributeError):
        return False
    return isinstance(found, type) and issubclass(found, torch.optim.Optimizer)


def check_targets(tree: Mapping[str, Any]) -> None:
    """ValueError unless a file may make this program build all that a configuration would be built into.

    tree: the whole configuration as plain mappings and lists.
    """
    for path, target in named(tree, ""):
        if path.endswith("._target_"):
            check_target(path, str(target))
        else:
            raise ValueError(f"the file names {path}={target}, which no run leaves behind")


def named(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Paths and values of the keys, at any depth, that say what is called with which arguments, also in lists."""
    if isinstance(value, Mapping):
        for key, each in value.items():
            below = f"{path}.{key}" if path else str(key)
            if str(key) in CALLING:
                yield below, each
            yield from named(each, below)
    elif isinstance(value, list | tuple):
        for number, each in enumerate(value):
            yield from named(each, f"{path}[{number}]")


def check_value(path: str, value: Any) -> None:
    """ValueError for what no run of ours leaves behind, and what OmegaConf or Hydra would take for more than a value.

    A text with an interpolation: those of a run are stored as what they came to. A mapping in a list, which Hydra
    would build. A key that is no name, as one with brackets or a point, which OmegaConf would follow to another place.
    """
    if isinstance(value, Mapping):
        for key, each in value.items():
            if not re.fullmatch(r"\w[\w-]*", str(key)):
                raise ValueError(f"the file has {path}.{key}, which is no name of an option")
            check_value(f"{path}.{key}", each)
    elif isinstance(value, list | tuple):
        for each in value:
            if isinstance(each, Mapping):
                raise ValueError(f"the file has a mapping in the list {path}, which no run leaves behind")
            check_value(path, each)
    elif "${" in str(value):
        raise ValueError(f"the file has {path}={value}, an interpolation, which no run leaves behind")
