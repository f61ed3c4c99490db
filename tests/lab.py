"""Faults for tests/test_faults.py: real processes, signals and files, and the table of the trials."""

import json
import os
import platform
import random
import signal
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import torch
from support import Started, record, weights

from patchbench.runs.provenance import commit, cpu_name

RUN = [
    *("model=micro", "data.img_size=16", "patch=4", "batch_size=32", "limit_batches=8", "log_every=1"),
    *("model.drop_path=0.5", "logger=csv", "keep_checkpoints=all", "runs_dir=runs"),
]
ALONE = [*RUN, "epochs=6", "trainer=cpu"]
LOADERS = [*ALONE, "resident=0", "workers=2"]
RANKS = [*RUN, "epochs=6", "trainer=ddp", "trainer.devices=2", "trainer.accelerator=cpu"]
ANSWER = 14.0  # seconds from a signal to the end: the 10 that are promised, and the end of a process on a busy machine


class Lab:
    """A folder in which trainings are started, disturbed and started again. chance: random generator of the moments."""

    def __init__(self, folder: Path, chance: random.Random) -> None:
        self.folder, self.chance = folder, chance
        self.started: list[Started] = []
        folder.mkdir(parents=True, exist_ok=True)

    def start(self, *arguments: str, script: str = "train.py", **env: str) -> Started:
        self.started.append(Started(self.folder, script, *arguments, **env))
        return self.started[-1]

    def close(self) -> None:
        """Kill the processes that a trial has left."""
        for process in self.started:
            if process.process.exitcode is None:
                process.kill()

    def complete(self, *arguments: str) -> str:
        """Repeat the command until the run is done; return its output."""
        done = self.start(*arguments).finish()
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    @property
    def run(self) -> Path:
        """Return the folder of the only run."""
        [run] = [path for path in (self.folder / "runs").iterdir() if path.is_dir() and path.name != "wandb"]
        return run

    def has(self, name: str) -> bool:
        return any(self.folder.glob(f"runs/*/{name}"))

    def steps(self) -> int:
        """Return the last step in metrics.csv; 0 if there is none yet."""
        for path in self.folder.glob("runs/*/metrics.csv"):
            lines = [line.split(",")[0] for line in path.read_text().splitlines()[1:]]
            return int(lines[-1]) if lines and lines[-1].isdigit() else 0
        return 0

    def disturb(self, process: Started, ready: Callable[[], object], act: Callable[[], object]) -> bool:
        """Call `act` when `ready` is true; False if the process has ended before."""
        while not ready():
            if process.process.exitcode is not None:
                return False
            time.sleep(0.002)
        act()
        return True


def outcome(lab: Lab) -> dict[str, Any]:
    """The parts of a finished run that must not depend on faults: weights, losses, results of the record."""
    rows = pd.read_csv(lab.run / "metrics.csv")
    learned = rows[rows.name.isin(["train/loss", "val/loss", "train/grad_norm", "test/loss"])]
    result = record(lab.run)["result"]
    return {
        "last": weights(lab.run, "last.ckpt"),
        "best": weights(lab.run, "best.ckpt"),
        "rows": learned.groupby(["name", "step"]).value.last().to_dict(),
        "result": {name: value for name, value in result.items() if name.startswith(("test/", "val/"))},
    }


def assert_equal(lab: Lab, undisturbed: dict[str, Any], rows: bool = True) -> None:
    """Check that a run equals the undisturbed run to the bit. rows: compare the rows of metrics.csv as well."""
    found = outcome(lab)
    for name in ("last", "best"):
        torch.testing.assert_close(found[name], undisturbed[name], rtol=0, atol=0)
    assert found["rows"] == undisturbed["rows"] or not rows
    assert found["result"] == undisturbed["result"]
    assert list(lab.folder.rglob("*.part-*")) == []


def flip(path: Path, chance: random.Random, bits: int = 1) -> None:
    """Flip some bits of a file."""
    with path.open("r+b") as file:
        for _ in range(bits):
            place = chance.randrange(path.stat().st_size)
            file.seek(place)
            [byte] = file.read(1)
            file.seek(place)
            file.write(bytes([byte ^ 1 << chance.randrange(8)]))


def ranks_of(process: Started) -> list[int]:
    """Return the processes of both ranks of a training that starts its second rank itself."""
    [other] = [child for child in process.children() if "LOCAL_RANK" in child.environ()]
    return [process.pid, other.pid]


def gone(pids: Iterable[int], limit: float = 5.0) -> bool:
    """True if none of these processes exists any more, except as a zombie."""
    end = time.monotonic() + limit
    while time.monotonic() < end:
        left = [pid for pid in pids if psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE]
        if not left:
            return True
        time.sleep(0.05)
    return False


COLUMNS = ("fault", "promise", "trials", "passed", "commit")
HEADINGS = {True: "At moments and places drawn at random:", False: "Kinds, each once:"}


def tables_of_faults(reports: Iterable[Any], before: str) -> str:
    """Return two tables in Markdown, one of faults that are drawn at random, one of listed kinds.

    A report counts as one trial, or as the number in its property `trials`. before: the earlier tables; a fault that
    was not tried keeps its row.
    """
    trials = [
        {"trials": 1, **about, "passed": about.get("trials", 1) * report.passed}
        for report, about in ((report, dict(report.user_properties)) for report in reports)
        if report.when == "call" and "promise" in about
    ]
    rows = rows_of(before)
    for (fault, promise, drawn), group in pd.DataFrame(trials).groupby(["fault", "promise", "drawn"], sort=False):
        counts = (str(group["trials"].sum()), str(group["passed"].sum()))
        rows[fault] = (drawn, (fault, promise, *counts, str(commit())[:10]))
    machine = f"{os.cpu_count()} cores of {cpu_name()}, {platform.system()}, Python {platform.python_version()}"
    lines = [f"Made by `make faults` on {machine}, torch {torch.__version__}.", ""]
    for drawn, heading in HEADINGS.items():
        chosen = [row for of, row in rows.values() if of == drawn]
        table = [COLUMNS, ("---",) * len(COLUMNS), *chosen]
        lines += [heading, "", *(f"| {' | '.join(row)} |" for row in table), ""] if chosen else []
    return "\n".join(lines)


def rows_of(text: str) -> dict[str, tuple[bool, tuple[str, ...]]]:
    """Return the rows of earlier tables by fault: whether the fault is drawn at random, and the cells."""
    rows, drawn = {}, True
    for line in text.splitlines():
        drawn = line == HEADINGS[True] or (drawn and line != HEADINGS[False])
        cells = tuple(cell.strip() for cell in line.strip("|").split(" | "))
        if len(cells) == len(COLUMNS) and line.startswith("| ") and cells != COLUMNS and cells[0] != "---":
            rows[cells[0]] = (drawn, cells)
    return rows


def read_json(path: Path) -> Any:
    return json.loads(path.read_text())


SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
