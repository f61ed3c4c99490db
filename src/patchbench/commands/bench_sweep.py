"""The CPU time of a cell of a sweep, minus the time of its training."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from patchbench.commands.train import train
from patchbench.config.compose import composed
from patchbench.config.names import register
from patchbench.config.options import CONF

ONE_STEP = ["epochs=1", "limit_batches=1", "batch_size=2", "trainer=cpu", "logger=csv"]
CELLS = 3
TIMED = f"""
import sys, time
sys.path.insert(0, {str(CONF.parent)!r})
import train
if __name__ == "__main__":
    train.main()
    if "-m" not in sys.argv:
        print("cpu_s", time.process_time())
"""


def command_s(folder: Path, *arguments: str) -> float:
    """Return the CPU seconds of a process that trains, from its start to its end; the least, if there are several."""
    folder.mkdir()
    script = folder / "timed.py"
    script.write_text(TIMED)
    command = [sys.executable, str(script), *arguments, f"runs_dir={folder}"]
    done = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True)
    if done.returncode:  # the process has printed its error to stderr
        raise SystemExit(done.returncode)
    output = done.stdout + "".join(log.read_text() for log in folder.glob("*/log.txt"))
    return min(float(line.split()[1]) for line in output.splitlines() if line.startswith("cpu_s "))


def training_s(folder: Path, overrides: list[str]) -> float:
    """Return the CPU seconds of a run in this process: of the second run, since the first one also warms up."""
    register()
    for i in range(2):
        cfg = composed(overrides)
        before = time.process_time()
        train(cfg, cfg.hydra.runtime.choices, folder / str(i))
    return time.process_time() - before


def bench(overrides: Sequence[str]) -> None:
    """Measure cells of one step, as commands and in a sweep, and print the difference to training alone.

    overrides: options of train.py.
    """
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    options = [*ONE_STEP, *overrides]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        own = min(command_s(folder / f"own{i}", *options) for i in range(CELLS))
        fork = command_s(folder / "sweep", "-m", *options, f"seed=range({CELLS})")
        alone = training_s(folder, options)
    print(f"\nCPU seconds of a cell beyond the {alone:.2f} of its run (one step, evaluation, checkpoints, record):")
    print(f"  as a command of its own  {own - alone:.2f}")
    print(f"  in a sweep               {fork - alone:.2f}")
