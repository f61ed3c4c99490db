"""Sweeps and single runs on a real SLURM: jobs that are submitted, reach their time limit, or are killed."""

import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from support import ROOT, record, wandb_file

pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason="needs the extra `slurm`")


def answers(*line: str) -> bool:
    return shutil.which(line[0]) is not None and subprocess.run(line, capture_output=True, check=False).returncode == 0


pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not answers("sinfo"), reason="no SLURM answers here (sinfo)"),
]
LIMIT_S = 300
CELL = ["hydra.launcher.cpus_per_task=1", "hydra.launcher.gres=null", "trainer.accelerator=cpu"]


def wait_for(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < deadline, f"waited {LIMIT_S} s for {what}"
        time.sleep(0.2)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start train.py in an empty folder; at the end of the test, its remaining jobs are cancelled."""
    (tmp_path / "home").mkdir()
    env = {k: v for k, v in os.environ.items() if not k.startswith(("WANDB_", "HYDRA_", "SLURM_"))}
    env |= {"OMP_NUM_THREADS": "1", "HOME": str(tmp_path / "home"), "NETRC": str(tmp_path / "netrc")}
    started = []

    def start(*line: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            line, cwd=tmp_path, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()
    for job in jobs(tmp_path):
        subprocess.run(["scancel", job], check=False)


def sweep(*arguments: str) -> list[str]:
    return [sys.executable, str(ROOT / "train.py"), "-m", *arguments]


def jobs(folder: Path) -> list[str]:
    """List the jobs of the sweeps in `folder`: 12 for a single cell, 12_0, 12_1 for several."""
    return sorted(path.name.removesuffix("_submitted.pkl") for path in folder.glob("runs/slurm/*/*_submitted.pkl"))


def said(folder: Path, job: str) -> str:
    return "\n".join(path.read_text() for path in sorted(folder.glob(f"runs/slurm/{job}/{job}_*_log.out")))


def slurm(*line: str) -> str:
    return subprocess.run(line, capture_output=True, text=True, check=True).stdout


def end(process: subprocess.Popen[str]) -> str:
    output, _ = process.communicate(timeout=LIMIT_S)
    return output


def queued_again(job: str) -> bool:
    return "Restarts=1" in (shown := slurm("scontrol", "show", "job", job)) and "JobState=PENDING" in shown


@pytest.mark.parametrize(
    ("how", "launcher"),
    [
        ("time limit", ["hydra/launcher=slurm", "trainer=cpu", "workers=2"]),
        ("time limit", ["hydra/launcher=slurm_node", "trainer=ddp", "trainer.devices=2"]),
        ("requeued", ["hydra/launcher=slurm", "trainer=cpu"]),
    ],
)
def test_a_cell_that_is_cut_off_goes_on_in_its_directory_and_ends_as_if_it_had_not_been(
    start, command, micro, tmp_path, how, launcher
):
    cell = [*micro, "epochs=40", "limit_batches=20", "model.drop_path=0.5", "rerun=true"]
    process = start(*sweep(*cell, *launcher, *CELL))
    wait_for(lambda: list(tmp_path.rglob("last.ckpt")) or process.poll() is not None, "the first epoch")
    assert process.poll() is None, end(process)
    [job], [last] = jobs(tmp_path), tmp_path.rglob("last.ckpt")
    if how == "time limit":  # what `--signal` and submitit's `signal_delay_s` send before it
        slurm("scancel", "--signal", "USR2", job)
    else:
        slurm("scontrol", "requeue", job)
    wait_for(lambda: queued_again(job), f"job {job} to be queued again")
    before = torch.load(last, weights_only=True)["global_step"]
    assert 20 <= before < 800
    slurm("scontrol", "update", f"JobId={job}", "StartTime=now")  # SLURM itself waits two minutes
    assert process.wait(LIMIT_S) == 0, end(process)
    log = said(tmp_path, job)
    assert f"resuming from {last.relative_to(tmp_path)}" in log, log
    assert ("SIGUSR2" if how == "time limit" else "SIGTERM") + ": saved" in log

    ranks = [a for a in launcher if a.startswith(("trainer", "workers"))]
    done = command("train.py", *cell, *ranks, "trainer.accelerator=cpu", "logger=none", "runs_dir=whole")
    assert done.returncode == 0, done.stderr
    whole, cut = record(tmp_path / "whole")["result"], record(tmp_path / "runs")["result"]
    for name in ("test/acc", "test/loss", "val/acc_best", "val/loss"):
        assert cut[name] == whole[name], name
    parts = sorted((tmp_path / "runs" / "wandb").glob("offline-run-*"))
    assert len(parts) == 2
    assert len({part.name.rpartition("-")[2] for part in parts}) == 1, "one W&B run"
    assert wandb_file(parts[1])["run_group"].startswith("sweep-")


@pytest.mark.parametrize("how", ["cancelled", "killed"])
def test_a_killed_cell_is_reported_and_the_others_end(start, micro, tmp_path, how):
    line = sweep(*micro, "epochs=40", "limit_batches=20", "seed=0,1", "hydra/launcher=slurm", "trainer=cpu", *CELL)
    process = start(*line)
    wait_for(lambda: list(tmp_path.glob("runs/*_s0_*/last.ckpt")), "the first epoch")
    first, second = jobs(tmp_path)
    if how == "cancelled":
        slurm("scancel", first)
    else:
        slurm("scancel", "--signal", "KILL", first)
    output = end(process)
    assert process.returncode == 1, output
    assert f"error: a cell has failed: Job {first} " in output
    assert "Traceback" not in output
    wait_for(lambda: list(tmp_path.glob("runs/*_s1_*/run.json")), f"job {second}")
    assert not list(tmp_path.glob("runs/*_s0_*/run.json"))
    again = start(*line)
    output = end(again)
    assert again.returncode == 0, output
    [third] = set(jobs(tmp_path)) - {first, second}
    assert "resuming from" in said(tmp_path, third)
    assert "1 done before, 1 waiting" in output


def test_ranks_by_srun_alone_train_as_one_process(command, micro, tmp_path):
    def srun(*arguments: str, tasks: int) -> tuple[int, str]:
        env = ["env", *(f"-u{name}" for name in os.environ if name.startswith(("WANDB_", "HYDRA_")))]
        line = [*env, f"HOME={tmp_path}", "OMP_NUM_THREADS=1", sys.executable, str(ROOT / "train.py"), *arguments]
        batch = ["sbatch", "--wait", "--time=10", f"--ntasks-per-node={tasks}", "--gres=gpu:2", "--output=log.txt"]
        script = "#!/bin/bash\nsrun " + shlex.join(line)
        done = subprocess.run(batch, input=script, cwd=tmp_path, text=True, timeout=LIMIT_S, check=False)
        return done.returncode, (tmp_path / "log.txt").read_text()

    cell = [*micro, "logger=csv", "trainer.accelerator=cpu"]
    code, log = srun(*cell, "trainer=ddp", "trainer.devices=2", "runs_dir=two", tasks=2)
    assert code == 0, log
    assert log.count("images at a time") == 1, "only rank 0 speaks"
    alone = command("train.py", *cell, "runs_dir=one")
    assert alone.returncode == 0, alone.stderr
    one, two = (record(tmp_path / name)["result"] for name in ("one", "two"))
    for name in ("test/acc", "test/loss", "val/loss"):
        assert two[name] == pytest.approx(one[name], rel=1e-3), name
    code, log = srun(*cell, "runs_dir=odd", tasks=2)
    assert code == 2, log
    assert "error: trainer.devices=1 trainer.num_nodes=1, but srun started 2 task(s) on each of 1 node(s)" in log
    assert not list(tmp_path.glob("odd/*/*"))


def test_options_of_all_runs_are_checked_before_jobs_are_submitted(start, micro, tmp_path):
    process = start(*sweep(*micro, "patch=4,x", "hydra/launcher=slurm", "trainer=cpu", *CELL))
    output, _ = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 2, output
    assert "patch=x must be a whole number" in output
    assert "error: 1 of 2 cells cannot run, see above: no job was submitted" in output
    assert jobs(tmp_path) == []


def test_ctrl_c_ends_the_waiting_and_leaves_the_jobs(start, micro, tmp_path):
    line = sweep(*micro, "epochs=1", "seed=0,1", "hydra/launcher=slurm", "trainer=cpu", *CELL)
    process = start(*line)
    wait_for(lambda: len(jobs(tmp_path)) == 2, "the jobs")
    time.sleep(2)  # until it waits
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 130, output
    assert "2 SLURM jobs" in output
    assert "the jobs go on" in output
    assert "Traceback" not in output
    wait_for(lambda: len(list(tmp_path.glob("runs/*/run.json"))) == 2, "the records")
    again = start(*line)
    output, _ = again.communicate(timeout=LIMIT_S)
    assert again.returncode == 0, output
    assert "2 cells: 2 done before" in output
    assert len(jobs(tmp_path)) == 2
