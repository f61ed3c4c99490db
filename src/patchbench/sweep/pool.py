"""Processes of cells: start, time limit, end, further attempts."""

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

from patchbench.machine import cores, ignored_under_nohup, redirect_dead_terminal
from patchbench.sweep.cell import Cell
from patchbench.sweep.knobs import Knobs

# Environment variables of a process that is one of several ranks. They are removed for a cell, which starts its own.
RANK_VARIABLES = {"LOCAL_RANK", "RANK", "GROUP_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "NODE_RANK"}
RANK_VARIABLES |= {"MASTER_ADDR", "MASTER_PORT", "PL_GLOBAL_SEED", "TORCHELASTIC_RUN_ID"}
ENDING = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)  # signals that end a sweep
REFUSED = 2  # exit code of a configuration that cannot run, for which a second attempt would fail too


def warm(function: str, *arguments: Any) -> Any:
    """Call `module:function` of patchbench.sweep; only the process that runs it imports the module."""
    return pkgutil.resolve_name(f"patchbench.sweep.{function}")(*arguments)


def warm_context() -> Any:
    """Return a multiprocessing context with a fork server that has all imports, so that processes start fast."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["patchbench.sweep.warm"])
    return context


@dataclass
class Running:
    """A running attempt at a cell. log_start: size of its log at the start, in bytes."""

    cell: Cell
    process: BaseProcess
    gpus: list[str]
    began: float
    log_start: int
    signalled: float | None = None  # time of the signal that ends the attempt
    reason: str = ""  # reason for that signal


class Pool:
    """Run cells, `jobs` at a time, each on its share of the GPUs and cores.

    script: path of train.py. arguments: returns the command line of a cell. gpus: names for CUDA_VISIBLE_DEVICES.
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
        """Run until all cells have ended, or until a signal; return the number of the signal, or 0.

        ended: called for each cell when its state is final.
        """
        waiting = list(waiting)
        before = {s: signal.signal(s, self.on_signal) for s in ENDING if not ignored_under_nohup(s)}
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
                        self.enforce_timeout(attempt)
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

    def on_signal(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal: after the first, cells save and end; the second kills them."""
        if number == signal.SIGHUP:
            redirect_dead_terminal()
        if self.received:
            for attempt in self.running:
                kill(attempt.process)
        self.received = number

    def gpus_for(self, cell: Cell) -> int:
        """Number of entries of `free` that a cell needs."""
        assert cell.composed
        if not self.all_gpus or cell.composed.accelerator == "cpu":
            return 0
        share = self.knobs.gpus_per_job
        if share == "auto":
            return len(self.all_gpus) if cell.composed.devices == "auto" else cell.composed.devices
        return max(1, int(share)) if share else 0

    def has_room(self, cell: Cell) -> bool:
        """True if a job and enough GPUs are free for a cell."""
        return len(self.running) < self.jobs and self.gpus_for(cell) <= len(self.free)

    def start(self, cell: Cell) -> None:
        """Start an attempt at a cell."""
        assert cell.composed
        count = self.gpus_for(cell)
        gpus, self.free = self.free[:count], self.free[count:]
        env = {name: value for name, value in os.environ.items() if name not in RANK_VARIABLES}
        if self.all_gpus:
            env["CUDA_VISIBLE_DEVICES"] = ",".join(gpus)
        threads = None
        if self.jobs > 1 and "OMP_NUM_THREADS" not in env:  # a single job has the same threads as without a sweep
            ranks = cell.composed.devices if cell.composed.devices != "auto" else max(1, count)
            threads = max(1, cores() // (self.jobs * ranks))
            env["OMP_NUM_THREADS"] = str(threads)
        with suppress(OSError):  # the cell itself reports a full disk
            cell.folder.mkdir(parents=True, exist_ok=True)
            cell.progress.unlink(missing_ok=True)
        cell.attempts += 1
        cell.state = "running"
        job = (self.script, self.arguments(cell), env, cell.log.absolute(), threads, self.knobs.grace_s)
        log_start = cell.log.stat().st_size if cell.log.exists() else 0
        process = self.context.Process(target=warm, args=("warm:run_cell", *job))
        process.start()
        self.running.append(Running(cell, process, gpus, time.monotonic(), log_start))

    def enforce_timeout(self, attempt: Running) -> None:
        """Send SIGTERM to an attempt if the sweep stops or its time is over, and kill it if it does not end."""
        now, minutes = time.monotonic(), self.knobs.timeout_min
        if attempt.signalled is None:
            if self.received:
                attempt.signalled, attempt.reason = now, "stopped"
            elif minutes is not None and now - attempt.began > 60 * minutes:
                attempt.signalled, attempt.reason = now, f"took more than hydra.launcher.timeout_min={minutes:g}"
            if attempt.signalled:
                send_signal(attempt.process, signal.SIGTERM)  # to rank 0 only: ranks agree to stop
        elif now - attempt.signalled > self.knobs.grace_s:
            kill(attempt.process)

    def end(self, attempt: Running) -> bool:
        """Store the result of an attempt that has ended; return False if the cell will be tried again."""
        cell, code = attempt.cell, attempt.process.exitcode
        kill(attempt.process)  # the rest of its process group: ranks, data workers
        attempt.process.join()
        self.running.remove(attempt)
        self.free += attempt.gpus
        cell.seconds += time.monotonic() - attempt.began
        with suppress(OSError):
            cell.progress.unlink(missing_ok=True)
        if code == 0 and cell.record.exists():
            cell.state, cell.error = "done", ""
            return True
        cell.state = "stopped" if attempt.reason == "stopped" else "failed"
        cell.error = attempt.reason or cause(code, cell.log, attempt.log_start)
        again = cell.state == "failed" and code != REFUSED and cell.attempts <= self.knobs.retries
        if again and not self.received:
            cell.state = "waiting"
            return False
        return True


def send_signal(process: BaseProcess, number: int) -> None:
    """Send a signal to a process that may have ended."""
    assert process.pid
    with suppress(ProcessLookupError):
        os.kill(process.pid, number)


def kill(process: BaseProcess) -> None:
    """Kill a process with its process group."""
    assert process.pid
    if process.exitcode is None:
        send_signal(process, signal.SIGKILL)  # the group may not exist yet
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def cause(code: int | None, log: Path, start: int) -> str:
    """Describe why an attempt failed: the signal, if any, and the last error in its log from byte `start` on.

    The message of a rank about the end of another rank counts only if there is no other message.
    """
    lines: list[str] = []
    with suppress(OSError), log.open("rb") as file:
        file.seek(start)
        text = file.read().decode(errors="replace").splitlines()
        lines = [re.sub(r"^\[rank\d+\]: ?", "", line) for line in text if line.strip()]
    errors, inside = [], False
    for line in lines:
        if line.startswith("Traceback (most recent call last)"):
            inside = True
        elif line.startswith("error: ") or (inside and not line[0].isspace()):
            errors.append(line.removeprefix("error: "))
            inside = False
    first_hand = [line for line in errors if not re.search("gloo|nccl|closed by peer|reset by peer", line.lower())]
    words = (first_hand or errors)[-1:]
    if code is not None and code < 0:
        words.insert(0, signal.Signals(-code).name)
        if code == -signal.SIGKILL and not errors:
            words.append("killed from outside, as the system does if memory runs out")
    elif code == 0:
        words = ["ended without a record"]
    elif not words:
        words = [f"exit code {code}", *lines[-1:]]
    return ": ".join(words)
