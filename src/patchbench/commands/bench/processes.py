"""Trainings and tests as processes, each with its exit code and the end of its output."""

import contextlib
import importlib.util
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from patchbench.commands.bench.rounds import Figures


def ended(commands: dict[str, list[str]], root: Path, seconds: float) -> Figures:
    """Run commands at the same time; return for each command its exit code and the end of its output.

    commands: arguments, by name. seconds: time for all commands. A command that takes longer is killed, and its exit
    code is a text that says so.
    """
    results: Figures = {}
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        running = {}
        for name, line in commands.items():
            out = stack.enter_context(Path(folder, name).open("w+"))
            running[name] = (subprocess.Popen(line, cwd=root, stdout=out, stderr=out), out)
        until = time.perf_counter() + seconds
        for name, (process, out) in running.items():
            try:
                code: int | str = process.wait(max(1.0, until - time.perf_counter()))
            except subprocess.TimeoutExpired:
                process.kill()
                code = f"stopped after {seconds:.0f} s"
            out.seek(0)
            results[name] = {"command": " ".join(["python", *commands[name][1:]]), "exit_code": code}
            results[name]["output"] = list(ends(out.read().splitlines()))
    return results


def ends(lines: Sequence[str]) -> Iterator[str]:
    """Yield the last 12 lines of an output, and before them all earlier lines with warnings."""
    yield from (line[:300] for line in lines[:-12] if "warn" in line.lower())
    yield from (line[:300] for line in lines[-12:])


def runs_in_processes(root: Path, folder: str, device: str, seconds: float) -> Figures:
    """Run DDP and FSDP with one device each, and a sweep of two cells, which share the GPU if the device is `cuda`.

    root: folder of train.py. folder: folder for the runs. device: `cuda` or `cpu`. seconds: see `ended`.
    """
    commands = {
        name: [*small(device, folder, name), f"trainer={name}", "trainer.devices=1"] for name in ("ddp", "fsdp")
    }
    commands["sweep"] = [*small(device, folder, "sweep"), "-m", "embed=conv,linear", *shares(device, 2)]
    return ended(commands, root, seconds)


def every_optimizer(root: Path, folder: str, device: str, seconds: float) -> Figures:
    """Run a sweep over all optimizers, with binary cross entropy, LayerScale and a frozen embedding.

    The arguments are those of `runs_in_processes`.
    """
    names = sorted(path.stem for path in (root / "conf" / "optim").glob("*.yaml"))
    more = ["optim.loss=bce", "model.layer_scale=1e-4", "freeze=embed", f"hydra.launcher.jobs={len(names)}"]
    sweep = ["-m", f"optim={','.join(names)}", *more, *shares(device, len(names))]
    return ended({"sweep": [*small(device, folder, "optimizers"), *sweep]}, root, seconds)


def small(device: str, folder: str, name: str) -> list[str]:
    """Return the command line of a short training. Its runs are stored in the folder `name` of `folder`."""
    sizes = ["model=micro", "data=random", "data.train_size=512", "data.eval_size=64", "patch=16", "epochs=2"]
    accelerator = f"trainer.accelerator={'gpu' if device == 'cuda' else device}"
    more = ["batch_size=64", "logger=none", accelerator, f"runs_dir={folder}/{name}"]
    return [sys.executable, "train.py", *sizes, *more]


def shares(device: str, cells: int) -> list[str]:
    """Return options of a sweep for several cells that use one GPU at the same time; none for a CPU."""
    return [f"hydra.launcher.gpus_per_job={1 / cells:g}"] if device == "cuda" else []


def run_tests(root: Path, device: str, seconds: float) -> dict[str, Any]:
    """Run tests of tests/test_gpu.py; return the counts of their outcomes, and the tests that did not pass.

    On a GPU: every positional scheme with one embedding, every embedding with one scheme, and the tests of memory. On a
    CPU: two tests that need no GPU.
    """
    chosen = ["-m", "gpu", "-k", "conv or learned or memory"]
    if device == "cpu":
        chosen = ["-k", "step_in_bf16 and conv and rope", "-m", "not gpu"]
    quiet = ["-p", "no:cacheprovider", "-p", "no:benchmark", "--color=no", "--show-capture=no"]
    line = [sys.executable, "-m", "pytest", "-v", *quiet, "tests/test_gpu.py", *chosen]
    workers = min(8, (os.cpu_count() or 1) // 2)
    if device == "cuda" and workers > 1 and importlib.util.find_spec("xdist"):
        line += ["-n", str(workers)]
    with tempfile.TemporaryFile("w+") as out:
        try:
            code = subprocess.run(line, cwd=root, stdout=out, stderr=out, timeout=seconds, check=False).returncode
        except subprocess.TimeoutExpired:
            code = None
        out.seek(0)
        output = out.read()
    outcomes = {}
    for test, outcome in re.findall(r"(tests/\S+::[^\s\[]+(?:\[[^\]]*\])?) (PASSED|FAILED|ERROR|SKIPPED)", output):
        outcomes[test] = outcome
    for outcome, test in re.findall(r"(PASSED|FAILED|ERROR|SKIPPED) (tests/\S+::[^\s\[]+(?:\[[^\]]*\])?)", output):
        outcomes[test] = outcome  # with xdist the outcome comes first
    counts = {o.lower(): sum(v == o for v in outcomes.values()) for o in ("PASSED", "FAILED", "ERROR", "SKIPPED")}
    return {
        "command": " ".join(["python", *line[1:]]),
        "exit_code": code,
        "ended": "all were run" if code is not None else "stopped when the time was over",
        "counts": counts,
        "not_passed": {test: outcome for test, outcome in outcomes.items() if outcome != "PASSED"},
        "output": [] if code == 0 else output.splitlines()[-60:],
    }
