"""One process at a time in a run's directory."""

import errno
import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def locked(folder: Path, on_wait: Callable[[], None]) -> Iterator[None]:
    """Make the folder and hold it; wait, after `on_wait()`, while another process does.

    The system lets go of it when the holder ends, however it ends. A folder that is empty at the end is taken away.
    A finished run in a folder that cannot be written is not held.
    """
    path = folder / ".lock"
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):  # the folder was taken away meanwhile
            try:
                file = os.open(path, os.O_RDWR | os.O_CREAT)
            except OSError as error:
                if error.errno in (errno.EROFS, errno.EACCES) and (folder / "run.json").exists():
                    yield  # a finished run on a disk that is read-only: nobody trains it
                    return
                raise
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                on_wait()
                fcntl.flock(file, fcntl.LOCK_EX)
            except OSError:  # a file system without locks: nobody waits
                break
            with suppress(FileNotFoundError):  # its holder removed it
                if os.path.samestat(os.fstat(file), os.stat(path)):
                    break
            os.close(file)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(file)
        with suppress(OSError):
            folder.rmdir()


def is_held(folder: Path) -> bool:
    """True if a process trains there now."""
    try:
        file = os.open(folder / ".lock", os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # a file system without locks
        return False
    finally:
        os.close(file)
    return False
