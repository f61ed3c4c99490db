"""Let agents of W&B, on any number of machines, make the runs of `python train.py -m ...`.

python scripts/wandb_sweep.py embed=conv,linear patch=8,16 'seed=range(5)' > sweep.yaml
wandb sweep sweep.yaml
python scripts/wandb_sweep.py method=bayes --create embed=conv,linear 'optim.lr=tag(log,interval(1e-4,1e-2))'

method    grid, random or bayes
metric    of the last row; the search maximises it
project   of W&B; by default WANDB_PROJECT, or else patchbench
--create  create the sweep on W&B, which needs a login; else this prints the sweep as YAML
"""

import sys
from typing import Any

from patchbench.config.arguments import errors_in_one_line, read

KNOWN = {"method": "grid", "metric": "val/acc_best", "project": None}
MULTIRUN = ("-m", "--multirun")  # ignored, so that the arguments of train.py can be copied


def main(arguments: list[str]) -> None:
    arguments = [argument for argument in arguments if argument not in MULTIRUN]
    with errors_in_one_line():
        given = read(__doc__, arguments, KNOWN, flags=["create"], others=True)
    from patchbench.config.errors import one_line_errors

    one_line_errors(make)(given.others, given.options, "create" in given.flags)


def make(arguments: list[str], options: dict[str, Any], create: bool) -> None:
    """Print the sweep, or create it."""
    import yaml

    from patchbench.config.errors import Refused
    from patchbench.sweep.wandb_sweep import wandb_sweep
    from patchbench.track.wandb_check import project_name

    try:
        project = project_name(options["project"], "project")
    except ValueError as error:
        raise Refused(str(error)) from error
    sweep = wandb_sweep(arguments, method=options["method"], metric=options["metric"], project=project)
    if not create:
        yaml.safe_dump(sweep, sys.stdout, sort_keys=False)
        return
    import wandb

    try:
        path = f"{project}/{wandb.sweep(sweep)}"
    except wandb.errors.Error as error:
        raise Refused(f"--create: W&B has not accepted the sweep ({error}): `wandb login` first") from error
    print(f"on every machine that takes part, in this folder: wandb agent {path}")


if __name__ == "__main__":
    main(sys.argv[1:])
