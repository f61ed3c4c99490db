"""Options that are given on a command line and that nobody reads."""

from collections.abc import Sequence

from patchbench.config.errors import Refused

SHOWN = ("-c", "--cfg", "-h", "--help", "--hydra-help", "-i", "--info", "-sc", "--shell-completion")
OF_A_SWEEP = ("hydra/launcher", "hydra.launcher.", "hydra/sweeper", "hydra.sweeper.", "hydra.sweep.")


def refuse_options_of_the_other_mode(arguments: Sequence[str]) -> None:
    """Refuse options of a sweep without -m, and the folder of a single run with it: Hydra would not read them."""
    flags = {argument for argument in arguments if argument.startswith("-")}
    if flags & set(SHOWN):
        return
    in_sweep = bool(flags & {"-m", "--multirun"}) or "hydra.mode=MULTIRUN" in arguments
    for argument in arguments:
        key, _, value = argument.lstrip("+").partition("=")
        if in_sweep and key == "hydra.run.dir":
            raise Refused(
                f"{argument} is the folder of a single run, which a sweep does not read: use hydra.sweep.dir={value} "
                "for the folder of all runs, or leave it out"
            )
        if not in_sweep and key.startswith(OF_A_SWEEP):
            raise Refused(
                f"{argument} is an option of sweeps, which a single run does not read: add -m, or leave it out"
            )
