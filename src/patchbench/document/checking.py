"""Computed cases: a function is called, and its figures are compared with those that the case must give.

A check is a function that returns figures by name: numbers, text, true or false, or lists of these. A name such as
`patches.tokens` means a function of this folder, any other one is imported: `mine.brightness` is the function
`brightness` of a file mine.py beside the statements. A check whose first argument is called `build` receives a function
that builds the network of `python train.py <options>`, as in `build("model=tiny", "pos=rope")`.
"""

import importlib
import inspect
import math
import os
import string
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from patchbench.checks import nearest
from patchbench.document import convolution, network, patches, position
from patchbench.document.answers import Result
from patchbench.document.statements import BOUNDS, Case

Build = Callable[..., nn.Module]
Check = Callable[..., Mapping[str, Any]]
SMALL = 1e-3  # numbers below are rounding errors, or bounds on them
SIGNS = dict(zip(BOUNDS, "≥≤", strict=True))
RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
OWN = {module.__name__.rpartition(".")[2]: module for module in (convolution, network, patches, position)}


@dataclass(frozen=True)
class Tools:
    """build: networks by the options of train.py. page: the folder of the page, from which links go out.

    known: figures by check and arguments, so that nothing is computed twice for one page.
    """

    build: Build
    page: Path
    known: dict[str, Mapping[str, Any]] = field(default_factory=dict)


def vocabulary() -> dict[str, Check]:
    """The checks of this folder by name: every function of its modules that returns figures."""
    return {
        f"{name}.{function}": value
        for name, module in OWN.items()
        for function, value in vars(module).items()
        if inspect.isfunction(value) and value.__module__ == module.__name__ and returns_figures(value)
    }


def returns_figures(function: Callable[..., Any]) -> bool:
    return inspect.signature(function).return_annotation == dict[str, Any]


def find(case: Case) -> Check:
    """The function of a case. ValueError if there is none."""
    there = vocabulary()
    if case.check in there:
        return there[case.check]
    module_name, _, name = case.check.rpartition(".")
    close = nearest(case.check, there)
    hint = f"did you mean {close[0]}? " if close else ""
    unknown = f"{case.where}: check={case.check} is unknown: {hint}checks are {', '.join(there)}, or <file>.<function>"
    if not module_name or module_name in OWN:
        raise ValueError(unknown)
    try:
        module: ModuleType = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and not f"{module_name}.".startswith(f"{error.name}."):
            raise  # a file of the user's lacks something itself
        raise ValueError(unknown) from error
    check = getattr(module, name, None)
    if not callable(check):
        raise ValueError(f"{case.where}: check={case.check}: {module_name} has no function {name}")
    return check


def run(case: Case, tools: Tools) -> Result:
    """Call the check of a case, always from the same random state, and judge its figures.

    ValueError for an argument that the check does not take, or a figure that it does not return.
    """
    check = find(case)
    arguments = dict(case.arguments or {})
    parameters = inspect.signature(check).parameters
    injected = (tools.build,) if next(iter(parameters), "") == "build" else ()
    try:
        inspect.signature(check).bind(*injected, **arguments)
    except TypeError as error:
        takes = ", ".join(name for name in parameters if name != "build") or "none"
        raise ValueError(f"{case.where}: with of check={case.check}: {error}; arguments are {takes}") from None
    call = f"{case.check}({arguments})"
    if call not in tools.known:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            try:
                tools.known[call] = check(*injected, **arguments)
            except ValueError as error:
                raise ValueError(f"{case.where}: check={case.check}: {error}") from error
    figures = tools.known[call]
    if not isinstance(figures, Mapping):
        raise ValueError(f"{case.where}: check={case.check} returned {figures!r}: a check returns figures by name")
    for name, wanted in (case.gives or {}).items():
        if name not in figures:
            raise ValueError(f"{case.where}: gives.{name}: {case.check} returns {', '.join(figures)}")
        if form(figures[name]) != form(wanted):
            raise ValueError(f"{case.where}: gives.{name}={wanted!r} is {form(wanted)}, and {case.check} returns "
                             f"{form(figures[name])}, {plain(figures[name])}: they cannot be compared")  # fmt: skip
    return Result(
        says=filled(case, case.says, figures),
        answer=verdict(case, figures),
        measured=measured(case, figures),
        link=relative(Path(inspect.getfile(inspect.unwrap(check))), tools.page),
    )


def form(figure: Any) -> str:
    """The kind of a figure, or of a value or bounds that it must have, in words."""
    if isinstance(figure, bool):
        return "true or false"
    return "text" if isinstance(figure, str) else "a list" if isinstance(figure, list | tuple) else "a number"


def verdict(case: Case, figures: Mapping[str, Any]) -> str:
    if not case.gives:
        return "by how much"
    return "yes" if all(holds(figures[name], wanted) for name, wanted in case.gives.items()) else "no"


def holds(figure: Any, wanted: Any) -> bool:
    """True if a figure equals what is wanted, or lies within its bounds; not a number lies nowhere."""
    if not isinstance(wanted, Mapping):
        return figure == wanted and isinstance(figure, bool) == isinstance(wanted, bool)
    least, most = (wanted.get(bound, default) for bound, default in zip(BOUNDS, (-math.inf, math.inf), strict=True))
    return least <= figure <= most


def measured(case: Case, figures: Mapping[str, Any]) -> str:
    """The condition under which the case holds; empty for figures that are exactly what they must be."""
    conditions = [
        f"{name.replace('_', ' ')} {region(wanted)}"
        for name, wanted in (case.gives or {}).items()
        if isinstance(wanted, Mapping) or not holds(figures[name], wanted)
    ]
    return f"holds if {' and '.join(conditions)}" if conditions else ""


def region(wanted: Any) -> str:
    """The values that a figure may have, as in ≤ 10⁻⁹."""
    if not isinstance(wanted, Mapping):
        return f"= {plain(wanted)}"
    return " and ".join(f"{SIGNS[bound]} {scientific(value)}" for bound, value in wanted.items())


class Words(string.Formatter):
    """Fill a sentence; a figure without a format is spelled as people do."""

    def format_field(self, value: Any, format_spec: str) -> Any:
        return format(value, format_spec) if format_spec else plain(value)


def filled(case: Case, text: str, figures: Mapping[str, Any]) -> str:
    """A sentence with the figures in it. ValueError for a {name} that is no figure."""
    try:
        return Words().vformat(text, (), dict(figures))
    except (KeyError, IndexError, ValueError, AttributeError, TypeError) as error:
        raise ValueError(
            f"{case.where}: says={text}: {error} cannot be filled in; {case.check} returns {', '.join(figures)}"
        ) from None


def plain(figure: Any) -> str:
    """A figure as people read it. A rounding error is a power of ten above it, the same on every machine."""
    if isinstance(figure, bool):
        return "true" if figure else "false"
    if isinstance(figure, list | tuple):
        return ", ".join(map(plain, figure)) or "none"
    if isinstance(figure, int):
        return f"{figure:,}"
    if isinstance(figure, float):
        if 0 < abs(figure) < SMALL:
            return f"less than {scientific(10.0 ** (math.floor(math.log10(abs(figure))) + 1))}"
        return f"{figure:,.4g}"
    return str(figure)


def scientific(value: float | int) -> str:
    """A number; a small one as a multiple of a power of ten."""
    if not 0 < abs(value) < SMALL:
        return f"{value:,g}"
    digits, _, power = f"{value:.0e}".partition("e")
    return f"{'' if digits == '1' else f'{digits}·'}10{str(int(power)).translate(RAISED)}"


def relative(path: Path, folder: Path) -> str:
    """The way from a folder to a file, as a link has it."""
    return Path(os.path.relpath(path.resolve(), folder.resolve())).as_posix()
