"""Errors that come up in training and while images are read, in one line."""

import errno
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from pytorch_lightning.utilities import rank_zero_only

from patchbench.config.errors import TRACEBACK, CellFailed, Refused, refusing
from patchbench.data.hand_over import NoSharedMemory, loading_failure
from patchbench.data.pictures import BadImage
from patchbench.track.finite import Diverged

FULL_OR_CLOSED = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EIO, errno.ESTALE)


def how_writing_failed(error: Exception) -> str | None:
    """Say in one line that a disk is full or cannot be written; None for other errors."""
    if not isinstance(error, OSError) or error.errno not in FULL_OR_CLOSED:
        return None
    where = error.filename or "a file of the run"
    return f"{where} cannot be written ({error.strerror}): mend that; the same command goes on from the last checkpoint"


@contextmanager
def loading() -> Iterator[None]:
    """Refuse a bad image and too little shared memory; where training diverges or a loader dies, fail in one line."""
    try:
        with refusing(BadImage, NoSharedMemory):
            yield
    except (Refused, CellFailed):  # an inner block has said it
        raise
    except Exception as error:
        failure = str(error) if isinstance(error, Diverged) else loading_failure(error) or how_writing_failed(error)
        if failure is None or TRACEBACK:
            raise
        if not isinstance(error, Diverged) or rank_zero_only.rank == 0:  # type: ignore[attr-defined]  # all ranks notice
            print(f"error: {failure}", file=sys.stderr)
        raise CellFailed(failure) from error
