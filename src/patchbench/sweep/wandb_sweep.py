"""A grid of Hydra's as a sweep of W&B, whose agents run train.py (https://docs.wandb.ai/models/sweeps)."""

from collections.abc import Sequence
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Glob, IntervalSweep, Override, RangeSweep

from patchbench.config.command import register
from patchbench.config.compose import CONF
from patchbench.config.errors import refusing

METHODS = ("grid", "random", "bayes")


def wandb_sweep(arguments: Sequence[str], *, method: str, metric: str, project: str) -> dict[str, Any]:
    """The sweep, as W&B reads it from YAML.

    arguments: as those of `train.py -m`. metric: of the last row, the higher the better. Refused where train.py would
    refuse the first combination, where nothing is swept, or where `method` cannot search what is.
    """
    parsed = OverridesParser.create().parse_overrides(list(arguments))
    register()
    with refusing():
        if method not in METHODS:
            raise ValueError(f"--method {method} is unknown: use {', '.join(METHODS)}")
        swept = {each.get_key_element(): parameter(each, method) for each in parsed if each.is_sweep_override()}
        fixed = [str(each.input_line) for each in parsed if not each.is_sweep_override()]
        if not swept:
            raise ValueError("no argument has several values: give one as embed=conv,linear or optim.lr=interval(a,b)")
        with initialize_config_dir(str(CONF), version_base="1.3"):
            compose("train", overrides=[*fixed, *(f"{key}={first(axis)}" for key, axis in swept.items())])
    return {
        "project": project,
        "method": method,
        "metric": {"name": metric, "goal": "maximize"},
        "program": "train.py",
        "command": ["${env}", "${interpreter}", "${program}", *fixed, "${args_no_hyphens}"],
        "parameters": swept,
    }


def parameter(override: Override, method: str) -> dict[str, Any]:
    """One axis. The agent writes str(value) behind `key=`, so what is no number is kept as Hydra's own text."""
    axis = override.value()
    if isinstance(axis, IntervalSweep):
        return interval(override, axis, method)
    if isinstance(axis, RangeSweep):
        return {"values": list(axis.range())}
    if isinstance(axis, Glob):
        group = override.get_key_element()
        return {"values": axis.filter(sorted(path.stem for path in (CONF / group).glob("*.yaml")))}
    assert isinstance(axis, ChoiceSweep)
    return {"values": [as_value(value) for value in axis.list]}


def interval(override: Override, axis: IntervalSweep, method: str) -> dict[str, Any]:
    if method == "grid":
        raise ValueError(f"--method grid cannot search {override.input_line}: use --method random or bayes, or values")
    assert axis.start is not None
    assert axis.end is not None
    whole = isinstance(axis.start, int) and isinstance(axis.end, int)
    if "log" in axis.tags:
        kind: dict[str, Any] = {"distribution": "q_log_uniform_values", "q": 1} if whole else {}
        return {"distribution": "log_uniform_values"} | kind | {"min": axis.start, "max": axis.end}
    return {"distribution": "int_uniform" if whole else "uniform", "min": axis.start, "max": axis.end}


def as_value(value: Any) -> Any:
    """A number as it is, all else as Hydra would read it back."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value
    return Override._get_value_element_as_str(value)


def first(axis: dict[str, Any]) -> Any:
    return axis["values"][0] if "values" in axis else axis["min"]
