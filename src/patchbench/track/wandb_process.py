"""Time limits for calls to the process of W&B, wandb-core, so that a stopped or hanging process blocks no training.

W&B itself waits without a limit for the replies of that process, and for space in the socket to it.
"""

import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psutil

POLL_S = 0.25
STUCK_S = 60.0  # seconds beyond a limit for a process that is not stopped: it may wait for a server
STOPPED = (psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP)


class Watch:
    """Kill the process of W&B if a call to it takes too long; the call then raises, since the process has ended.

    ended: true if the process was killed.
    """

    def __init__(self) -> None:
        self.ended, self.until, self.busy_s, self.closed = False, math.inf, 0.0, threading.Event()
        threading.Thread(target=self.run, name="watch-wandb", daemon=True).start()

    @contextmanager
    def limit(self, seconds: float, busy_s: float = STUCK_S) -> Iterator[None]:
        """Limit the time of the calls in this block. busy_s: further seconds for a process that is not stopped."""
        self.busy_s, self.until = busy_s, time.monotonic() + seconds
        try:
            yield
        finally:
            self.until = math.inf

    def run(self) -> None:
        while not self.closed.wait(POLL_S):
            late = time.monotonic() - self.until
            if late > self.busy_s or (late > 0 and any(is_stopped(process) for process in processes())):
                self.ended, self.until = True, math.inf
                kill_process()

    def close(self) -> None:
        self.closed.set()


def processes() -> list[psutil.Process]:
    """List the processes of W&B that are children of this process."""
    return [child for child in psutil.Process().children() if name_of(child) == "wandb-core"]


def name_of(process: psutil.Process) -> str:
    """Name of a process; empty if it has ended."""
    with suppress(psutil.Error):
        return process.name()
    return ""


def is_stopped(process: psutil.Process) -> bool:
    """True for a process that was stopped by a signal, and waits for SIGCONT."""
    with suppress(psutil.Error):
        return process.status() in STOPPED
    return False


def kill_process() -> None:
    """Kill the process of W&B and its children, also if they are stopped."""
    killed = []
    for process in processes():
        with suppress(psutil.Error):
            killed += [*process.children(recursive=True), process]
    for process in killed:
        with suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(killed, timeout=5)
