"""The record of a finished run, run.json: written once, as a whole or not at all."""

import json
import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

import torch
from pytorch_lightning.utilities import rank_zero_only

from patchbench.machine import whole_file

PACKAGES = ("torch", "timm", "pytorch-lightning", "hydra-core", "torchmetrics", "wandb")


@rank_zero_only
def write_record(path: Path, record: dict) -> None:
    """Write the record as JSON, on the first rank only."""
    with whole_file(path) as file:
        json.dump(record, file, indent=2)


def environment() -> dict:
    """Collect versions, commit and machine."""
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "versions": {"python": platform.python_version()} | {name: version(name) for name in PACKAGES},
        "commit": commit(),
        "machine": {"cpu": cpu_name(), "cores": os.cpu_count(), "gpus": gpus, "system": platform.platform()},
    }


def commit() -> str | None:
    """Commit of the checkout of this package, `-dirty` if its files were changed; None outside a checkout."""

    def git(*arguments: str) -> str:
        folder = Path(__file__).parent
        return subprocess.run(
            ["git", *arguments], cwd=folder, capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("-dirty" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
