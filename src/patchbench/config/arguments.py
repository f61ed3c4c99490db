"""The command line of scripts that are not Hydra commands: names, key=value, --flag.

This module imports little, so that --help and errors are quick.
"""

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from patchbench.checks import nearest, reason
from patchbench.machine import exit_on_broken_pipe

EXTRAS = {"itables": "dashboard", "plotly": "dashboard", "wandb_workspaces": "workspace"}  # packages of pyproject.toml

MISTYPED = 0.9  # least similarity of a word to a key for which it is taken; `model` and `mode` are less similar

Default = str | int | bool | Path | None  # values have the type of their default; None: optional text


@dataclass(frozen=True)
class Arguments:
    """The parts of a command line."""

    names: list[str]  # arguments without `=` and without dashes
    options: dict[str, Any]  # the known keys, each with its value or its default
    others: list[str]  # all other arguments, as typed
    flags: set[str]  # without their dashes
    typed: list[str]  # key=value of the known keys on the command line

    def refuse_unless(self, known: Iterable[str], *, others: bool = False) -> None:
        """Raise ValueError for an argument whose key is not in `known`, a subset of the known keys.

        others: true allows every argument without a known key.
        """
        for argument in (*self.typed, *([] if others else self.others)):
            if argument.partition("=")[0] not in known:
                refuse(argument, known)


def read(
    doc: str | None,
    arguments: Sequence[str],
    known: Mapping[str, Default],
    *,
    most_names: int = 0,
    flags: Iterable[str] = (),
    others: bool = False,
) -> Arguments:
    """Read a command line. With -h or --help, print `doc` and exit.

    doc: docstring of the script. known: keys and their defaults. others: true allows every other argument. ValueError
    names the argument that cannot be read, and the cure.
    """
    if {"-h", "--help"} & set(arguments):
        print(help_text(doc, known, flags))
        raise SystemExit(0)
    names: list[str] = []
    rest: list[str] = []
    typed: list[str] = []
    options, given_flags = dict(known), set()
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if argument.startswith("-"):
            given_flags.add(flag(argument, known, flags))
        elif equals and key in known:
            options[key] = converted(key, value, known[key])
            typed.append(argument)
        elif len(names) < most_names and not set("=<>") & set(argument):
            names.append(argument)
        elif others:
            if equals and (close := get_close_matches(key, known, 1, MISTYPED)):
                raise ValueError(f"{argument} is no option: did you mean {close[0]}=?")
            rest.append(argument)
        else:
            refuse(argument, known)
    return Arguments(names, options, rest, given_flags, typed)


def refuse(argument: str, known: Iterable[str]) -> None:
    """Raise ValueError for an argument whose key is unknown, with the most similar key."""
    keys = [f"{key}=" for key in known]
    close = nearest(f"{argument.partition('=')[0]}=", keys)
    hint = f"did you mean {close[0]}? " if close else ""
    raise ValueError(f"{argument} is no option: {hint}options are {' '.join(keys) or 'none'}")


def flag(argument: str, known: Iterable[str], flags: Iterable[str]) -> str:
    """Return the name of a flag. ValueError if there is no such flag."""
    name = argument.lstrip("-")
    if argument == f"--{name}" and name in flags:
        return name
    key = name.partition("=")[0]
    if key in known:
        raise ValueError(f"{argument} is no option: write it without dashes, {key}=<value>")
    close = nearest(name, flags)
    hint = f"did you mean --{close[0]}? " if close else ""
    raise ValueError(f"{argument} is no option: {hint}--help shows what there is")


def converted(key: str, value: str, default: Default) -> Default:
    """Convert a value to the type of its default. ValueError names the key if that is not possible."""
    if not value:
        raise ValueError(f"{key}= needs a value, {key}=<value>")
    if isinstance(default, bool):
        if value not in ("true", "false"):
            raise ValueError(f"{key}={value} must be true or false")
        return value == "true"
    if isinstance(default, int):
        if not value.isdecimal():
            raise ValueError(f"{key}={value} must be a whole number, as in {key}={default}")
        return int(value)
    return Path(value) if isinstance(default, Path) else value


def help_text(doc: str | None, known: Mapping[str, Default], flags: Iterable[str]) -> str:
    """Return the docstring of a script, and its options with their defaults."""
    options = [f"{key}={'' if default is None else spelled(default)}" for key, default in known.items()]
    options += [f"--{name}" for name in flags]
    return f"{(doc or '').strip()}\n\noptions and defaults: {' '.join(options)}" if options else (doc or "").strip()


def spelled(default: Default) -> str:
    return str(default).lower() if isinstance(default, bool) else str(default)


@contextmanager
def errors_in_one_line() -> Iterator[None]:
    """Print a ValueError, an OSError or the lack of an extra as one line on stderr, and exit with code 2."""
    try:
        with exit_on_broken_pipe():
            yield
    except (ValueError, OSError) as error:
        print(f"error: {reason(error, sys.argv[1:])}", file=sys.stderr)
        raise SystemExit(2) from None
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in EXTRAS:
            raise
        cure = f"pip install -e '.[{EXTRAS[package]}]'"
        print(f"error: this command needs {package}, which is not installed: {cure}", file=sys.stderr)
        raise SystemExit(2) from None
