"""The process of W&B, wandb-core, and an end to waiting for it: stopped or stuck, it holds up no training.

W&B itself waits without a limit, for the replies of that process and for room in the socket to it.
"""

import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psutil

POLL_S = 0.25


class Watch:
    """Kills the process of W&B where a call to it takes too long; the call then raises, as that process has ended.

    ended: true when that has happened.
    """

    def __init__(self) -> None:
        self.ended, self.until, self.over = False, math.inf, threading.Event()
        threading.Thread(target=self.run, name="watch-wandb", daemon=True).start()

    @contextmanager
    def limit(self, seconds: float) -> Iterator[None]:
        """Limit the time of the calls in this block."""
        self.until = time.monotonic() + seconds
        try:
            yield
        finally:
            self.until = math.inf

    def run(self) -> None:
        while not self.over.wait(POLL_S):
            if time.monotonic() > self.until:
                self.ended, self.until = True, math.inf
                kill_process()

    def close(self) -> None:
        self.over.set()


def kill_process() -> None:
    """Kill wandb-core, a child of this process, and what it has started; also where it is stopped."""
    killed = []
    for child in psutil.Process().children():
        with suppress(psutil.Error):
            if child.name() == "wandb-core":
                killed += [*child.children(recursive=True), child]
    for process in killed:
        with suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(killed, timeout=5)
