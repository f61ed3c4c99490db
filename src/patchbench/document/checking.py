"""Computed cases: a function is called, and its figures are compared with the values or bounds of the case.

A check is a function that returns figures by name: numbers, text, true or false, or lists of these. A name such as
`patches.tokens` means a function of this folder; other names are imported: `mine.brightness` is the function
`brightness` of a file mine.py in the folder of the statements. If the first argument of a check is called `build`, it
receives a function that builds the network of `python train.py <options>`: `build("model=tiny", "pos=rope")`.
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
SMALL = 1e-3  # smaller numbers are rounding errors, or bounds on rounding errors
SIGNS = dict(zip(BOUNDS, "≥≤", strict=True))
RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
OWN = {module.__name__.rpartition(".")[2]: module for module in (convolution, network, patches, position)}


@dataclass(frozen=True)
class Tools:
    """The context of the checks of one page.

    build: builds a network from options of train.py. page: folder of the page, to which links are relative. cache:
    figures by check and arguments, so that nothing is computed twice.
    """

    build: Build
    page: Path
    cache: dict[str, Mapping[str, Any]] = field(default_factory=dict)


def vocabulary() -> dict[str, Check]:
    """Return the checks of this folder by name: the functions of its modules that return figures."""
    return {
        f"{name}.{function}": value
        for name, module in OWN.items()
        for function, value in vars(module).items()
        if inspect.isfunction(value) and value.__module__ == module.__name__ and returns_figures(value)
    }


def returns_figures(function: Callable[..., Any]) -> bool:
    """True if the return annotation of a function is dict[str, Any]."""
    return inspect.signature(function).return_annotation == dict[str, Any]


def find_check(case: Case) -> Check:
    """Return the function of a case. ValueError if there is none."""
    checks = vocabulary()
    if case.check in checks:
        return checks[case.check]
    module_name, _, name = case.check.rpartition(".")
    close = nearest(case.check, checks)
    hint = f"did you mean {close[0]}? " if close else ""
    unknown = f"{case.where}: check={case.check} is unknown: {hint}checks are {', '.join(checks)}, or <file>.<function>"
    if not module_name or module_name in OWN:
        raise ValueError(unknown)
    try:
        module: ModuleType = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and not f"{module_name}.".startswith(f"{error.name}."):
            raise  # an import in the user's file has failed
        raise ValueError(unknown) from error
    check = getattr(module, name, None)
    if not callable(check):
        raise ValueError(f"{case.where}: check={case.check}: {module_name} has no function {name}")
    return check


def run(case: Case, tools: Tools) -> Result:
    """Call the check of a case, always with the same random state, and compare its figures.

    ValueError for an argument that the check does not accept, or a figure that it does not return.
    """
    check = find_check(case)
    arguments = dict(case.arguments or {})
    parameters = inspect.signature(check).parameters
    injected = (tools.build,) if next(iter(parameters), "") == "build" else ()
    try:
        inspect.signature(check).bind(*injected, **arguments)
    except TypeError as error:
        takes = ", ".join(name for name in parameters if name != "build") or "none"
        raise ValueError(f"{case.where}: with of check={case.check}: {error}; arguments are {takes}") from None
    call = f"{case.check}({arguments})"
    if call not in tools.cache:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            try:
                tools.cache[call] = check(*injected, **arguments)
            except ValueError as error:
                raise ValueError(f"{case.where}: check={case.check}: {error}") from error
    figures = tools.cache[call]
    if not isinstance(figures, Mapping):
        raise ValueError(f"{case.where}: check={case.check} returned {figures!r}: a check returns figures by name")
    for name, wanted in (case.gives or {}).items():
        if name not in figures:
            raise ValueError(f"{case.where}: gives.{name}: {case.check} returns {', '.join(figures)}")
        if kind_of(figures[name]) != kind_of(wanted):
            raise ValueError(
                f"{case.where}: gives.{name}={wanted!r} is {kind_of(wanted)}, and {case.check} returns "
                f"{kind_of(figures[name])}, {spell(figures[name])}: they cannot be compared"
            )
    return Result(
        says=fill_in(case, case.says, figures),
        answer=verdict(case, figures),
        measured=measured(case, figures),
        link=relative_link(Path(inspect.getfile(inspect.unwrap(check))), tools.page),
    )


def kind_of(figure: Any) -> str:
    """Describe the type of a figure, of a value or of bounds, in words."""
    if isinstance(figure, bool):
        return "true or false"
    return "text" if isinstance(figure, str) else "a list" if isinstance(figure, list | tuple) else "a number"


def verdict(case: Case, figures: Mapping[str, Any]) -> str:
    """Return the result of a case: yes if all its figures have the required values, else no; an amount without them."""
    if not case.gives:
        return "by how much"
    return "yes" if all(holds(figures[name], wanted) for name, wanted in case.gives.items()) else "no"


def holds(figure: Any, wanted: Any) -> bool:
    """True if a figure equals the wanted value, or lies within the wanted bounds; false for NaN."""
    if not isinstance(wanted, Mapping):
        return figure == wanted and isinstance(figure, bool) == isinstance(wanted, bool)
    least, most = (wanted.get(bound, default) for bound, default in zip(BOUNDS, (-math.inf, math.inf), strict=True))
    return least <= figure <= most


def measured(case: Case, figures: Mapping[str, Any]) -> str:
    """Spell the bounds of the case, and the values that figures do not have; empty if all figures are as required."""
    conditions = [
        f"{name.replace('_', ' ')} {region(wanted)}"
        for name, wanted in (case.gives or {}).items()
        if isinstance(wanted, Mapping) or not holds(figures[name], wanted)
    ]
    return f"holds if {' and '.join(conditions)}" if conditions else ""


def region(wanted: Any) -> str:
    """Spell the allowed values of a figure: ≤ 10⁻⁹."""
    if not isinstance(wanted, Mapping):
        return f"= {spell(wanted)}"
    return " and ".join(f"{SIGNS[bound]} {scientific(value)}" for bound, value in wanted.items())


class Words(string.Formatter):
    """Formatter for sentences; `spell` writes a figure that has no format specification."""

    def format_field(self, value: Any, format_spec: str) -> Any:
        return format(value, format_spec) if format_spec else spell(value)


def fill_in(case: Case, text: str, figures: Mapping[str, Any]) -> str:
    """Fill the figures into a sentence. ValueError for a {name} that is no figure."""
    try:
        return Words().vformat(text, (), dict(figures))
    except (KeyError, IndexError, ValueError, AttributeError, TypeError) as error:
        raise ValueError(
            f"{case.where}: says={text}: {error} cannot be filled in; {case.check} returns {', '.join(figures)}"
        ) from None


def spell(figure: Any) -> str:
    """Spell a figure for people. A rounding error is spelled as the next power of ten, equal on every machine."""
    if isinstance(figure, bool):
        return "true" if figure else "false"
    if isinstance(figure, list | tuple):
        return ", ".join(map(spell, figure)) or "none"
    if isinstance(figure, int):
        return f"{figure:,}"
    if isinstance(figure, float):
        if 0 < abs(figure) < SMALL:
            return f"less than {scientific(10.0 ** (math.floor(math.log10(abs(figure))) + 1))}"
        return f"{figure:,.4g}"
    return str(figure)


def scientific(value: float | int) -> str:
    """Spell a number; a small number as a multiple of a power of ten."""
    if not 0 < abs(value) < SMALL:
        return f"{value:,g}"
    digits, _, power = f"{value:.0e}".partition("e")
    return f"{'' if digits == '1' else f'{digits}·'}10{str(int(power)).translate(RAISED)}"


def relative_link(path: Path, folder: Path) -> str:
    """Return the path of a file relative to a folder, for a link."""
    return Path(os.path.relpath(path.resolve(), folder.resolve())).as_posix()
