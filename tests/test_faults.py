"""Faults in real trainings, at random moments, and what is promised of each.

`make faults` tries each many times and writes benchmarks/faults.md; the tests try each once.
"""

import itertools
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from lab import ALONE, ANSWER, LOADERS, RANKS, RUN, SIGNALS, Lab, assert_equal, flip, gone, outcome, ranks_of
from support import cut_at, poison, run

from patchbench.config.errors import CellFailed
from patchbench.train.watchdog import SAVING

pytestmark = pytest.mark.promise
SHORT = [*RUN, "epochs=1", "trainer=cpu"]
BUDGETS = (["epochs=6"], ["budget=steps", "budget.value=43"])  # the last epoch of the second one is partial


@pytest.fixture
def lab(request: pytest.FixtureRequest, tmp_path: Path, trial: int) -> Iterator[Lab]:
    """A laboratory whose chance differs in each trial and each test."""
    lab = Lab(tmp_path / "lab", random.Random(f"{request.function.__name__} {trial}"))
    yield lab
    lab.close()


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory):
    """The outcome of an undisturbed run, and the seconds that it took, by its arguments."""
    known: dict[tuple[str, ...], tuple[dict, float]] = {}

    def of(arguments: list[str]) -> tuple[dict, float]:
        key = tuple(arguments)
        if key not in known:
            lab = Lab(tmp_path_factory.mktemp("undisturbed"), random.Random(0))
            began = time.monotonic()
            lab.complete(*arguments)
            known[key] = outcome(lab), time.monotonic() - began
        return known[key]

    return of


def completed(lab: Lab, *arguments: str, kills: int = 0, moments: float = 0.0) -> None:
    """Start the command, kill it so many times at random moments, and let it end."""
    for _ in range(kills):
        process = lab.start(*arguments)
        time.sleep(lab.chance.uniform(0, moments))
        process.kill()
    lab.complete(*arguments)


def assert_answered(lab: Lab, done: subprocess.CompletedProcess[str], number: int) -> None:
    """The process has ended as it should after a signal: a shell sees the same code where the signal itself ends it."""
    has_record = lab.has("run.json") and done.returncode in (0, -number)
    assert done.returncode == 128 + number or has_record, done.stderr
    assert "Traceback" not in done.stderr


def test_sigkill_at_a_random_moment(lab, undisturbed):
    """The same command goes on; weights, losses and record are those of an undisturbed run, to the bit."""
    budget = lab.chance.choice(BUDGETS)
    expected, seconds = undisturbed([*RUN, "trainer=cpu", *budget])
    completed(lab, *RUN, "trainer=cpu", *budget, kills=2, moments=seconds)
    assert_equal(lab, expected)


@pytest.mark.slow
def test_sigkill_with_other_numbers_of_loaders(lab, undisturbed):
    """The same, whatever number of processes loads the data before and after."""
    expected, seconds = undisturbed(ALONE)
    for _ in range(2):
        process = lab.start(*ALONE, "resident=0", f"workers={lab.chance.randrange(3)}")
        time.sleep(lab.chance.uniform(0, seconds))
        process.kill()
    lab.complete(*ALONE, "resident=0", f"workers={lab.chance.randrange(3)}")
    assert_equal(lab, expected)


@pytest.mark.slow
def test_sigkill_while_a_checkpoint_is_written(lab, undisturbed):
    """No checkpoint is torn, the run goes on from the one before, and no unfinished file stays."""
    expected, _ = undisturbed(ALONE)
    saves = lab.chance.randrange(1, 8)
    process, seen = lab.start(*ALONE), set()

    def writes() -> bool:
        seen.update(path.name + str(path.stat().st_ino) for path in lab.folder.glob("runs/*/*.ckpt.part-*"))
        return len(seen) >= saves

    lab.disturb(process, lambda: suppressed(writes), process.kill)
    lab.complete(*ALONE)
    assert_equal(lab, expected)


def suppressed(ready) -> bool:
    try:
        return ready()
    except FileNotFoundError:  # between the listing and the look
        return False


@pytest.mark.slow
@pytest.mark.variants("arguments", [ALONE, LOADERS])
def test_signal_at_a_random_moment(lab, undisturbed, arguments):
    """The process ends within 10 s, with 128 + the signal's number or its record; the same command completes it."""
    expected, seconds = undisturbed(ALONE)
    process, number = lab.start(*arguments), lab.chance.choice(SIGNALS)
    lab.disturb(process, lambda: lab.has("metrics.csv"), lambda: time.sleep(lab.chance.uniform(0, seconds / 2)))
    if process.process.exitcode is None:
        os.kill(process.pid, number)
    done = process.finish(ANSWER)
    assert_answered(lab, done, number)
    lab.complete(*arguments)
    assert_equal(lab, expected)


@pytest.mark.slow
@pytest.mark.variants("arguments", [ALONE, LOADERS])
def test_signal_between_the_last_step_and_the_record(lab, undisturbed, arguments):
    """The same: nothing that was trained is lost, and nothing ends with exit 0 but without a record."""
    expected, _ = undisturbed(ALONE)
    process, number = lab.start(*arguments), lab.chance.choice(SIGNALS)

    def act() -> None:
        time.sleep(lab.chance.uniform(0, 0.2))
        with suppress(ProcessLookupError):
            os.kill(process.pid, number)

    lab.disturb(process, lambda: lab.steps() >= 48, act)
    done = process.finish(ANSWER)
    assert_answered(lab, done, number)
    lab.complete(*arguments)
    assert_equal(lab, expected)


@pytest.mark.slow
def test_signal_while_the_command_starts(lab, undisturbed):
    """The process ends at once, by the signal or with 128 + its number, and the same command trains the run."""
    process, number = lab.start(*ALONE), lab.chance.choice((signal.SIGINT, signal.SIGTERM))
    time.sleep(lab.chance.uniform(0.1, 0.6))
    os.kill(process.pid, number)
    assert process.finish(ANSWER).returncode in (-number, 128 + number)
    lab.complete(*ALONE)
    assert_equal(lab, undisturbed(ALONE)[0])


@pytest.mark.slow
@pytest.mark.variants("after", [2, 48])
def test_signal_to_one_of_two_ranks(lab, undisturbed, after):
    """Both ranks end within 10 s, the job with 128 + the signal's number, and the same command completes it."""
    expected, _ = undisturbed(RANKS)
    process = lab.start(*RANKS)
    pids: list[int] = []

    def act() -> None:
        pids.extend(ranks_of(process))
        time.sleep(lab.chance.uniform(0, 0.3))
        chosen = pids[0] if after == 48 else lab.chance.choice(pids)
        if psutil.pid_exists(chosen):
            os.kill(chosen, signal.SIGTERM)

    assert lab.disturb(process, lambda: lab.steps() >= after, act)
    done = process.finish(ANSWER)
    assert_answered(lab, done, signal.SIGTERM)
    assert gone(pids)
    lab.complete(*RANKS)
    assert_equal(lab, expected)


@pytest.mark.slow
def test_sigkill_of_one_of_two_ranks(lab, undisturbed):
    """The other one ends within 10 s, and the same command completes the run."""
    expected, _ = undisturbed(RANKS)
    process = lab.start(*RANKS)
    pids: list[int] = []

    def act() -> None:
        pids.extend(ranks_of(process))
        time.sleep(lab.chance.uniform(0, 1))
        os.kill(lab.chance.choice(pids), signal.SIGKILL)

    assert lab.disturb(process, lambda: lab.steps() >= 2, act)
    assert process.finish(ANSWER).returncode != 0
    assert gone(pids, ANSWER)
    lab.complete(*RANKS)
    assert_equal(lab, expected)


@pytest.mark.slow
@pytest.mark.variants("case", list(itertools.product(["timeout", "signal"], ["ddp", "fsdp"])))
def test_one_of_two_ranks_is_stopped(lab, undisturbed, case):
    """The job ends after trainer.timeout_s without a batch, or 10 s after a signal, and names the rank; 120 s where a
    checkpoint is written.
    """
    how, strategy = case
    ranks = [f"trainer={strategy}" if argument == "trainer=ddp" else argument for argument in RANKS]
    timeout = f"trainer.timeout_s={6 if how == 'timeout' else 600}"
    process, which = lab.start(*ranks, timeout), lab.chance.randrange(2)
    pids: list[int] = []

    def act() -> None:
        pids.extend(ranks_of(process))
        time.sleep(lab.chance.uniform(0, 1))
        os.kill(pids[which], signal.SIGSTOP)
        if how == "signal":
            os.kill(pids[1 - which], signal.SIGTERM)

    assert lab.disturb(process, lambda: lab.steps() >= 2, act)
    began = time.monotonic()
    while f"rank {which} does not answer" not in process.errors():
        assert time.monotonic() - began < SAVING + 2 * ANSWER, process.errors()
        time.sleep(0.1)
    if which == 0:  # the one that all others wait for, and that only a person can end
        os.kill(process.pid, signal.SIGKILL)
    process.finish(ANSWER)
    assert gone(pids)
    lab.complete(*ranks)
    assert_equal(lab, undisturbed(ranks)[0])


@pytest.mark.slow
@pytest.mark.variants("how", ["timeout", "signal"])
def test_a_loader_is_stopped(lab, undisturbed, how):
    """The job ends after trainer.timeout_s without a batch, or 10 s after a signal, and names the process."""
    arguments = [*LOADERS, f"trainer.timeout_s={5 if how == 'timeout' else 600}"]
    process = lab.start(*arguments)
    stopped: list[psutil.Process] = []

    def act() -> None:
        stopped.extend(
            child for child in process.children() if child.name() == "pt_data_worker" or child.children() == []
        )
        for child in stopped:
            child.suspend()
        if how == "signal":
            time.sleep(0.5)  # until training waits for them
            os.kill(process.pid, signal.SIGTERM)

    assert lab.disturb(process, lambda: lab.steps() >= 2 and process.children(), act)
    done = process.finish(2 * ANSWER)
    assert done.returncode in (1, 128 + signal.SIGTERM), done.stderr
    if done.returncode == 1 or "error" in done.stderr:
        assert any(f"process {child.pid} is stopped" in done.stderr for child in stopped), done.stderr
    assert gone([child.pid for child in stopped])
    lab.complete(*ALONE)
    assert_equal(lab, undisturbed(ALONE)[0])


@pytest.mark.slow
def test_a_second_ctrl_c(lab, undisturbed):
    """It ends the process at once, whatever that waits for, and the same command completes the run."""
    process = lab.start(*LOADERS)
    stopped: list[psutil.Process] = []

    def act() -> None:
        stopped.extend(process.children())
        for child in stopped:
            child.suspend()
        for _ in range(2):
            time.sleep(0.5)
            os.kill(process.pid, signal.SIGINT)

    assert lab.disturb(process, lambda: lab.steps() >= 2 and process.children(), act)
    assert process.finish(ANSWER / 2).returncode == 128 + signal.SIGINT
    assert gone([child.pid for child in stopped])
    lab.complete(*ALONE)
    assert_equal(lab, undisturbed(ALONE)[0])


@pytest.mark.slow
def test_a_bit_of_the_last_checkpoint_flips(lab, undisturbed):
    """It is not loaded, it is named, and the run goes on from the checkpoint before."""
    expected, _ = undisturbed(ALONE)
    process = lab.start(*ALONE)
    lab.disturb(process, lambda: lab.steps() >= 26, process.kill)
    flip(lab.run / "last.ckpt", lab.chance)
    said = lab.complete(*ALONE)
    assert "last.ckpt is damaged" in said
    assert "before.ckpt" in said
    assert_equal(lab, expected)


@pytest.mark.slow
def test_a_bit_of_the_record_flips(lab):
    """It is not believed: the same command names the file, and trains nothing."""
    lab.complete(*SHORT)
    whole = (lab.run / "run.json").read_bytes()
    flip(lab.run / "run.json", lab.chance)
    done = lab.start(*SHORT).finish()
    assert done.returncode == 2
    assert f"error: runs/{lab.run.name}/run.json is " in done.stderr
    assert "Traceback" not in done.stderr
    (lab.run / "run.json").write_bytes(whole)
    assert "This run was done before" in lab.complete(*SHORT)


@pytest.mark.slow
def test_the_rows_of_a_run_are_cut_short(lab, undisturbed):
    """The run goes on with the rows that are whole; weights and record are those of an undisturbed run."""
    expected, _ = undisturbed(ALONE)
    process = lab.start(*ALONE)
    lab.disturb(process, lambda: lab.steps() >= 8, process.kill)
    rows = lab.run / "metrics.csv"
    os.truncate(rows, lab.chance.randrange(rows.stat().st_size))
    assert "Traceback" not in lab.complete(*ALONE)
    assert_equal(lab, expected, rows=False)


@pytest.mark.slow
def test_a_bit_of_a_cache_flips(lab):
    """The altered cache is not learned from: the run ends, and the file and the images are named."""
    prepared = lab.start("data=digits", "data.img_size=16", "out=cache", script="scripts/prepare_data.py").finish()
    assert prepared.returncode == 0, prepared.stderr
    path = lab.chance.choice(sorted(lab.folder.glob("cache/*.npy")))
    flip(path, lab.chance)
    whole = ["model=micro", "patch=4", "epochs=1", "trainer=cpu", "logger=csv", "data=cached", "data.root=cache"]
    done = lab.start(*whole).finish()
    assert done.returncode in (1, 2), done.stdout
    [line] = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert path.name in line or "labels" in line
    assert "python scripts/prepare_data.py" in line
    assert not lab.has("run.json")


@pytest.mark.slow
def test_the_disk_is_full_at_a_random_moment(lab, undisturbed):
    """The run ends with one line and the path, nothing half-written stays, and the same command completes it.

    A limit on the size of a file ends a write as a full disk does.
    """
    expected, _ = undisturbed(ALONE)
    room = lab.chance.randrange(1000, lab.chance.choice((4000, 300_000)))  # stderr, of less than 1,000, is a file too
    done = lab.start(*ALONE, LIMIT_FSIZE=str(room)).finish()
    if done.returncode != 0:
        [line] = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
        assert "File too large" in line
        assert "runs/" in line
    assert "Traceback" not in done.stderr
    assert list(lab.folder.rglob("*.part-*")) == []
    lab.complete(*ALONE)
    assert_equal(lab, expected, rows=False)


@pytest.mark.slow
@pytest.mark.variants("value", [float("nan"), float("inf")])
def test_a_gradient_is_not_finite(lab, monkeypatch, value):
    """The run ends and names the step, no weight has changed in it, and without the cause the run can be completed."""
    arguments = [*ALONE, f"log_every={lab.chance.choice((1, 7, 100))}"]
    whole, folder = Lab(lab.folder / "whole", lab.chance), lab.folder / "runs" / "run"
    run(whole.folder / "runs" / "run", *arguments)
    step = lab.chance.randrange(48)
    with monkeypatch.context() as patch:
        poison(patch, step, value=value)
        if lab.chance.random() < 0.5:
            cut_at(patch, lab.chance.randrange(step, 48) + 1, "signal")
        with pytest.raises((CellFailed, SystemExit)):
            run(folder, *arguments)
    assert not lab.has("run.json")
    run(folder, *arguments)
    assert_equal(lab, outcome(whole), rows=False)


@pytest.mark.slow
@pytest.mark.variants("how", ["kill", "suspend"])
def test_the_process_of_wandb_ends_or_is_stopped(lab, undisturbed, how):
    """Training goes on without it, and is as undisturbed; one line says where the rows are."""
    expected, seconds = undisturbed(ALONE)
    offline = ["logger=wandb", "logger.wandb.mode=offline", "logger.wandb.finish_s=3"]
    process = lab.start(*(argument for argument in ALONE if argument != "logger=csv"), *offline)

    def service() -> list[psutil.Process]:
        return [child for child in process.children() if child.name() == "wandb-core"]

    def act() -> None:
        time.sleep(lab.chance.uniform(0, seconds / 2))
        for child in service():
            getattr(child, how)()

    lab.disturb(process, lambda: lab.steps() >= 1 and service(), act)
    done = process.finish(60)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert_equal(lab, expected)


@pytest.mark.slow
def test_the_folder_of_runs_moves_between_cut_and_resume(lab, undisturbed):
    """The run goes on in its new place as if it had not moved."""
    expected, _ = undisturbed(ALONE)
    process = lab.start(*ALONE)
    lab.disturb(process, lambda: lab.steps() >= lab.chance.randrange(8, 40), process.kill)
    moved = [*ALONE, "runs_dir=elsewhere/runs"]
    shutil.move(lab.folder / "runs", lab.folder / "elsewhere" / "runs")
    lab.complete(*moved)
    lab.folder = lab.folder / "elsewhere"
    assert_equal(lab, expected)


@pytest.mark.slow
@pytest.mark.variants(
    "refused", ["workers=-1", "trainer.devices=0", "ckpt=/nowhere", "max_gmacs=0", "log_every=0", "optim.lr=-1"]
)
def test_a_refused_command_asks_to_train_anew(lab, refused):
    """Nothing of the finished run is removed."""
    lab.complete(*SHORT)
    before = {path.name: path.read_bytes() for path in lab.run.iterdir() if path.is_file()}
    done = lab.start(*SHORT, "rerun=true", refused).finish()
    assert done.returncode == 2, done.stderr
    assert before == {path.name: path.read_bytes() for path in lab.run.iterdir() if path.is_file()}
