"""Cores that other processes use while this one measures."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psutil


@contextmanager
def counting() -> Iterator[list[float]]:
    """Count the cores that other processes use in this block, on average; the number is there when the block ends."""
    used: list[float] = []
    own, everyone, start = own_seconds(), busy_seconds(), time.monotonic()
    yield used
    seconds = time.monotonic() - start
    used.append(max(0.0, (busy_seconds() - everyone - (own_seconds() - own)) / seconds))


def busy_seconds() -> float:
    """Seconds that the cores of this process were busy since the start of the machine, also for other machines."""
    mine = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    times = [each for n, each in enumerate(psutil.cpu_times(percpu=True)) if n in mine]
    kinds = ("user", "nice", "system", "irq", "softirq", "steal")
    return sum(getattr(each, kind, 0.0) for each in times for kind in kinds)


def own_seconds() -> float:
    """Seconds that this process and those that it has started have computed; the dead count with their parents."""
    total = 0.0
    for process in (psutil.Process(), *psutil.Process().children(recursive=True)):
        try:
            total += sum(process.cpu_times()[:4])  # user, system, and both of the children that have ended
        except psutil.NoSuchProcess:
            continue
    return total
