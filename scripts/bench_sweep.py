"""What it costs to start a cell of a sweep, in CPU seconds above its training; and what a process of its own costs.

python scripts/bench_sweep.py model=tiny      any options of train.py; a cell trains a single step
"""

import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from hydra import compose, initialize_config_dir

from patchbench.command import register
from patchbench.errors import CONF
from patchbench.run import train

ONE_STEP = ["epochs=1", "limit_batches=1", "batch_size=2", "trainer=cpu", "logger=csv"]
CELLS = 4


def command_s(*arguments: str) -> float:
    """CPU seconds of `python train.py arguments` with all that it starts."""

    def used() -> float:
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        return children.ru_utime + children.ru_stime

    before = used()
    subprocess.run([sys.executable, CONF.parent / "train.py", *arguments], check=True, capture_output=True)
    return used() - before


def training_s(folder: Path, overrides: list[str]) -> float:
    """CPU seconds of the run itself, in this process, when it is done for the second time."""
    register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        for i in range(2):
            cfg = compose("train", overrides=overrides)
            before = time.process_time()
            train(cfg, {}, folder / str(i))
    return time.process_time() - before


def main(*overrides: str) -> None:
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    options = [*ONE_STEP, *overrides]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        own = command_s(*options, f"runs_dir={folder}/own")
        one = command_s("-m", *options, f"runs_dir={folder}/one", "seed=range(1)")
        more = command_s("-m", *options, f"runs_dir={folder}/more", f"seed=range({1 + CELLS})")
        alone = training_s(folder, options)
    print(
        f"\nCPU seconds of a cell above the {alone:.2f} of its run (one step, validation, test, checkpoints, record):"
    )
    print(f"  as a command of its own  {own - alone:.2f}")
    print(f"  in a sweep               {(more - one) / CELLS - alone:.2f}, and {one - own:.2f} once for the sweep")


if __name__ == "__main__":
    main(*sys.argv[1:])
