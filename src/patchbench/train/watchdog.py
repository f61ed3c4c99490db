"""A watchdog that ends a process when training hangs: a rank is stopped, a data worker hangs, a disk is gone."""

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

TICK = 0.5  # seconds between two checks
PATIENCE = 10.0  # seconds without a batch, after a signal
SAVING = 120.0  # the same while a checkpoint is written
ENDING = 45.0  # the same while loggers are closed: W&B uploads the rest
WAITS = {  # files in the call stack of the main thread: what the thread waits for in them
    "utils/data/dataloader.py": "waits for the processes that load data",
    "distributed/distributed_c10d.py": "waits for other ranks",
    "nn/parallel/distributed.py": "waits for other ranks",
    "autograd/graph.py": "computes, or waits for other ranks",
}


class Watchdog:
    """Measure the time without progress in a thread of its own, and end the process if it is too long.

    Python calls a signal handler only between two operations of the main thread, and the main thread may hang in one
    operation. This thread receives a signal at once. The time in which the whole process was suspended does not count.

    timeout_s: seconds without a batch, in training or evaluation, after which the process ends with code 1; None: no
    limit. While a checkpoint is written, the limit is SAVING at least. After a signal of `signals` the limit is
    PATIENCE, or SAVING, and the code is 128 + the number of the signal. A second SIGINT ends the process at once.
    """

    def __init__(self, timeout_s: float | int | None, signals: Sequence[int]) -> None:
        self.timeout_s, self.signals = timeout_s, signals
        self.patience = PATIENCE
        self.idle = 0.0  # seconds since the last batch
        self.in_loop = False  # true in training or evaluation, where `timeout_s` counts
        self.min_timeout = 0.0  # least value of `timeout_s` for now
        self.received: list[int] = []
        self.store: TCPStore | None = None

    def note_progress(self, *, in_loop: bool = True, patience: float = PATIENCE, min_timeout: float = 0.0) -> None:
        """Reset the time without progress, since a batch, or a part of the run, has ended.

        in_loop: true if another batch follows. patience: limit in seconds after a signal. min_timeout: least value of
        `timeout_s`. All three count until the next call.
        """
        self.idle, self.in_loop, self.patience, self.min_timeout = 0.0, in_loop, patience, min_timeout

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch this block. Outside of the main thread nothing is watched, since Python receives no signals there."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        receiver, sender = socket.socketpair()
        sender.setblocking(False)
        stopped = threading.Event()
        watch = threading.Thread(target=self.watch, args=(receiver, stopped), name="watchdog", daemon=True)
        threading.Thread(target=self.send_heartbeats, args=(stopped,), name="heartbeat", daemon=True).start()
        before = signal.set_wakeup_fd(sender.fileno(), warn_on_full_buffer=False)
        watch.start()
        try:
            yield
        finally:
            signal.set_wakeup_fd(before)
            stopped.set()
            with suppress(OSError):
                sender.send(bytes(1))  # signal number 0, which only wakes the thread
            watch.join()
            receiver.close()
            sender.close()

    def watch(self, signals: socket.socket, stopped: threading.Event) -> None:
        """Check signals and the clock until `stopped` is set. signals: socket from which signal numbers are read."""
        signals.settimeout(TICK)
        last = time.monotonic()
        while not stopped.is_set():
            with suppress(TimeoutError):
                for number in signals.recv(64):
                    self.on_signal(number)
            now = time.monotonic()
            self.idle += min(now - last, 2 * TICK)
            last = now
            if self.received and self.idle > self.patience:
                number = self.received[-1]
                name = signal.Signals(number).name
                self.end_process(128 + number, f"{name}, and no answer for {self.patience:.0f} s")
            elif self.timeout_s is not None and self.in_loop and self.idle > max(self.timeout_s, self.min_timeout):
                self.end_process(1, f"no batch has ended for {self.idle:.0f} s (trainer.timeout_s={self.timeout_s:g})")

    def on_signal(self, number: int) -> None:
        """Store a signal; a second Ctrl-C ends the process."""
        if number not in self.signals:
            return
        if number == signal.SIGINT and number in self.received:
            end_with_children(128 + number)
        self.received.append(number)
        self.idle = 0.0

    def send_heartbeats(self, stopped: threading.Event) -> None:
        """Write a counter to the store of the ranks until `stopped` is set, to show that this process runs."""
        count = 0
        while not stopped.wait(TICK):
            if self.store is None and several_ranks():
                self.store = store_of_ranks()
            if self.store is not None:
                count += 1
                with suppress(RuntimeError):  # the rank with the store has ended
                    self.store.set(f"patchbench/{torch.distributed.get_rank()}", str(count))

    def silent_ranks(self) -> list[int]:
        """List the ranks with heartbeat counters that do not change."""
        if not several_ranks():
            return []
        store, silent = self.store, [0]  # rank 0 has the store: if it is stopped, a request to the store never returns
        if store is None:
            return silent if torch.distributed.get_rank() else []
        keys = [f"patchbench/{rank}" for rank in range(torch.distributed.get_world_size())]

        def probe() -> None:
            with suppress(RuntimeError):
                before = [store.get(key) if store.check([key]) else b"" for key in keys]
                time.sleep(4 * TICK)
                after = [store.get(key) if store.check([key]) else b"" for key in keys]
                silent[:] = [rank for rank, (one, other) in enumerate(zip(before, after, strict=True)) if one == other]

        thread = threading.Thread(target=probe, daemon=True)
        thread.start()
        thread.join(8 * TICK)
        return silent

    def end_process(self, code: int, why: str) -> None:
        """Print the rank or process that does not answer, and end this process and its children.

        code: exit code. why: the reason, in words.
        """
        stopped = [f"process {pid} is stopped" for pid in stopped_children()]
        ranks = [f"rank {rank} does not answer" for rank in self.silent_ranks()]
        main_thread = sys._current_frames().get(threading.main_thread().ident or 0)
        what = "; ".join([*ranks, *stopped][:4]) or describe_wait(main_thread)
        seen_by = f" (seen by rank {torch.distributed.get_rank()})" if several_ranks() else ""
        line = f"error: {why}{seen_by}: {what}; repeat the command to resume from the last checkpoint\n"
        with suppress(OSError):
            os.write(2, line.encode())
        end_with_children(code)


def several_ranks() -> bool:
    """True if this process is one of several ranks."""
    return torch.distributed.is_initialized() and torch.distributed.get_world_size() > 1


def store_of_ranks() -> TCPStore | None:
    """Connect to the store with which the ranks were initialised; None if there is none."""
    address, port = os.environ.get("MASTER_ADDR"), os.environ.get("MASTER_PORT")
    if address and port:
        with suppress(RuntimeError, ValueError, OSError):
            return TCPStore(address, int(port), timeout=timedelta(seconds=4 * TICK), wait_for_workers=False)
    return None


def describe_wait(frame: FrameType | None) -> str:
    """Describe what the main thread waits for, by its call stack."""
    where = "the main thread is not there"
    if frame is not None:
        where = f"it is in {frame.f_code.co_name} ({os.path.basename(frame.f_code.co_filename)}:{frame.f_lineno})"
    while frame is not None:
        for ending, what in WAITS.items():
            if frame.f_code.co_filename.endswith(ending):
                return f"it {what}"
        frame = frame.f_back
    return where


def stopped_children() -> list[int]:
    """List the ids of the child processes that are stopped."""
    return [child.pid for child in psutil.Process().children(recursive=True) if is_stopped(child)]


def end_with_children(code: int) -> None:
    """End this process and its children at once, also stopped ones; the process of W&B ends by itself."""
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            if "wandb" not in child.name():
                child.kill()
    os._exit(code)


def reset_wakeup_fd() -> None:
    """Remove the wakeup file descriptor in a forked process: its signals are not for this watchdog."""
    with suppress(ValueError):
        signal.set_wakeup_fd(-1)


os.register_at_fork(after_in_child=reset_wakeup_fd)
