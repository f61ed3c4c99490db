"""Options on the command line that the run does not read."""

import os
from collections.abc import Mapping, Sequence

from omegaconf import DictConfig, OmegaConf

from patchbench.config.errors import Refused
from patchbench.config.identity import READERS, defaults, leaves, reads, to_plain
from patchbench.config.names import SWEEP
from patchbench.words import count

ALWAYS_READ = ("seed",)  # by the trainer, also if no knob refers to it
READ_ELSEWHERE = ("patch",)  # by the evaluation, as eval.patch


def unread(cfg: DictConfig, choices: Mapping[str, str], given: Sequence[str]) -> dict[str, str]:
    """Return the arguments that this run does not read, each with the option that is the reason, such as `model=cnn`.

    cfg: composed configuration, with its interpolations. choices: the option chosen in each group. given: arguments of
    the command line.
    """
    reasons: dict[str, str] = {}
    own = defaults(cfg, choices)
    raw = dict(leaves(OmegaConf.to_container(cfg, resolve=False), ""))
    last = {argument.lstrip("+").partition("=")[0]: argument for argument in given}  # the last value of a key counts
    for key, argument in last.items():
        name = key.partition(".")[0]
        if argument == "pos=none" or key in ALWAYS_READ:
            continue
        if name in READERS and not reads(cfg, name):
            readers = [group for group in READERS[name] if group not in READERS or reads(cfg, group)]
            reasons[argument] = f"{readers[-1]}={choices[readers[-1]]}"
            key = name
        # A knob to which others refer, as optim.optimizer.lr to optim.lr, is not read if they all have other values.
        passing = [path for path, value in own.items() if value == f"${{{key}}}"]
        replaced = [path for path in passing if raw.get(f".{path}") != own[path]]
        if passing and replaced == passing:
            reasons[argument] = f"{replaced[0]}={to_plain(OmegaConf.select(cfg, replaced[0]))}"
    return reasons


def remarks_on_unread(
    cfg: DictConfig, choices: Mapping[str, str], given: Sequence[str], *, in_sweep: bool
) -> list[str]:
    """Return a remark for each argument that this run does not read.

    Outside of sweeps, raise Refused for an argument that the evaluation does not read either.
    """
    reasons = unread(cfg, choices, given)
    if not (in_sweep or SWEEP in os.environ or "WANDB_SWEEP_ID" in os.environ):
        for argument, reason in reasons.items():
            if argument.partition("=")[0] not in READ_ELSEWHERE:
                raise Refused(f"{argument} is not read, because of {reason}: leave out one of the two")
    return [f"{argument} is not read, because of {reason}" for argument, reason in reasons.items()]


def remarks_on_sweep(unread_by: Sequence[Mapping[str, str]], given: Sequence[str], *, grid: bool) -> list[str]:
    """Return remarks on options that some cells of a sweep do not read. Refused for one that no cell of a grid reads.

    unread_by: the result of `unread` for each cell. given: arguments of the sweep. grid: true if all cells are known.
    """
    by_key: dict[str, list[str]] = {}
    for reasons_of_cell in unread_by:
        for argument, reason in reasons_of_cell.items():
            by_key.setdefault(argument.partition("=")[0], []).append(reason)
    on_the_line = {argument.partition("=")[0]: argument for argument in given}
    remarks = []
    for key, reasons in by_key.items():
        why = " or ".join(dict.fromkeys(reasons))
        if grid and len(reasons) == len(unread_by) and key in on_the_line and key not in READ_ELSEWHERE:
            by_none = "is read by no cell of this sweep" if len(unread_by) > 1 else "is not read"
            raise Refused(f"{on_the_line[key]} {by_none}, because of {why}: leave out one of the two")
        who = f"{len(reasons)} of {count(len(unread_by), 'cell')} {'does' if len(reasons) == 1 else 'do'}"
        remarks.append(f"{who} not read {key}, because of {why}")
    return remarks
