"""Check of the values of a configuration against the type annotations of the arguments that receive them.

Hydra passes on any value: `embed.pad=abc` would count as true, and the error of torch for `optim.lr=abc` would name
neither the option nor its value.
"""

import inspect
import math
import re
import types
from collections.abc import Callable, Mapping, Sequence
from pkgutil import resolve_name
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from omegaconf import DictConfig, OmegaConf

from patchbench.checks import nearest
from patchbench.config.knobs import BUILDING, knobs
from patchbench.config.mistakes import example

INTERPOLATION = re.compile(r"\$\{([\w.]+)\}")
TYPE_WORDS: dict[Any, str] = {float: "a number", int: "a whole number", bool: "true or false", str: "text"}
TYPE_WORDS |= {Sequence: "a list", Mapping: "a mapping"}


def check_parts(path: str, part: DictConfig) -> None:
    """Check the arguments in a mapping with `_target_`, and in all nested mappings with `_target_`.

    ValueError names the first value of a wrong type and the expected type, or the first key that is no argument.
    """
    if part._is_none() or part._is_missing():
        return
    if target := part.get("_target_"):
        try:
            build = resolve_name(str(target))
        except (ImportError, AttributeError, ValueError) as error:
            reason = " ".join(str(error).split()).partition(" Are you sure")[0]
            raise ValueError(f"{path}._target_={target} is no class or function: {reason}") from error
        refuse_unknown(path, part, build)
        check_arguments(path, part, build)
    for name in map(str, part):
        node = part._get_node(name)
        if OmegaConf.is_dict(node) and not OmegaConf.is_interpolation(part, name):
            check_parts(f"{path}.{name}", node)  # type: ignore[arg-type]


def refuse_unknown(path: str, part: DictConfig, build: Any) -> None:
    """Raise ValueError for a key that is no argument of `build`, the class or function of the part."""
    parameters = inspect.signature(build).parameters
    if any(each.kind is each.VAR_KEYWORD for each in parameters.values()):
        return
    for key in map(str, part):
        if key not in parameters and key not in BUILDING:
            given, takes = f"{path}.{key}={spelled(part[key])}", ", ".join(parameters)
            if f"{path}.{key}" not in knobs():
                close = nearest(key, parameters)
                hint = f"did you mean {path}.{close[0]}? " if close else ""
                raise ValueError(f"{given} is no argument of {part._target_}: {hint}it takes {takes}")
            others = knobs().get(f"{path}._target_", {}).items()
            own = next((option for option, target in others if target == part._target_), None)
            group = path.partition(".")[0]
            raise ValueError(
                f"{path}._target_={part._target_} takes no {key}, and the option chosen has {given}: use "
                f"{own or f'a file of its own, conf/{group}/<name>.yaml'}; it takes {takes}"
            )


def check_arguments(path: str, part: DictConfig, build: Any) -> None:
    """Check the values of the keys that are arguments of `build`; other keys are not checked."""
    try:
        kinds = get_type_hints(build.__init__ if inspect.isclass(build) else build)
    except (NameError, TypeError):  # a library with annotations that cannot be evaluated
        return
    for key in map(str, part):
        node: Any = part._get_node(key)
        if key not in kinds or key in BUILDING or OmegaConf.is_missing(part, key):
            continue
        if OmegaConf.is_dict(node) and not node._is_none() and "_target_" in node:
            continue
        raw = node._value() if isinstance(node._value(), str) else ""
        followed = INTERPOLATION.fullmatch(raw)
        if followed and "." in followed[1]:
            place, _, last = followed[1].rpartition(".")
            raw = str(OmegaConf.select(part._get_root(), place)._get_node(last)._value())
        value = OmegaConf.to_container(part[key]) if OmegaConf.is_config(part[key]) else part[key]
        check_kind(followed[1] if followed else f"{path}.{key}", value, kinds[key], raw)


def check_kind(name: str, value: object, kind: Any, raw: str = "") -> None:
    """Raise ValueError unless a value has the type of its annotation, and is finite.

    raw: text of the value in the configuration before interpolation.
    """
    if has_type(value, kind):
        return
    *others, last = dict.fromkeys(type_words(kind))
    must = f"{', '.join(others)} or {last}" if others else last
    shown, cure = spelled(value), example(name, lambda default: has_type(default, kind))
    if "oc.env" in raw and isinstance(value, str):
        shown, cure = raw, f", and the environment holds text: write '{name}=\"${{oc.decode:{raw}}}\"', quotes included"
    elif isinstance(value, int | float) and "text" in must and not cure:
        cure = f""": write '{name}="{shown}"', quotes included"""
    raise ValueError(f"{name}={shown} must be {must}{cure}")


def has_type(value: Any, kind: Any) -> bool:
    """True if a value has a type; also for types that are not checked, since no value of a configuration has them."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        known = [each for each in inner if each is type(None) or list(type_words(each))]
        return any(has_type(value, each) for each in known) if known else True
    if origin is Literal:
        return any(value == each and type(value) is type(each) for each in inner)
    if kind is type(None):
        return value is None
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if kind in (bool, str):
        return isinstance(value, kind)
    if origin in (Sequence, list, tuple) or (inspect.isclass(origin) and issubclass(origin, Sequence)):
        element = [each for each in inner if each is not ...]
        if origin is tuple and len(element) == len(inner) and isinstance(value, list):
            return len(value) == len(inner) and all(map(has_type, value, inner))
        return isinstance(value, list) and all(has_type(one, element[0]) for one in value)
    if origin in (Mapping, dict, Callable):  # Hydra builds a callable from a mapping with `_target_`
        return isinstance(value, dict)
    return True


def type_words(kind: Any) -> list[str]:
    """Describe the values of a type in words, one text for each alternative; empty for a type that is not checked."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return [word for each in inner for word in type_words(each)]
    if origin is Literal:
        return [str(each) for each in inner]
    if kind is type(None):
        return ["null"]
    if inspect.isclass(origin) and issubclass(origin, Sequence):
        elements = [each for each in inner if each is not ...]
        plural = {"a number": "numbers", "a whole number": "whole numbers", "text": "words"}
        of = plural.get(type_words(elements[0])[0]) if elements and type_words(elements[0]) else None
        number = f"{len(inner)} " if origin is tuple and len(elements) == len(inner) else ""
        return [f"a list of {number}{of}" if of else "a list"]
    if inspect.isclass(origin) and issubclass(origin, Mapping | Callable):
        return ["a mapping"]
    return [TYPE_WORDS[kind]] if kind in TYPE_WORDS else []


def spelled(value: object) -> str:
    """Spell a value as on the command line."""
    if OmegaConf.is_config(value):
        value = OmegaConf.to_container(value)  # type: ignore[arg-type]
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value).replace(" ", "") if isinstance(value, list | dict) else str(value)
