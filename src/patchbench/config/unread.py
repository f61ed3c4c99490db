"""Options that are given on a command line and that nobody reads."""

import os
from collections.abc import Mapping, Sequence

from omegaconf import DictConfig, OmegaConf

from patchbench.config.errors import Refused
from patchbench.config.identity import READERS, defaults, leaves, plain, reads
from patchbench.config.names import SWEEP

READ_ANYWAY = ("seed",)  # by the trainer, also where no knob follows it
READ_ELSEWHERE = ("patch",)  # by evaluation, as its eval.patch


def unread(cfg: DictConfig, choices: Mapping[str, str], given: Sequence[str]) -> dict[str, str]:
    """Arguments that this run does not read, each with what stands in the way, as in `model=cnn`.

    cfg: as it was composed, with its interpolations. choices: the option taken in each group. given: the arguments.
    """
    found: dict[str, str] = {}
    own = defaults(cfg, choices)
    raw = dict(leaves(OmegaConf.to_container(cfg, resolve=False), ""))
    last = {argument.lstrip("+").partition("=")[0]: argument for argument in given}  # of several values the last counts
    for key, argument in last.items():
        name = key.partition(".")[0]
        if argument == "pos=none" or key in READ_ANYWAY:
            continue
        if name in READERS and not reads(cfg, name):
            readers = [group for group in READERS[name] if group not in READERS or reads(cfg, group)]
            found[argument] = f"{readers[-1]}={choices[readers[-1]]}"
            key = name
        # A knob that others pass on, as optim.optimizer.lr does optim.lr, is not read where they have their own values.
        passing = [path for path, value in own.items() if value == f"${{{key}}}"]
        replaced = [path for path in passing if raw.get(f".{path}") != own[path]]
        if passing and replaced == passing:
            found[argument] = f"{replaced[0]}={plain(OmegaConf.select(cfg, replaced[0]))}"
    return found


def remarks_on_unread(
    cfg: DictConfig, choices: Mapping[str, str], given: Sequence[str], *, in_sweep: bool
) -> list[str]:
    """Remark on arguments that this run does not read; outside of sweeps, refuse those that nothing else reads."""
    found = unread(cfg, choices, given)
    if not (in_sweep or SWEEP in os.environ or "WANDB_SWEEP_ID" in os.environ):
        for argument, reason in found.items():
            if argument.partition("=")[0] not in READ_ELSEWHERE:
                raise Refused(f"{argument} is not read, because of {reason}: leave out one of the two")
    return [f"{argument} is not read, because of {reason}" for argument, reason in found.items()]


def remarks_on_sweep(unread_by: Sequence[Mapping[str, str]], given: Sequence[str], *, grid: bool) -> list[str]:
    """Remark on options that some cells of a sweep do not read; refuse those that no cell of a grid reads.

    unread_by: what `unread` found in each cell. given: the arguments of the sweep. grid: all cells are known.
    """
    by_key: dict[str, list[str]] = {}
    for found in unread_by:
        for argument, reason in found.items():
            by_key.setdefault(argument.partition("=")[0], []).append(reason)
    on_the_line = {argument.partition("=")[0]: argument for argument in given}
    remarks = []
    for key, reasons in by_key.items():
        why = " or ".join(dict.fromkeys(reasons))
        if grid and len(reasons) == len(unread_by) and key in on_the_line and key not in READ_ELSEWHERE:
            raise Refused(
                f"{on_the_line[key]} is read by no cell of this sweep, because of {why}: leave out one of the two"
            )
        remarks.append(f"{len(reasons)} of {len(unread_by)} cells do not read {key}, because of {why}")
    return remarks
