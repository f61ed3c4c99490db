"""Errors that come up while images are read, in one line."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from patchbench.config.errors import TRACEBACK, CellFailed, refusing
from patchbench.data.hand_over import NoSharedMemory, how_loading_failed
from patchbench.data.pictures import BadImage


@contextmanager
def loading() -> Iterator[None]:
    """Refuse a bad image and too little shared memory; where a process that loads data has died, fail in one line."""
    try:
        with refusing(BadImage, NoSharedMemory):
            yield
    except Exception as error:
        failure = how_loading_failed(error)
        if failure is None or TRACEBACK:
            raise
        print(f"error: {failure}", file=sys.stderr)
        raise CellFailed(failure) from error
