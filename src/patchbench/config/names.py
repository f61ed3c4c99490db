"""Names of runs and of sweeps, for people and for folders."""

import hashlib
import os
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from patchbench.config.identity import baseline, factors_of, identity_of

SWEEP = "PATCHBENCH_SWEEP"  # environment variable that carries the name of a sweep to its cells


def register() -> None:
    """Register the resolvers `${run_name:}` and `${sweep_name:}` that conf/ refers to."""
    OmegaConf.register_new_resolver("run_name", run_name, replace=True)
    OmegaConf.register_new_resolver("sweep_name", sweep_name, replace=True)


def display_name(levels: Mapping[str, Any]) -> str:
    """Name a run for people: `conv/16 learned digits s0`.

    Model, augmentation and optimizer are named if they are not the defaults of train.py; the model also if the network
    reads no position.
    """
    usual = baseline()["train"]
    words = [levels["model"]] if levels["pos"] is None or levels["model"] != usual["model"] else []
    words += [embedding_name(levels)] if levels["embed"] is not None else []
    words += [levels["pos"]] if levels["pos"] is not None else []
    words += [levels["data"], *(levels[name] for name in ("augment", "optim") if levels[name] != usual[name])]
    return " ".join([*words, f"s{levels['seed']}"])


def title(levels: Mapping[str, Any]) -> str:
    """Name a run with its model: `conv/16 learned digits s0, tiny`."""
    name = display_name(levels)
    return name if levels["model"] in name.split() else f"{name}, {levels['model']}"


def embedding_name(levels: Mapping[str, Any]) -> str:
    """Name an embedding with its patch: `conv/16`, `conv/4x8`."""
    patch = levels["patch"]
    if patch is None:
        return levels["embed"]
    return f"{levels['embed']}/{'x'.join(map(str, patch)) if isinstance(patch, list) else patch}"


def command_line(levels: Mapping[str, Any]) -> str:
    """Write the levels of a run as options of train.py, quoted for a shell, without the knobs of the groups."""
    options = {name: levels[name] for name in ("embed", "patch", "pos", "data", "augment", "model", "seed")}
    if "+" in (options["pos"] or ""):
        options["pos"] = f"[{options['pos'].replace('+', ',')}]"
    if options["augment"] == "none":
        options["augment"] = None
    words = (f"{name}={level}".replace(" ", "") for name, level in options.items() if level is not None)
    return shlex.join(words)


def run_name(*, _root_: DictConfig) -> str:
    """Name the folder of a run by its display name and its identity: conv-16_learned_digits_s0_1a2b3c4d.

    A run of this identity that has a folder under another name keeps that name, for example if its data were moved.
    """
    choices = _root_.hydra.runtime.choices
    identity = identity_of(_root_, choices)
    if earlier := sorted(Path(_root_.runs_dir).glob(f"*_{identity}")):
        return earlier[0].name
    levels = display_name(factors_of(_root_, choices))
    return f"{levels.replace('/', '-').replace(' ', '_')}_{identity}"


def sweep_name() -> str | None:
    """Name of the sweep that this process runs or belongs to; None outside of a sweep."""
    if SWEEP in os.environ:
        return os.environ[SWEEP]
    return sweep_name_of_command() if {"-m", "--multirun"} & set(sys.argv) else None


def sweep_name_of_command() -> str:
    """Name a sweep by its command line, without the options of Hydra: equal grids have equal names."""
    grid = sorted(argument for argument in sys.argv[1:] if not argument.startswith("hydra"))
    return "sweep-" + hashlib.sha256(" ".join(grid).encode()).hexdigest()[:8]
