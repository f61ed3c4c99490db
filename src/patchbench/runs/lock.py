"""A lock on the folder of a run, so that one process at a time trains there."""

import errno
import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def locked(folder: Path, on_wait: Callable[[], None]) -> Iterator[None]:
    """Make the folder and lock it. If another process holds the lock, call `on_wait()` and wait.

    The system releases the lock when the process ends, however it ends. A folder that is empty at the end is removed.
    The folder of a finished run is not locked if it is read-only.
    """
    path = folder / ".lock"
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):  # another process has removed the folder meanwhile
            try:
                file = os.open(path, os.O_RDWR | os.O_CREAT)
            except OSError as error:
                if error.errno in (errno.EROFS, errno.EACCES) and (folder / "run.json").exists():
                    yield  # a finished run on a read-only disk: nobody can train it
                    return
                raise
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                on_wait()
                fcntl.flock(file, fcntl.LOCK_EX)
            except OSError:  # a file system without locks: nobody waits
                break
            with suppress(FileNotFoundError):  # the process that held the lock has removed the file
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


def is_locked(folder: Path) -> bool:
    """True if a process holds the lock of a folder now."""
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
