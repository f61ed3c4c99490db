"""Functions for several tests: configurations, commands in processes of their own, records of runs."""

import functools
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import pytest
import pytorch_lightning as pl
import torch
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig
from warm_command import run_script

from patchbench.commands.build import build_augment, build_source, build_task
from patchbench.commands.train import train
from patchbench.config.compose import composed
from patchbench.config.names import register
from patchbench.config.options import CONF
from patchbench.config.plan import COMMON_OVERRIDES
from patchbench.data.batches import Batches
from patchbench.train.budget import Duration
from patchbench.train.checkpoint import read_checkpoint
from patchbench.train.signals import StopOnSignal
from patchbench.train.task import Classify

ROOT = CONF.parent
WARM = multiprocessing.get_context("forkserver")
WARM.set_forkserver_preload(["patchbench.sweep.warm"])
TIMEOUT = 300  # seconds of a command
MICRO = ["model=micro", "data.img_size=16", "patch=4", "batch_size=32", "limit_batches=4", "log_every=2", "trainer=cpu"]
NOISY = "model.drop_path=0.5"  # so that the network's own randomness shows
STUDY = {
    "question": "Do positions help, at 16 pixels and after eight steps?",
    "decides": ["learned_helps"],
    "doubts": "Eight steps teach nobody anything.",
    "overrides": [
        "model=micro",
        "data.img_size=16",
        "patch=4",
        "epochs=2",
        "batch_size=32",
        "limit_batches=4",
        "logger=csv",
    ],
    "scales": {"smoke": {"seeds": [0, 1], "overrides": ["epochs=1"]}, "cpu": {"seeds": "0-2"}},
    "factors": {"pos": ["none", "learned"]},
    "parts": {
        "digits": {
            "chance": 0.1,
            "statements": {
                "learned_helps": {
                    "says": "Learned positions help.",
                    "that": "learned - none",
                    "above": 0.0,
                    "predicted": "yes",
                },
                "none_learns": {
                    "says": "Without positions, digits cannot be read at all.",
                    "that": "none",
                    "below": -0.5,
                    "role": "aside",
                    "predicted": "yes",
                },
                "learned_doubles": {
                    "says": "Learned positions double the accuracy.",
                    "that": "learned - none",
                    "above": 0.5,
                    "withdrawn": "Nobody had asked.",
                },
            },
            "effects": {"pos": ["learned - none"]},
        }
    },
    "published": [{"source": "A paper", "figures": {"none": 61.4, "learned": 64.2}}],
    "changes": [{"date": "2026-11-26", "what": "The margin.", "why": "A slip.", "seen": False}],
}


def options(group: str) -> list[str]:
    """List all options of a group, so that a new option is tested as soon as its file exists."""
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def some(values: Iterable[Any], *fast: Any) -> list[Any]:
    """Return parameters of a test: all values, of which only those in `fast` are tested without `make test-all`."""
    values = list(values)
    assert fast
    assert all(value in values for value in fast), f"{fast} are not all among {values}"
    return [value if value in fast else slow(value) for value in values]


def every(values: Iterable[Any], n: int) -> list[Any]:
    """Return parameters of a test: all values, of which one of each n is tested without `make test-all`.

    It is the first of the first n, the second of the next n, and so on, so that all kinds of a product take turns.
    """
    return [value if i % n == i // n % n else slow(value) for i, value in enumerate(values)]


def slow(value: Any) -> Any:
    """Return a parameter of a test that only `make test-all` tests; a tuple holds one value for each argument."""
    if hasattr(value, "marks"):  # a pytest.param
        return pytest.param(*value.values, marks=[*value.marks, pytest.mark.slow], id=value.id)
    return pytest.param(*(value if isinstance(value, tuple) else [value]), marks=pytest.mark.slow)


def generated() -> list[str]:
    """List the generated data sets of conf/data."""
    return [name for name in options("data") if "scene:" in (CONF / "data" / f"{name}.yaml").read_text()]


def configure(*overrides: str, command: str = "train") -> DictConfig:
    """Compose the configuration of `python <command>.py <overrides>`, with the key `hydra`."""
    return composed_once(command, *overrides).copy()


@functools.cache
def composed_once(command: str, *overrides: str) -> DictConfig:
    """Compose a configuration once: Hydra needs 0.1 s, and many tests use the same configuration."""
    register()
    GlobalHydra.instance().clear()
    return composed(overrides, command)


class Started:
    """A script of this project in a process of its own, and a session of its own, as a user would start it."""

    def __init__(self, folder: Path, script: str, *arguments: str, **env: str) -> None:
        """Start the script in `folder`, without credentials."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("WANDB_", "HYDRA_"))}
        home = folder / "home"
        kept |= {"OMP_NUM_THREADS": "1", "HOME": str(home), "NETRC": str(home / "netrc"), **env}
        self.line, self.outputs = [script, *arguments], Path(tempfile.mkdtemp())
        self.files = [self.outputs / name for name in ("stdout", "stderr")]
        job = (str(ROOT / script), arguments, kept, str(folder), [str(file) for file in self.files])
        self.process = WARM.Process(target=run_script, args=job)
        self.process.start()

    @property
    def pid(self) -> int:
        assert self.process.pid
        return self.process.pid

    def children(self) -> list[psutil.Process]:
        """Return all child processes, recursively."""
        with suppress(psutil.NoSuchProcess):
            return psutil.Process(self.pid).children(recursive=True)
        return []

    def kill(self) -> None:
        """Kill the process and its child processes."""
        for process in [self.process, *self.children()]:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self.process.join()
        shutil.rmtree(self.outputs)

    def errors(self) -> str:
        """Return the text on stderr until now."""
        return self.files[1].read_text() if self.files[1].exists() else ""

    def finish(self, limit: float = TIMEOUT) -> subprocess.CompletedProcess[str]:
        """Wait until the process ends. After `limit` seconds, kill all its processes and raise TimeoutExpired."""
        self.process.join(limit)
        if self.process.exitcode is None:
            self.kill()
            raise subprocess.TimeoutExpired(self.line, limit)
        printed, errors = (file.read_text() for file in self.files)
        shutil.rmtree(self.outputs)
        return subprocess.CompletedProcess(self.line, self.process.exitcode, printed, errors)


def command_in(folder: Path, script: str, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a script of this project in `folder` as a user would, without credentials."""
    return Started(folder, script, *arguments, **env).finish()


def record(folder: Path) -> dict:
    """Read the only run.json below `folder`."""
    [path] = folder.rglob("run.json")
    return json.loads(path.read_text())


def train_in(cfg: DictConfig, out_dir: Path) -> float:
    """Train in this process. cfg: as `configure` returns it."""
    return train(cfg, cfg.hydra.runtime.choices, out_dir)


def study_runs_in(folder: Path, seeds: Iterable[int] = range(3)) -> None:
    """Train the runs of STUDY with these seeds, in folders that are named as those of a sweep."""
    for pos in STUDY["factors"]["pos"]:
        for seed in seeds:
            given = [*COMMON_OVERRIDES, *STUDY["overrides"], "trainer=cpu", f"pos={pos}", f"seed={seed}"]
            out_dir = folder / f"{pos}_{seed}"
            train_in(configure(*given), out_dir)
            out_dir.rename(folder / f"{out_dir.name}_{record(out_dir)['identity']}")


def task_for(net: torch.nn.Module, num_classes: int, steps: int, *overrides: str) -> Classify:
    """Build the task that trains `net` as the commands do, so that a new argument has its value of conf/."""
    cfg = configure("data=random", f"data.num_classes={num_classes}", *overrides)
    source = build_source(cfg)
    shape: Any = {"batch_size": 1, "seed": 0, "workers": 0, "limit": None, "resident_bytes": 0}
    data = Batches(source, build_augment(cfg, source), **shape)
    duration = Duration(lambda pace: steps, data, 0)
    duration.total = steps
    return build_task(cfg, net, data, duration)


def run(out_dir: Path, *overrides: str) -> dict:
    """Train in this process, on the CPU, with metrics.csv and both checkpoints; return the record."""
    train_in(configure("trainer=cpu", "logger=csv", "keep_checkpoints=all", *overrides), out_dir)
    return json.loads((out_dir / "run.json").read_text())


def metrics(out_dir: Path) -> pd.DataFrame:
    """Read metrics.csv as a table by step and name."""
    rows = pd.read_csv(out_dir / "metrics.csv")
    return rows.pivot_table(index="step", columns="name", values="value", aggfunc="last")


def weights(out_dir: Path, name: str = "last.ckpt") -> dict[str, torch.Tensor]:
    """Read the weights in a checkpoint of a run."""
    return read_checkpoint(out_dir / name)["state_dict"]


class Cut(Exception):
    pass


def cut_at(monkeypatch: pytest.MonkeyPatch, step: int, how: str) -> None:
    """End training after `step`, as a signal or Ctrl-C does (saving), or as a crash does (not)."""

    def on_train_batch_end(self, trainer, *args):
        if trainer.global_step == step:
            if how == "crash":
                raise Cut
            signal.raise_signal(signal.SIGINT if how == "Ctrl-C" else signal.SIGTERM)
        original(self, trainer, *args)

    original = StopOnSignal.on_train_batch_end
    monkeypatch.setattr(StopOnSignal, "on_train_batch_end", on_train_batch_end)


def poison(monkeypatch: pytest.MonkeyPatch, *steps: int, value: float = float("nan")) -> None:
    """Put `value` into the gradient of these steps, counted from 0."""
    original = pl.LightningModule.on_before_optimizer_step

    def poisoned(self, optimizer):
        if self.trainer.global_step in steps:
            self.net.head.weight.grad.view(-1)[0] = value
        original(self, optimizer)

    monkeypatch.setattr(pl.LightningModule, "on_before_optimizer_step", poisoned)


def wandb_file(folder: Path) -> dict:
    """Read an offline file of W&B: the run, its configuration, its rows, its summary and its exit code."""
    [path] = folder.rglob("*.wandb")
    line = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(path)]
    said = subprocess.run(line, capture_output=True, text=True, check=True).stdout.splitlines()
    found: dict = {"rows": [], "summary": {}}
    for entry in map(json.loads, said):
        body = entry.get(entry["type"], {})
        if entry["type"] == "run":
            found |= body | {"config": body["config"]["update"]}
        elif entry["type"] == "history":
            found["rows"].append(body["item"])
        elif entry["type"] == "summary":
            found["summary"] |= body["update"]
        elif entry["type"] == "exit":
            found["exit_code"] = body.get("exit_code", 0)
    return found


def shuffle_patches(images: torch.Tensor, patch: int) -> torch.Tensor:
    """Shuffle the patches of each image, with one order for all images."""
    patches = images.unfold(2, patch, patch).unfold(3, patch, patch)
    rows, cols = patches.shape[2:4]
    order = torch.randperm(rows * cols)
    patches = patches.flatten(2, 3)[:, :, order].unflatten(2, (rows, cols))
    return patches.transpose(3, 4).flatten(4, 5).flatten(2, 3)
