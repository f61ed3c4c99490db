"""Errors of training and of reading images, in one line."""

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
    """Describe in one line that a disk is full or cannot be written; None for other errors."""
    if not isinstance(error, OSError) or error.errno not in FULL_OR_CLOSED:
        return None
    where = error.filename or "a file of the run"
    cure = "mend that, then repeat the command to resume from the last checkpoint"
    return f"{where} cannot be written ({error.strerror}): {cure}"


@contextmanager
def loading() -> Iterator[None]:
    """Convert failures of training and of reading images to errors of one line.

    Refused for a bad image and too little shared memory. CellFailed, with its message printed, if training diverges, a
    process that loads data dies, or a file cannot be written; with HYDRA_FULL_ERROR=1 the original error instead.
    """
    try:
        with refusing(BadImage, NoSharedMemory):
            yield
    except (Refused, CellFailed):  # already converted by an inner block
        raise
    except Exception as error:
        failure = str(error) if isinstance(error, Diverged) else loading_failure(error) or how_writing_failed(error)
        if failure is None or TRACEBACK:
            raise
        if not isinstance(error, Diverged) or rank_zero_only.rank == 0:  # type: ignore[attr-defined]  # all ranks fail
            print(f"error: {failure}", file=sys.stderr)
        raise CellFailed(failure) from error
