"""Sweeps as a user starts them: each cell is a process, none is lost or done twice, and each result is printed."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import psutil
import pytest
import torch
from support import ROOT, record

MICRO = ["model=micro", "data.img_size=16", "patch=4", "batch_size=32", "log_every=2", "trainer=cpu", "logger=csv"]
BRIEF = [*MICRO, "epochs=1", "limit_batches=2"]
LONG = [*MICRO, "epochs=1000", "limit_batches=20", "log_every=1"]
TWO_RANKS = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2"]

# A train.py in which some cells go wrong: seed 1 leaves, 2 is killed, 3 raises on its second rank.
FAULTY = """
import os, signal, sys
from pathlib import Path
import pytorch_lightning as pl
from hydra.core.hydra_config import HydraConfig
from patchbench.config.command import command

def fault(self, trainer, *_):
    seed = int(os.environ["SEED_OF_CELL"])
    if seed == 1:
        sys.exit(0)
    if seed == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    if seed == 3 and trainer.global_rank == 1:
        raise RuntimeError("of the second rank")
    if seed == 4 and not os.path.exists("tried"):
        open("tried", "w").close()
        raise RuntimeError("at the first attempt")

@command("train")
def main(cfg):
    from patchbench.commands.train import train
    os.environ["SEED_OF_CELL"] = str(cfg.seed)
    pl.Callback.on_train_start = fault
    hydra = HydraConfig.get()
    return train(cfg, dict(hydra.runtime.choices), Path(hydra.runtime.output_dir))

if __name__ == "__main__":
    main()
"""

Command = Callable[..., subprocess.CompletedProcess[str]]


def records(folder: Path) -> dict[int, dict]:
    """Return the records by seed."""
    found = [json.loads(path.read_text()) for path in folder.rglob("run.json")]
    return {done["factors"]["seed"]: done for done in found}


def processes_in(folder: Path) -> list[psutil.Process]:
    """List all processes that were started in `folder`."""
    found = []
    for process in psutil.process_iter():
        try:
            if Path(process.cwd()) == folder and process.pid != os.getpid() and process.status() != "zombie":
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found


def no_process_is_left(folder: Path) -> bool:
    until = time.monotonic() + 90
    while processes_in(folder) and time.monotonic() < until:
        time.sleep(0.2)
    return not processes_in(folder)


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """Start a sweep that runs in parallel with the test."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("WANDB_", "HYDRA_"))} | {"OMP_NUM_THREADS": "1"}
    line = [sys.executable, str(ROOT / "train.py"), *arguments]
    return subprocess.Popen(line, cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def wait_for(path: Callable[[], object], seconds: float = 120) -> None:
    until = time.monotonic() + seconds
    while not path():
        assert time.monotonic() < until
        time.sleep(0.1)


def test_a_sweep_runs_each_cell_once_and_again_only_what_it_lacks(command: Command, tmp_path: Path) -> None:
    first = command("train.py", "-m", *BRIEF, "embed=conv,fixed", "patch=4,8", "seed=0", "hydra.launcher.jobs=2")
    assert first.returncode == 0, first.stdout + first.stderr
    assert "4 cells: 4 done" in first.stdout
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("run.json")}
    assert len(kept) == 4
    assert first.stderr == ""
    [one] = tmp_path.glob("runs/*conv-4*/")
    assert "train acc" in (one / "log.txt").read_text()
    assert sorted(p.name for p in one.iterdir()) == ["best.ckpt", "log.txt", "metrics.csv", "run.json"]
    wider = command("train.py", "-m", *BRIEF, "embed=conv", "patch=4,8", "seed=0,1")
    assert "4 cells: 2 done, 2 done before" in wider.stdout, wider.stdout + wider.stderr
    assert all(path.stat().st_mtime_ns == at for path, at in kept.items())
    assert no_process_is_left(tmp_path)


@pytest.mark.slow
def test_all_cells_are_checked_before_the_first_starts(command: Command, tmp_path: Path) -> None:
    sweep = ["-m", *BRIEF, "embed=conv,cnv", "patch=4,5", "pos=learned,[learned,sincos]"]
    refused = command("train.py", *sweep)
    assert refused.returncode == 2
    assert "did you mean embed=conv?" in refused.stderr
    assert "patch=5" in refused.stderr
    assert "both fill" in refused.stderr
    assert refused.stderr.splitlines()[-1].startswith("error: 7 of 8 cells cannot run")
    assert not list(tmp_path.rglob("run.json"))
    dry = command("train.py", *sweep, "--dry-run", "hydra.launcher.on_invalid=skip")
    assert dry.returncode == 0, dry.stderr
    [row] = [line for line in dry.stdout.splitlines() if "to run" in line]
    assert "41,626" in row, "parameters"
    assert "unknown" in row, "no time was measured yet"
    assert not list(tmp_path.rglob("run.json"))
    pruned = command("train.py", *sweep, "hydra.launcher.on_invalid=skip")
    assert pruned.returncode == 0, pruned.stderr
    assert "8 cells: 1 done, 7 invalid" in pruned.stdout
    timed = command("train.py", *sweep[1:], "epochs=4", "--dry-run", "hydra.launcher.on_invalid=skip")
    [row] = [line for line in timed.stdout.splitlines() if "to run" in line]
    assert "about" in row


@pytest.mark.slow
def test_a_cell_that_fails_fails_alone_and_is_tried_again(command: Command, tmp_path: Path) -> None:
    script = tmp_path / "faulty.py"
    script.write_text(FAULTY)
    sweep = ["-m", *BRIEF, "seed=0,1,2,4", "hydra.launcher.retries=1"]
    done = command(str(script), *sweep)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "4 cells: 2 done, 2 failed" in done.stdout, done.stdout
    assert "ended without a record" in done.stdout
    assert "SIGKILL" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    assert set(records(tmp_path)) == {0, 4}
    log = next(tmp_path.glob("runs/*_s4_*/log.txt")).read_text()
    assert log.count("RuntimeError: at the first attempt") == 1
    mended = command("train.py", *sweep)
    assert mended.returncode == 0, mended.stdout + mended.stderr
    assert "2 done, 2 done before" in mended.stdout
    assert no_process_is_left(tmp_path)


@pytest.mark.slow
def test_ctrl_c_saves_the_cells_and_the_next_start_resumes_them(tmp_path: Path) -> None:
    sweep = ["-m", *LONG, "seed=0,1,2", "hydra.launcher.jobs=2"]
    started = start(tmp_path, *sweep)
    wait_for(lambda: sum("train/loss" in file.read_text() for file in tmp_path.glob("runs/*/metrics.csv")) == 2)
    os.kill(started.pid, signal.SIGINT)
    said, _ = started.communicate(timeout=120)
    assert started.returncode == 130, said
    assert "3 cells: 2 stopped, 1 waiting" in said
    steps = {}
    for path in tmp_path.rglob("last.ckpt"):
        steps[path] = torch.load(path, weights_only=True)["global_step"]
    assert len(steps) == 2
    assert all(steps.values())
    assert no_process_is_left(tmp_path)
    again = start(tmp_path, *sweep)
    wait_for(lambda: all("resuming from" in (path.parent / "log.txt").read_text() for path in steps))
    again.kill()  # not even the sweep's own end loses a cell, or leaves one behind
    assert no_process_is_left(tmp_path)
    again.communicate()
    for path, step in steps.items():
        assert torch.load(path, weights_only=True)["global_step"] >= step


@pytest.mark.slow
def test_ranks_inside_a_sweep_train_as_the_same_cell_alone_to_the_bit(command: Command, tmp_path: Path) -> None:
    cell = [*BRIEF, *TWO_RANKS, "model.drop_path=0.5"]
    alone = command("train.py", *cell, "runs_dir=alone")
    assert alone.returncode == 0, alone.stderr
    swept = command("train.py", "-m", *cell, "runs_dir=swept", "seed=0,1")
    assert swept.returncode == 0, swept.stdout + swept.stderr
    [one] = (tmp_path / "alone").rglob("best.ckpt")
    [two] = (tmp_path / "swept").glob("*_s0_*/best.ckpt")
    weights = [torch.load(path, weights_only=True)["state_dict"] for path in (one, two)]
    torch.testing.assert_close(*weights, rtol=0, atol=0)
    losses = [
        pd.read_csv(path.parent / "metrics.csv").query("name == 'train/loss'").value.tolist() for path in (one, two)
    ]
    assert losses[0] == losses[1]
    assert record(two.parent)["result"]["test/loss"] == record(one.parent)["result"]["test/loss"]
    assert no_process_is_left(tmp_path)


@pytest.mark.slow
def test_an_exception_on_one_rank_fails_its_cell_alone_and_leaves_no_process(command: Command, tmp_path: Path) -> None:
    script = tmp_path / "faulty.py"
    script.write_text(FAULTY)
    done = command(str(script), "-m", *BRIEF, *TWO_RANKS, "seed=3,0")
    assert done.returncode == 1
    assert "2 cells: 1 done, 1 failed" in done.stdout, done.stdout
    assert "RuntimeError: of the second rank" in done.stdout
    assert set(records(tmp_path)) == {0}
    assert no_process_is_left(tmp_path)


@pytest.mark.slow
def test_a_cell_that_takes_too_long_saves_and_fails(command: Command, tmp_path: Path) -> None:
    done = command("train.py", "-m", *LONG, "seed=0", "hydra.launcher.timeout_min=0.3", "hydra.launcher.retries=1")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "timeout_min=0.3" in done.stdout
    assert "2 attempts" in done.stdout
    [log] = tmp_path.rglob("log.txt")
    assert log.read_text().count("resuming from") == 1
    assert no_process_is_left(tmp_path)


@pytest.mark.slow
def test_two_sweeps_that_meet_in_a_cell_train_it_once(tmp_path: Path) -> None:
    sweeps = [start(tmp_path, "-m", *BRIEF, "epochs=20", "seed=0,1") for _ in range(2)]
    said = [sweep.communicate(timeout=280)[0] for sweep in sweeps]
    assert [sweep.returncode for sweep in sweeps] == [0, 0], said
    logs = [path.read_text() for path in tmp_path.rglob("log.txt")]
    assert len(logs) == 2
    assert all(log.count("epoch 20/20") == 1 for log in logs)
    assert sum("waiting for it" in log for log in logs) >= 1


@pytest.mark.slow
def test_a_full_disk_fails_the_cell_that_meets_it(command: Command, tmp_path: Path) -> None:
    script = tmp_path / "small_disk.py"
    script.write_text("import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (10**6, 10**6))\n" + FAULTY)
    done = command(str(script), "-m", *BRIEF, "model.depth=2,24")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "2 cells: 1 done, 1 failed" in done.stdout, done.stdout
    assert "too large" in done.stdout


@pytest.mark.parametrize(
    ("knob", "said"),
    [
        ("jobs=0", "auto, or 1 or more"),
        ("gpus_per_job=1.5", "a number of GPUs"),
        ("timeout_min=0", "null for no limit"),
        ("on_invalid=prune", "raise or skip"),
    ],
)
def test_a_knob_that_cannot_be_is_refused_in_one_line(command: Command, knob: str, said: str) -> None:
    done = command("train.py", "-m", "seed=0,1", f"hydra.launcher.{knob}")
    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert line.startswith(f"error: hydra.launcher.{knob} must be")
    assert said in line
