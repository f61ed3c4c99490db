"""The command line before Hydra parses it: flags in any position, and mistakes that Hydra accepts or explains badly."""

import re
import shutil
from collections.abc import Iterable, Sequence

from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep
from hydra.errors import OverrideParseException

from patchbench.checks import nearest
from patchbench.config.errors import Refused
from patchbench.config.knobs import groups
from patchbench.config.mistakes import did_you_mean, keys_of, unknown_key, unknown_option
from patchbench.config.options import CONF

# Paths of arguments of classes of other libraries, which may have more arguments than the YAML files list.
ADDED = re.compile(r"(optim\.(optimizer|schedule)|(model|data)\.options)\.\w+")
CHECKPOINT_COMMANDS = ("evaluate", "analyze", "export")
SWEEP_OPTIONS = ("hydra/launcher", "hydra.launcher.", "hydra/sweeper", "hydra.sweeper.", "hydra.sweep.")
# Flags with which Hydra prints something and runs nothing.
PRINTING = {"--cfg", "-c", "--help", "-h", "--hydra-help", "--info", "-i", "--shell-completion", "-sc", "--version"}


def flags_last(arguments: Sequence[str], command: str) -> list[str]:
    """Return the arguments with the overrides first and the flags last: Hydra ignores overrides after a flag.

    `--dry-run` is replaced by the option of the launcher. Refused for an argument that is neither flag nor override.
    """
    flags: list[str] = []
    overrides: list[str] = []
    known = get_args_parser()._option_string_actions
    dry_run, rest = "--dry-run" in arguments, iter([a for a in arguments if a != "--dry-run"])
    for argument in rest:
        name, equals, value = argument.partition("=")
        if not argument.startswith("-"):
            overrides.append(argument)
            continue
        if name not in known or (known[name].nargs == 0 and equals):
            following = next(rest, "")
            value_after = "" if following.startswith("-") or "=" in following else following
            raise Refused(flag_refused(argument, value_after, overrides, command))
        flags.append(argument)
        action = known[name]
        if action.nargs == 0 or (action.nargs == "?" and not equals):
            continue
        if not equals:
            value = next(rest, "")
            flags.append(value)
        if not value or (not equals and "=" in value):
            raise Refused(f"{name} needs a value, {name}={'|'.join(action.choices or ['<value>'])}")
        if action.choices and value not in action.choices:
            raise Refused(f"{name} {value} is unknown: use {name} {' or '.join(action.choices)}")
    refuse_bare_words(overrides, command)
    prints = dry_run or bool(PRINTING & {flag.partition("=")[0] for flag in flags})
    refuse_incomplete_options(overrides, submits=not prints)
    if dry_run:
        if any(override.startswith("hydra/launcher=slurm") for override in overrides):  # cells are counted here
            overrides = [o for o in overrides if not o.startswith(("hydra/launcher=", "hydra.launcher."))]
        flags = ["-m", *(flag for flag in flags if flag not in ("-m", "--multirun"))]
        overrides.append("hydra.launcher.dry_run=true")
    return [*overrides, *flags]


def flag_refused(argument: str, following: str, given: Sequence[str], command: str) -> str:
    """Explain how to write an option that was typed with dashes, such as `--lr 1e-3`."""
    key, equals, value = argument.lstrip("-").partition("=")
    key = key.replace("-", "_")
    typed = argument if equals or not following else f"{argument} {following}"
    if key in keys_of(key, given, command) or (CONF / key).is_dir():
        return f"{typed} is no option: write it without dashes, {key}={value or following or '<value>'}"
    long = [flag for flag in get_args_parser()._option_string_actions if flag.startswith("--")]
    close = nearest(f"--{key}".replace("_", "-"), [*long, "--dry-run"]) if argument.startswith("--") else []
    if close and not (following or equals):
        return f"{typed} is no option: did you mean {close[0]}?"
    meant = did_you_mean(key, given, command)
    return f"{typed} is no option, and options have no dashes, as in {example_of(command)}: {meant}"


def example_of(command: str) -> str:
    return {"train": "embed=conv", "explain": "embed=conv", "prepare": "data=imagefolder"}.get(command, "ckpt=<file>")


def refuse_bare_words(arguments: Sequence[str], command: str) -> None:
    """Refuse arguments without `=`, for example an option that contains a space, or `:` in place of `=`."""
    for place, word in enumerate(arguments):
        if "=" in word.lstrip("=") or word.startswith("~"):
            continue
        before = arguments[place - 1] if place else ""
        after = arguments[place + 1] if place + 1 < len(arguments) else ""
        if word == "=" or before.endswith(("=", ",", "[", "{", "(")) or before.count("[") > before.count("]"):
            parts = [before, word, after] if word == "=" else [before, word]
            raise Refused(f"{' '.join(parts)} contains a space: write {quoted(''.join(parts))}")
        if ":" in word:
            raise Refused(f"{word} is no option: write {word.replace(':', '=', 1)}")
        if after == "=":
            continue
        if after and "=" not in after:
            raise Refused(f"{word} {after} is no option: write {word}={after}")
        if (CONF / word).is_dir():
            raise Refused(f"{word} needs a value: {unknown_option(word, '').partition(': ')[2]}")
        if command in CHECKPOINT_COMMANDS:
            raise Refused(f"{word} is no option: write ckpt={word}")
        raise Refused(f"{word} is no option: options are written option=value, as in {example_of(command)}")


def quoted(override: str) -> str:
    """Quote an override that contains characters with a meaning for the shell."""
    return f"'{override}'" if set("[]{}()*?$ ") & set(override) else override


def refuse_incomplete_options(overrides: Sequence[str], *, submits: bool) -> None:
    """Refuse an option without a value, a group without an option, and SLURM on a machine without it.

    submits: true if this command line submits jobs.
    """
    for override in overrides:
        key, equals, value = override.partition("=")
        if equals and not value and key not in groups():
            raise Refused(f"{override} needs a value: write {key}=<value>, or leave it out")
        if key in groups() and re.fullmatch(r"|null|true|false|[-+.\d]+", value, re.IGNORECASE):
            raise Refused(unknown_option(key, value))
        if key == "hydra/launcher" and value.startswith("slurm") and submits and not shutil.which("srun"):
            raise Refused(
                f"{override}: there is no srun on this machine: start this where jobs are submitted, or leave it out"
            )
    refuse_lists_of_options(overrides)


def refuse_options_of_the_other_mode(arguments: Sequence[str]) -> None:
    """Refuse options of sweeps without -m, and the folder of a single run with -m: Hydra would ignore them.

    Also refused is -m beside a flag that prints the configuration of one run.
    """
    flags = {argument.partition("=")[0] for argument in arguments if argument.startswith("-")}
    if (multirun := flags & {"-m", "--multirun"}) and (printing := flags & {"--cfg", "-c", "--info", "-i"}):
        raise Refused(f"{min(printing)} prints the configuration of one run: leave out {min(multirun)}")
    if flags & PRINTING:
        return
    in_sweep = bool(flags & {"-m", "--multirun"}) or "hydra.mode=MULTIRUN" in arguments
    for argument in arguments:
        key, _, value = argument.lstrip("+").partition("=")
        if in_sweep and key == "hydra.run.dir":
            raise Refused(
                f"{argument} is the folder of a single run, which a sweep does not read: use hydra.sweep.dir={value} "
                "for the folder of all runs, or leave it out"
            )
        if not in_sweep and key.startswith(SWEEP_OPTIONS):
            raise Refused(
                f"{argument} is an option of sweeps, which a single run does not read: add -m, or leave it out"
            )


def refuse_added_options(overrides: Sequence[str], command: str = "train") -> None:
    """Refuse `+key=value` and `~key`, which Hydra accepts for any key: here all options exist already.

    Allowed are `++key=value` for an option that exists, and `+key=value` for arguments of classes of other libraries.
    """
    for override in overrides:
        key = override.lstrip("+~").partition("=")[0]
        if override.startswith("~"):
            off = "; logger=none turns it off" if key == "logger" else ""
            raise Refused(f"{override}: an option can be changed, {key}=<value>, but not removed{off}")
        if not override.startswith("+") or ADDED.fullmatch(key):
            continue
        if override.startswith("++") and (key in keys_of("", [], command) or key in keys_of(key, overrides, command)):
            continue
        raise Refused(unknown_key(key, overrides, command))


def refuse_lists_of_options(overrides: Iterable[str]) -> None:
    """Refuse a list of options, which Hydra would merge into one option; only `pos` takes several."""
    for override in overrides:
        group, _, options = override.partition("=")
        if group == "pos" or "[" not in options or not (CONF / group).is_dir():
            continue
        try:
            parsed = OverridesParser.create().parse_override(override)
        except OverrideParseException:  # Hydra refuses it later
            continue
        value = parsed.value()
        values = value.list if isinstance(value, ChoiceSweep) else [value]
        if lists := [each for each in values if isinstance(each, list)]:
            if len(lists[0]) == 1:
                raise Refused(f"{override} is a list, and {group} takes one option: write {group}={lists[0][0]}")
            names = ",".join(map(str, lists[0])) or "<option>"
            raise Refused(
                f"{override} names several options, and {group} takes one: to sweep, train.py -m {group}={names}"
            )
