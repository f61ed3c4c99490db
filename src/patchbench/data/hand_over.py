"""Shared memory (/dev/shm on Linux) through which worker processes hand over their batches."""

import math
import os
import shutil
import sys
import traceback
from collections.abc import Iterable
from multiprocessing.queues import Queue
from pathlib import Path

from torch import Tensor
from torch.utils.data import dataloader

SHARED = Path("/dev/shm")
PREFETCH = 2  # batches that a worker has ready, the default of DataLoader
IN_USE = 2  # batches that training has received and not freed yet
MIB, GIB = 2**20, 2**30


class NoSharedMemory(ValueError):
    """Error for a batch that does not fit into shared memory.

    A worker process wraps the message in a traceback; the constructor extracts the message again.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text.rpartition(f"{NoSharedMemory.__name__}: ")[2].strip())


def share(batch: Iterable[Tensor]) -> None:
    """Move a batch to shared memory in the worker process. NoSharedMemory if it does not fit.

    The queue between the processes would drop a batch that does not fit, and training would wait forever.
    """
    try:
        for tensor in batch:
            tensor.share_memory_()
    except RuntimeError as error:
        raise NoSharedMemory(
            f"a batch of images does not fit into {SHARED} ({str(error).splitlines()[0]}): make it larger "
            "(docker run --shm-size=8g), or use fewer workers, or workers=0"
        ) from error


def exit_on_lost_batch(number: int) -> None:
    """Make a worker process exit if its queue loses a batch: training notices the exit, but not a lost batch."""

    def exit_process(queue: Queue, error: Exception, batch: object) -> None:
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        os._exit(1)

    Queue._on_queue_feeder_error = exit_process  # type: ignore[attr-defined]


def require_shared_memory(workers: int, images: int, shape: tuple[int, int, int], processes: int) -> None:
    """Raise ValueError if all batches that may wait at a time do not fit into the free shared memory.

    workers: number per training process. images: number per batch. shape: channels, height, width of an image of bytes.
    processes: number of training processes on this machine.
    """
    if not workers or not SHARED.exists():
        return
    free, batch = shutil.disk_usage(SHARED).free, images * math.prod(shape)
    waiting = processes * (workers * PREFETCH + IN_USE)
    if waiting * batch <= free:
        return
    fewer = (free // (batch * processes) - IN_USE) // PREFETCH
    size = math.ceil(1.25 * waiting * batch / GIB)
    raise ValueError(
        f"workers={workers}: up to {waiting} batches of {images} images wait in {SHARED}, {waiting * batch / MIB:,.0f} "
        f"MiB, and {free / MIB:,.0f} MiB are free there: make it larger (docker run --shm-size={size}g), or use "
        f"{f'workers={fewer} or ' * (fewer > 0)}workers=0, or a smaller batch_size, or allow_cost=true to try it"
    )


def loading_failure(error: BaseException | None) -> str | None:
    """Describe in one line that worker processes did not start or died; None if the error has another reason."""
    failure = ""
    visited: set[int] = set()
    # The failure may be the cause of another error, which Lightning or torch raised while they shut down.
    while error is not None and not failure and id(error) not in visited:  # causes may form a circle
        visited.add(id(error))
        text = str(error)
        if isinstance(error, RuntimeError) and text.startswith("DataLoader worker"):
            failure = f"a process that loads data has ended: {text.splitlines()[0]}"
        elif isinstance(error, OSError) and any(
            frame.f_code.co_filename == dataloader.__file__ for frame, _ in traceback.walk_tb(error.__traceback__)
        ):
            failure = f"the processes that load data did not start: {text}"
        error = error.__cause__ or error.__context__
    cures = f"if memory or {SHARED} ran out, use fewer workers, or workers=0"
    return f"{failure}; {cures}; repeat the command to resume from the last checkpoint" if failure else None
