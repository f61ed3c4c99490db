"""End a process whose training does not answer any more: a rank is stopped, a loader hangs, a disk is gone."""

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from types import FrameType

import psutil
import torch.distributed
from torch.distributed import TCPStore

from patchbench.track.wandb_process import is_stopped

TICK = 0.5  # seconds between two looks
PATIENCE = 10.0  # seconds without a batch, after a signal
SAVING = 120.0  # the same, where a checkpoint is written
ENDING = 45.0  # the same, where loggers are closed: W&B sends what is left
PLACES = {  # files in the call stack of the main thread, and what it waits for there
    "utils/data/dataloader.py": "waits for the processes that load data",
    "distributed/distributed_c10d.py": "waits for other ranks",
    "nn/parallel/distributed.py": "waits for other ranks",
    "autograd/graph.py": "computes, or waits for other ranks",
}


class Watchdog:
    """Count the time without progress in a thread of its own, and end the process when it is too long.

    A signal reaches Python's handlers only between two operations of the main thread, which may wait in one for ever.
    It reaches this thread at once. Time in which the whole process was suspended does not count.

    timeout_s: seconds without a batch, in training or evaluation, after which the process ends with code 1; None: no
    end. While a checkpoint is written it is SAVING at least. After a signal of `signals` it is PATIENCE, or SAVING, and
    the code 128 + its number. A second SIGINT ends the process at once.
    """

    def __init__(self, timeout_s: float | int | None, signals: Sequence[int]) -> None:
        self.timeout_s, self.signals = timeout_s, signals
        self.patience = PATIENCE
        self.idle = 0.0  # seconds since the last batch
        self.in_loop = False  # in training or evaluation, where `timeout_s` counts
        self.least = 0.0  # of `timeout_s`
        self.received: list[int] = []
        self.store: TCPStore | None = None

    def alive(self, *, in_loop: bool = True, patience: float = PATIENCE, least: float = 0.0) -> None:
        """Note that a batch, or a part of the run, has ended.

        in_loop: another batch follows. patience: seconds after a signal. least: of `timeout_s`, until the next note.
        """
        self.idle, self.in_loop, self.patience, self.least = 0.0, in_loop, patience, least

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch this block. Python tells of signals in its main thread alone, so elsewhere nothing is watched."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        ours, theirs = socket.socketpair()
        theirs.setblocking(False)
        over = threading.Event()
        watch = threading.Thread(target=self.watch, args=(ours, over), name="watchdog", daemon=True)
        threading.Thread(target=self.beat, args=(over,), name="heartbeat", daemon=True).start()
        before = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
        watch.start()
        try:
            yield
        finally:
            signal.set_wakeup_fd(before)
            over.set()
            with suppress(OSError):
                theirs.send(bytes(1))  # no signal: it wakes the thread
            watch.join()
            ours.close()
            theirs.close()

    def watch(self, signals: socket.socket, over: threading.Event) -> None:
        """Look at signals and at the clock until `over`."""
        signals.settimeout(TICK)
        last = time.monotonic()
        while not over.is_set():
            with suppress(TimeoutError):
                for number in signals.recv(64):
                    self.take(number)
            now = time.monotonic()
            self.idle += min(now - last, 2 * TICK)
            last = now
            if self.received and self.idle > self.patience:
                number = self.received[-1]
                name = signal.Signals(number).name
                self.end(128 + number, f"{name}, and no answer for {self.patience:.0f} s")
            elif self.timeout_s is not None and self.in_loop and self.idle > max(self.timeout_s, self.least):
                self.end(1, f"no batch has ended for {self.idle:.0f} s (trainer.timeout_s={self.timeout_s:g})")

    def take(self, number: int) -> None:
        """Note a signal; a second Ctrl-C ends the process."""
        if number not in self.signals:
            return
        if number == signal.SIGINT and number in self.received:
            end_with_children(128 + number)
        self.received.append(number)
        self.idle = 0.0

    def beat(self, over: threading.Event) -> None:
        """Let the other ranks see that the process of this one runs, until `over`."""
        count = 0
        while not over.wait(TICK):
            if self.store is None and several_ranks():
                self.store = store_of_ranks()
            if self.store is not None:
                count += 1
                with suppress(RuntimeError):  # the rank that keeps the store is gone
                    self.store.set(f"patchbench/{torch.distributed.get_rank()}", str(count))

    def silent_ranks(self) -> list[int]:
        """The ranks whose processes do not run: they let nothing be seen for a while."""
        if not several_ranks():
            return []
        store, silent = self.store, [0]  # which keeps the store: where it is stopped, questions wait for ever
        if store is None:
            return silent if torch.distributed.get_rank() else []
        keys = [f"patchbench/{rank}" for rank in range(torch.distributed.get_world_size())]

        def ask() -> None:
            with suppress(RuntimeError):
                before = [store.get(key) if store.check([key]) else b"" for key in keys]
                time.sleep(4 * TICK)
                after = [store.get(key) if store.check([key]) else b"" for key in keys]
                silent[:] = [rank for rank, (one, other) in enumerate(zip(before, after, strict=True)) if one == other]

        asking = threading.Thread(target=ask, daemon=True)
        asking.start()
        asking.join(8 * TICK)
        return silent

    def end(self, code: int, why: str) -> None:
        """Say what does not answer, and end this process and those that it started."""
        stopped = [f"process {pid} is stopped" for pid in stopped_children()]
        ranks = [f"rank {rank} does not answer" for rank in self.silent_ranks()]
        main_thread = sys._current_frames().get(threading.main_thread().ident or 0)
        what = "; ".join([*ranks, *stopped][:4]) or waits_for(main_thread)
        of = f" (seen by rank {torch.distributed.get_rank()})" if several_ranks() else ""
        line = f"error: {why}{of}: {what}; the same command goes on from the last checkpoint\n"
        with suppress(OSError):
            os.write(2, line.encode())
        end_with_children(code)


def several_ranks() -> bool:
    """True where this process is one of several ranks."""
    return torch.distributed.is_initialized() and torch.distributed.get_world_size() > 1


def store_of_ranks() -> TCPStore | None:
    """A connection of its own to the store by which the ranks have found each other; None where there is none."""
    address, port = os.environ.get("MASTER_ADDR"), os.environ.get("MASTER_PORT")
    if address and port:
        with suppress(RuntimeError, ValueError, OSError):
            return TCPStore(address, int(port), timeout=timedelta(seconds=4 * TICK), wait_for_workers=False)
    return None


def waits_for(frame: FrameType | None) -> str:
    """Describe what the main thread waits for, by the calls that it is in."""
    where = "the main thread is not there"
    if frame is not None:
        where = f"it is in {frame.f_code.co_name} ({os.path.basename(frame.f_code.co_filename)}:{frame.f_lineno})"
    while frame is not None:
        for ending, what in PLACES.items():
            if frame.f_code.co_filename.endswith(ending):
                return f"it {what}"
        frame = frame.f_back
    return where


def stopped_children() -> list[int]:
    """The processes that this one started, and that do not run."""
    return [child.pid for child in psutil.Process().children(recursive=True) if is_stopped(child)]


def end_with_children(code: int) -> None:
    """End this process at once, and the processes that it started, stopped ones too; W&B's ends by itself."""
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            if "wandb" not in child.name():
                child.kill()
    os._exit(code)


def forget_signals() -> None:
    """Leave the signals of a process that is forked from this one to itself."""
    with suppress(ValueError):
        signal.set_wakeup_fd(-1)


os.register_at_fork(after_in_child=forget_signals)
