"""Translation of a grid of Hydra to a sweep of W&B with train.py (https://docs.wandb.ai/models/sweeps)."""

from collections.abc import Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Glob, IntervalSweep, Override, RangeSweep

from patchbench.config.compose import composed
from patchbench.config.errors import refusing
from patchbench.config.options import CONF

LONGEST = 20  # largest number of values of an axis that are composed before the sweep is created, each in 0.1 s
METHODS = ("grid", "random", "bayes")


def wandb_sweep(arguments: Sequence[str], *, method: str, metric: str, project: str) -> dict[str, Any]:
    """Return the definition of the sweep, as in a YAML file of W&B.

    arguments: those of `train.py -m`. metric: name of the metric to maximise. Refused if train.py would refuse a value,
    if no argument has several values, or if `method` cannot search the values.
    """
    parsed = OverridesParser.create().parse_overrides(list(arguments))
    with refusing():
        if method not in METHODS:
            raise ValueError(f"method={method} is unknown: use {', '.join(METHODS)}")
        swept = {each.get_key_element(): parameter(each, method) for each in parsed if each.is_sweep_override()}
        fixed = [str(each.input_line) for each in parsed if not each.is_sweep_override()]
        if not swept:
            raise ValueError("no argument has several values: give one as embed=conv,linear or optim.lr=interval(a,b)")
        start = {key: first(axis) for key, axis in swept.items()}
        for key, axis in swept.items():
            for value in axis.get("values", [start[key]])[:LONGEST]:
                composed([*fixed, *(f"{name}={each}" for name, each in (start | {key: value}).items())])
    return {
        "project": project,
        "method": method,
        "metric": {"name": metric, "goal": "maximize"},
        "program": "train.py",
        "command": ["${env}", "${interpreter}", "${program}", *fixed, "${args_no_hyphens}"],
        "parameters": swept,
    }


def parameter(override: Override, method: str) -> dict[str, Any]:
    """Translate one axis. The agent writes `key=` and str(value), so values other than numbers keep Hydra's syntax."""
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
    """Translate an interval to a distribution of W&B."""
    if method == "grid":
        raise ValueError(f"method=grid cannot search {override.input_line}: use method=random, method=bayes, or values")
    assert axis.start is not None
    assert axis.end is not None
    whole = isinstance(axis.start, int) and isinstance(axis.end, int)
    if "log" in axis.tags:
        kind: dict[str, Any] = {"distribution": "q_log_uniform_values", "q": 1} if whole else {}
        return {"distribution": "log_uniform_values"} | kind | {"min": axis.start, "max": axis.end}
    return {"distribution": "int_uniform" if whole else "uniform", "min": axis.start, "max": axis.end}


def as_value(value: Any) -> Any:
    """Return a number as it is, and any other value as text that Hydra reads as the same value."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value
    return Override._get_value_element_as_str(value)


def first(axis: dict[str, Any]) -> Any:
    """Return the first value of an axis."""
    return axis["values"][0] if "values" in axis else axis["min"]
