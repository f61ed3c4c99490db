"""Checks of values that come from the command line; messages name the option."""

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches

from patchbench.redact import without_secrets

Size = tuple[int, int]


def size(name: str, value: object) -> Size:
    """S or [h, w] as (h, w); ValueError names the option unless both are whole and positive."""
    pair = (value, value) if isinstance(value, int) else tuple(value) if isinstance(value, Sequence) else ()
    if len(pair) != 2 or not all(isinstance(n, int) and n > 0 for n in pair) or isinstance(value, bool):
        written = str(value).replace(" ", "")
        raise ValueError(
            f"{name}={written} is no size in pixels: give a whole number or [height,width], as in {name}=16"
        )
    return pair[0], pair[1]


@contextmanager
def qualified(path: str, knobs: Iterable[str]) -> Iterator[None]:
    """Complete the names of knobs in refusals: a part says `std=0`, the command line `pos.learned.tokens.std=0`.

    A part does not know its place on the command line; whoever fills the place does, and builds the part in this block.
    path: of the place, as in `pos.learned.tokens`. knobs: names of the arguments that the part takes from there.
    """
    try:
        yield
    except (ValueError, OSError) as error:
        names = "|".join(re.escape(name) for name in knobs)
        if not names or len(error.args) != 1 or not isinstance(error.args[0], str):
            raise
        # A name counts where a value follows; one that has a path already is another's.
        raise type(error)(re.sub(rf"(?<![\w.])({names})(?==)", rf"{path}.\1", error.args[0])) from error


def one_of(name: str, value: object, choices: Sequence[str]) -> None:
    """ValueError names the option unless its value is among the choices."""
    if value not in choices:
        raise ValueError(f"{name}={value} is unknown: use {' or '.join(choices)}")


def positive(name: str, value: object, *, otherwise: str = "") -> None:
    """ValueError names the option unless its value is a number above 0. otherwise: what else it may be, in words."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        raise ValueError(f"{name}={value} must be a number above 0{f', or {otherwise}' if otherwise else ''}")


def at_least(least: int, **values: int) -> None:
    """ValueError names the first of some whole numbers that is too small."""
    for name, value in values.items():
        if value < least:
            raise ValueError(f"{name}={value} must be at least {least}")


def spell(pair: Size) -> str:
    """A size as the command line takes it: 16, or [8,16] where height and width differ."""
    return str(pair[0]) if pair[0] == pair[1] else f"[{pair[0]},{pair[1]}]"


def share(option: str, value: float | int) -> float | int:
    if not 0 <= value <= 1:
        raise ValueError(f"{option}={value} must be between 0 and 1")
    return value


def interval(option: str, ends: Sequence[float], *, most: float = float("inf")) -> tuple[float, float]:
    low, high = ends if len(ends) == 2 else (0, 0)
    if not 0 < low <= high <= most:
        top = "" if most == float("inf") else f" and none above {most:g}"
        raise ValueError(f"{option}={list(ends)} must be two numbers above 0{top}, the smaller first")
    return low, high


def reason(error: Exception, given: Sequence[str] = ()) -> str:
    """The words of an error; those of the system name the file, and the argument of `given` that gave it.

    Passwords and tokens, as of a URL of data, are left out: errors are printed and stand in logs.
    """
    if not isinstance(error, OSError) or not error.strerror or error.filename is None:
        return without_secrets(str(error))
    path = str(error.filename)
    given_as = next((a for a in given if a.partition("=")[2] == path), path)
    return without_secrets(f"{given_as}: {error.strerror.lower()}")


def nearest(name: str, known: Iterable[str], most: int = 1) -> list[str]:
    """Return the known names that resemble a misspelt one, the nearest first; empty if none does."""
    return get_close_matches(name, list(known), most)
