"""Let agents of W&B, on as many machines as you like, run what `python train.py -m ...` would.

python scripts/wandb_sweep.py embed=conv,linear patch=8,16 'seed=range(5)' > sweep.yaml
wandb sweep sweep.yaml
python scripts/wandb_sweep.py --method bayes --create embed=conv,linear 'optim.lr=tag(log,interval(1e-4,1e-2))'
"""

import argparse
import sys

from patchbench.config.errors import Refused, one_line_errors


@one_line_errors
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("arguments", nargs="+", metavar="group=option,option", help="as for train.py -m")
    parser.add_argument("-m", "--multirun", action="store_true", help="accepted, so that a line of train.py fits")
    parser.add_argument("--method", default="grid", help="grid, random or bayes (default: grid)")
    parser.add_argument("--metric", default="val/acc_best", help="what is to grow (default: val/acc_best)")
    parser.add_argument("--project", default="patchbench", help="W&B's project (default: patchbench)")
    parser.add_argument("--create", action="store_true", help="create it on W&B, which needs a login")
    given = parser.parse_intermixed_args()

    import yaml

    from patchbench.sweep.wandb_sweep import wandb_sweep

    sweep = wandb_sweep(given.arguments, method=given.method, metric=given.metric, project=given.project)
    if not given.create:
        yaml.safe_dump(sweep, sys.stdout, sort_keys=False)
        return
    import wandb

    try:
        path = f"{given.project}/{wandb.sweep(sweep)}"
    except wandb.errors.Error as error:
        raise Refused(f"--create: W&B has not taken the sweep ({error}): `wandb login` first") from error
    print(f"on every machine that shall take part, in this folder: wandb agent {path}")


if __name__ == "__main__":
    main()
