"""The shared memory through which processes that load data hand over their batches: /dev/shm on Linux."""

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
PREFETCH = 2  # batches that a process has ready: DataLoader's default
TAKEN = 2  # batches that training has and has not freed
MIB, GIB = 2**20, 2**30


class NoSharedMemory(ValueError):
    """A batch that did not fit; a loader's process wraps the message into a traceback, and it is taken out again."""

    def __init__(self, text: str) -> None:
        super().__init__(text.rpartition(f"{NoSharedMemory.__name__}: ")[2].strip())


def share(batch: Iterable[Tensor]) -> None:
    """Move a batch to shared memory here, in the process that loads it. NoSharedMemory if it does not fit.

    Left to the queue between the processes, it would be dropped there, and training would wait for it forever.
    """
    try:
        for tensor in batch:
            tensor.share_memory_()
    except RuntimeError as error:
        raise NoSharedMemory(
            f"a batch of images does not fit into {SHARED} ({str(error).splitlines()[0]}): make it larger "
            "(docker run --shm-size=8g), or use fewer workers, or workers=0"
        ) from error


def end_with_lost_batches(number: int) -> None:
    """End this process, which loads data, where a batch is lost on its way: training notices the end, not the loss."""

    def end(queue: Queue, error: Exception, batch: object) -> None:
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        os._exit(1)

    Queue._on_queue_feeder_error = end  # type: ignore[attr-defined]


def refuse_small_shared_memory(workers: int, images: int, shape: tuple[int, int, int], processes: int) -> None:
    """Raise ValueError if the batches that wait at a time do not fit into the free shared memory.

    workers: of one training process. images: of a batch. shape: channels, height, width, a byte each. processes: that
    train on this machine.
    """
    if not workers or not SHARED.exists():
        return
    free, batch = shutil.disk_usage(SHARED).free, images * math.prod(shape)
    waiting = processes * (workers * PREFETCH + TAKEN)
    if waiting * batch <= free:
        return
    fewer = (free // (batch * processes) - TAKEN) // PREFETCH
    size = math.ceil(1.25 * waiting * batch / GIB)
    raise ValueError(
        f"workers={workers}: up to {waiting} batches of {images} images wait in {SHARED}, {waiting * batch / MIB:,.0f} "
        f"MiB, and {free / MIB:,.0f} MiB are free there: make it larger (docker run --shm-size={size}g), or use "
        f"{f'workers={fewer} or ' * (fewer > 0)}workers=0, or a smaller batch_size, or allow_cost=true to try it"
    )


def how_loading_failed(error: BaseException | None) -> str | None:
    """Say in one line how the processes that load data did not start, or have died; None for other errors."""
    what = ""  # what is raised may be another error, met by Lightning or torch while they end for this one
    seen: set[int] = set()
    while error is not None and not what and id(error) not in seen:  # errors may lead back to one another
        seen.add(id(error))
        text = str(error)
        if isinstance(error, RuntimeError) and text.startswith("DataLoader worker"):
            what = f"a process that loads data has ended: {text.splitlines()[0]}"
        elif isinstance(error, OSError) and any(
            frame.f_code.co_filename == dataloader.__file__ for frame, _ in traceback.walk_tb(error.__traceback__)
        ):
            what = f"the processes that load data did not start: {text}"
        error = error.__cause__ or error.__context__
    cures = f"if memory or {SHARED} ran out, use fewer workers, or workers=0"
    return f"{what}; {cures}; the same command goes on from the last checkpoint" if what else None
