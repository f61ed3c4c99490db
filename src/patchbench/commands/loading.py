"""Errors that come up in training and while images are read, in one line."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from pytorch_lightning.utilities import rank_zero_only

from patchbench.config.errors import TRACEBACK, CellFailed, refusing
from patchbench.data.hand_over import NoSharedMemory, how_loading_failed
from patchbench.data.pictures import BadImage
from patchbench.track.finite import Diverged


@contextmanager
def loading() -> Iterator[None]:
    """Refuse a bad image and too little shared memory; where training diverges or a loader dies, fail in one line."""
    try:
        with refusing(BadImage, NoSharedMemory):
            yield
    except Exception as error:
        failure = str(error) if isinstance(error, Diverged) else how_loading_failed(error)
        if failure is None or TRACEBACK:
            raise
        if not isinstance(error, Diverged) or rank_zero_only.rank == 0:  # type: ignore[attr-defined]  # all ranks notice
            print(f"error: {failure}", file=sys.stderr)
        raise CellFailed(failure) from error
