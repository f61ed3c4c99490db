"""Checks of values from the command line; the error messages name the option."""

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches

from patchbench.redact import without_secrets

Size = tuple[int, int]


def size(name: str, value: object) -> Size:
    """Convert S or [h, w] to (h, w). ValueError names the option unless both are positive whole numbers."""
    pair = (value, value) if isinstance(value, int) else tuple(value) if isinstance(value, Sequence) else ()
    if len(pair) != 2 or not all(isinstance(n, int) and n > 0 for n in pair) or isinstance(value, bool):
        shown = str(value).replace(" ", "")
        raise ValueError(f"{name}={shown} is no size in pixels: give a whole number or [height,width], as in {name}=16")
    return pair[0], pair[1]


def cover(img_size: int | Sequence[int], patch_size: int | Sequence[int], pad: bool) -> tuple[Size, Size]:
    """Return the grid of patches that cover an image edge to edge, and the zeros to add.

    Returns grid_size, and the numbers of rows and columns of zeros at the bottom and at the right.
    ValueError if the patches do not cover the image exactly and `pad` is false: pixels are never cropped silently.
    """
    image, patch = size("data.img_size", img_size), size("patch", patch_size)
    missing = (-image[0] % patch[0], -image[1] % patch[1])
    if any(missing) and not pad:
        larger = (image[0] + missing[0], image[1] + missing[1])
        smaller = (image[0] // patch[0] * patch[0], image[1] // patch[1] * patch[1])
        fitting = " or ".join(f"data.img_size={spell(s)}" for s in (smaller, larger) if min(s) > 0)
        patches = [p for p in range(1, min(image) + 1) if image[0] % p == 0 and image[1] % p == 0]
        raise ValueError(
            f"patch={spell(patch)} does not cover data.img_size={spell(image)} exactly: use {fitting}, "
            f"or patch={'|'.join(map(str, patches))}, or pad with embed.pad=true"
        )
    return ((image[0] + missing[0]) // patch[0], (image[1] + missing[1]) // patch[1]), missing


@contextmanager
def qualified(path: str, knobs: Iterable[str]) -> Iterator[None]:
    """Complete the names of knobs in error messages: `std=0` becomes `pos.learned.tokens.std=0`.

    A part does not know its place on the command line. The code that builds the part knows the place, and builds the
    part inside this block.
    path: path of the place, for example `pos.learned.tokens`. knobs: names of the arguments of the part.
    """
    try:
        yield
    except (ValueError, OSError) as error:
        names = "|".join(re.escape(name) for name in knobs)
        if not names or len(error.args) != 1 or not isinstance(error.args[0], str):
            raise
        # A name is completed only before `=`, and not if it already has a path.
        raise type(error)(re.sub(rf"(?<![\w.])({names})(?==)", rf"{path}.\1", error.args[0])) from error


def one_of(name: str, value: object, choices: Sequence[str]) -> None:
    """ValueError names the option unless its value is among the choices."""
    if value not in choices:
        raise ValueError(f"{name}={value} is unknown: use {' or '.join(choices)}")


def positive(name: str, value: object, *, otherwise: str = "") -> None:
    """ValueError names the option unless its value is a number above 0. otherwise: another allowed value, in words."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        raise ValueError(f"{name}={value} must be a number above 0{f', or {otherwise}' if otherwise else ''}")


def at_least(least: int, **values: int) -> None:
    """ValueError names the first of the options whose value is below `least`."""
    for name, value in values.items():
        if value < least:
            raise ValueError(f"{name}={value} must be at least {least}")


def spell(pair: Size) -> str:
    """Spell a size as on the command line: 16, or [8,16] if height and width differ."""
    return str(pair[0]) if pair[0] == pair[1] else f"[{pair[0]},{pair[1]}]"


def share(option: str, value: float | int) -> float | int:
    """Return a value between 0 and 1. ValueError names the option for any other value."""
    if not 0 <= value <= 1:
        raise ValueError(f"{option}={value} must be between 0 and 1")
    return value


def interval(option: str, ends: Sequence[float], *, most: float = float("inf")) -> tuple[float, float]:
    """Return two numbers with 0 < low <= high <= most. ValueError names the option for any other value."""
    low, high = ends if len(ends) == 2 else (0, 0)
    if not 0 < low <= high <= most:
        top = "" if most == float("inf") else f" and none above {most:g}"
        raise ValueError(f"{option}={list(ends)} must be two numbers above 0{top}, the smaller first")
    return low, high


def reason(error: Exception, given: Sequence[str] = ()) -> str:
    """Return the message of an error, without passwords and tokens, since errors are printed and logged.

    An error of the operating system also names the file, as the argument `name=<file>` if `given` contains it.
    given: arguments of the command line.
    """
    if not isinstance(error, OSError) or not error.strerror or error.filename is None:
        return without_secrets(str(error))
    path = str(error.filename)
    given_as = next((a for a in given if a.partition("=")[2] == path), path)
    return without_secrets(f"{given_as}: {error.strerror.lower()}")


def nearest(name: str, known: Iterable[str], most: int = 1) -> list[str]:
    """Return the known names that resemble a misspelt name, the most similar first; empty if there is none."""
    return get_close_matches(name, list(known), most)
