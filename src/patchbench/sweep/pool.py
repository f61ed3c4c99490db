"""Cells in processes of their own: started, watched, ended, tried again."""

import multiprocessing
import os
import pkgutil
import re
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import FrameType
from typing import Any

from patchbench.machine import cores
from patchbench.sweep.cell import Cell
from patchbench.sweep.knobs import Knobs

# What tells a process that it is one of several ranks; a cell is not, until it starts ranks itself.
RANK_VARIABLES = {"LOCAL_RANK", "RANK", "GROUP_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "NODE_RANK"}
RANK_VARIABLES |= {"MASTER_ADDR", "MASTER_PORT", "PL_GLOBAL_SEED"}
REFUSED = 2  # exit code of a configuration that cannot run: no use in trying again


def warm(function: str, *arguments: Any) -> Any:
    """`module:function` of patchbench.sweep, imported where it runs."""
    return pkgutil.resolve_name(f"patchbench.sweep.{function}")(*arguments)


def warm_context() -> Any:
    """Processes are forks of one that has imported everything."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["patchbench.sweep.warm"])
    return context


@dataclass
class Running:
    """An attempt at a cell."""

    cell: Cell
    process: BaseProcess
    gpus: list[str]
    began: float
    log_start: int
    told: float | None = None  # when it was told to end
    why: str = ""


class Pool:
    """Runs cells, `jobs` at a time, each on its share of the GPUs and cores.

    gpus: names for CUDA_VISIBLE_DEVICES. arguments: of the command line of a cell's own.
    """

    def __init__(
        self,
        script: str,
        arguments: Callable[[Cell], list[str]],
        knobs: Knobs,
        gpus: Sequence[str],
        jobs: int,
    ) -> None:
        self.script, self.arguments, self.knobs, self.jobs = script, arguments, knobs, jobs
        share = knobs.gpus_per_job
        cells_a_gpu = round(1 / share) if isinstance(share, float) and 0 < share < 1 else 1
        self.all_gpus, self.free = list(gpus), list(gpus) * cells_a_gpu
        self.running: list[Running] = []
        self.received = 0
        self.context = warm_context()

    def run(self, waiting: list[Cell], ended: Callable[[Cell], None]) -> int:
        """Until every cell has ended, or a signal was received, whose number is returned.

        ended: called for each cell when its state is final.
        """
        waiting = list(waiting)
        before = {s: signal.signal(s, self.take_note) for s in (signal.SIGINT, signal.SIGTERM)}
        try:
            while self.running or (waiting and not self.received):
                if not self.received:
                    for cell in [c for c in waiting if self.has_room(c)]:
                        if self.has_room(cell):
                            waiting.remove(cell)
                            self.start(cell)
                wait([r.process.sentinel for r in self.running], timeout=0.25)
                for attempt in list(self.running):
                    if attempt.process.exitcode is None:
                        self.limit(attempt)
                    elif self.end(attempt):
                        ended(attempt.cell)
                    else:
                        waiting.insert(0, attempt.cell)
        finally:
            for attempt in self.running:
                kill(attempt.process)
            for number, handler in before.items():
                signal.signal(number, handler)
        return self.received

    def take_note(self, number: int, frame: FrameType | None) -> None:
        if self.received:  # for the second time: at once
            for attempt in self.running:
                kill(attempt.process)
        self.received = number

    def gpus_for(self, cell: Cell) -> int:
        """Units of `free` that it takes."""
        assert cell.composed
        if not self.all_gpus or cell.composed.accelerator == "cpu":
            return 0
        share = self.knobs.gpus_per_job
        if share == "auto":
            return len(self.all_gpus) if cell.composed.devices == "auto" else cell.composed.devices
        return max(1, int(share)) if share else 0

    def has_room(self, cell: Cell) -> bool:
        return len(self.running) < self.jobs and self.gpus_for(cell) <= len(self.free)

    def start(self, cell: Cell) -> None:
        assert cell.composed
        count = self.gpus_for(cell)
        gpus, self.free = self.free[:count], self.free[count:]
        env = {name: value for name, value in os.environ.items() if name not in RANK_VARIABLES}
        if self.all_gpus:
            env["CUDA_VISIBLE_DEVICES"] = ",".join(gpus)
        threads = None
        if self.jobs > 1 and "OMP_NUM_THREADS" not in env:  # one at a time: as alone
            ranks = cell.composed.devices if cell.composed.devices != "auto" else max(1, count)
            threads = max(1, cores() // (self.jobs * ranks))
            env["OMP_NUM_THREADS"] = str(threads)
        with suppress(OSError):  # a full disk is found out, and told, by the cell
            cell.folder.mkdir(parents=True, exist_ok=True)
            cell.progress.unlink(missing_ok=True)
        cell.attempts += 1
        cell.state = "running"
        job = (self.script, self.arguments(cell), env, cell.log.absolute(), threads, self.knobs.grace_s)
        log_start = cell.log.stat().st_size if cell.log.exists() else 0
        process = self.context.Process(target=warm, args=("warm:run_cell", *job))
        process.start()
        self.running.append(Running(cell, process, gpus, time.monotonic(), log_start))

    def limit(self, attempt: Running) -> None:
        """Tell it to end when it should, and end it when it does not."""
        now, minutes = time.monotonic(), self.knobs.timeout_min
        if attempt.told is None:
            if self.received:
                attempt.told, attempt.why = now, "stopped"
            elif minutes is not None and now - attempt.began > 60 * minutes:
                attempt.told, attempt.why = now, f"took more than hydra.launcher.timeout_min={minutes:g}"
            if attempt.told:
                tell(attempt.process, signal.SIGTERM)  # rank 0 alone: ranks agree among themselves
        elif now - attempt.told > self.knobs.grace_s:
            kill(attempt.process)

    def end(self, attempt: Running) -> bool:
        """Take in how it ended; False where it is to be tried again."""
        cell, code = attempt.cell, attempt.process.exitcode
        kill(attempt.process)  # what it left in its group: ranks, loaders
        attempt.process.join()
        self.running.remove(attempt)
        self.free += attempt.gpus
        cell.seconds += time.monotonic() - attempt.began
        with suppress(OSError):
            cell.progress.unlink(missing_ok=True)
        if code == 0 and cell.record.exists():
            cell.state, cell.error = "done", ""
            return True
        cell.state = "stopped" if attempt.why == "stopped" else "failed"
        cell.error = attempt.why or cause(code, cell.log, attempt.log_start)
        again = cell.state == "failed" and code != REFUSED and cell.attempts <= self.knobs.retries
        if again and not self.received:
            cell.state = "waiting"
            return False
        return True


def tell(process: BaseProcess, number: int) -> None:
    assert process.pid
    with suppress(ProcessLookupError):
        os.kill(process.pid, number)


def kill(process: BaseProcess) -> None:
    """The process with all of its group."""
    assert process.pid
    if process.exitcode is None:
        tell(process, signal.SIGKILL)  # its group may not be there yet
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def cause(code: int | None, log: Path, start: int) -> str:
    """The last line of the last error in a log, from `start` on; and the signal, if there was one.

    What a rank says of another that is gone counts only where nothing else was said.
    """
    lines: list[str] = []
    with suppress(OSError), log.open("rb") as file:
        file.seek(start)
        said = file.read().decode(errors="replace").splitlines()
        lines = [re.sub(r"^\[rank\d+\]: ?", "", line) for line in said if line.strip()]
    found, inside = [], False
    for line in lines:
        if line.startswith("Traceback (most recent call last)"):
            inside = True
        elif line.startswith("error: ") or (inside and not line[0].isspace()):
            found.append(line.removeprefix("error: "))
            inside = False
    first_hand = [line for line in found if not re.search("gloo|nccl|closed by peer|reset by peer", line.lower())]
    words = (first_hand or found)[-1:]
    if code is not None and code < 0:
        words.insert(0, signal.Signals(-code).name)
        if code == -signal.SIGKILL and not found:
            words.append("killed from outside, as the system does when memory is short")
    elif code == 0:
        words = ["ended without a record"]
    elif not words:
        words = [f"exit code {code}", *lines[-1:]]
    return ": ".join(words)
