"""Cores that other processes use during a measurement."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psutil


@contextmanager
def count_busy_cores() -> Iterator[list[float]]:
    """Yield a list to which the end of the block appends the mean number of cores that other processes have used."""
    used: list[float] = []
    own, everyone, start = own_seconds(), busy_seconds(), time.monotonic()
    yield used
    seconds = time.monotonic() - start
    used.append(max(0.0, (busy_seconds() - everyone - (own_seconds() - own)) / seconds))


def busy_seconds() -> float:
    """Count the seconds in which the cores of this process were busy since the machine started, also for other ones."""
    own = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    times = [each for n, each in enumerate(psutil.cpu_times(percpu=True)) if n in own]
    kinds = ("user", "nice", "system", "irq", "softirq", "steal")
    return sum(getattr(each, kind, 0.0) for each in times for kind in kinds)


def own_seconds() -> float:
    """Add the CPU seconds of this process and its child processes; ended children are included in their parents."""
    total = 0.0
    for process in (psutil.Process(), *psutil.Process().children(recursive=True)):
        try:
            total += sum(process.cpu_times()[:4])  # user, system, and both of ended children
        except psutil.NoSuchProcess:
            continue
    return total
