"""The machine as this process may use it: cores, paths, files written whole or not at all, a pipe that is closed."""

import os
import re
import select
import signal
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

UNFINISHED = re.compile(r"\.part-\d+$")


def cores() -> int:
    """Number of cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def unfinished(path: Path) -> Path:
    """The name of a file while this process writes it."""
    return path.with_name(f"{path.name}.part-{os.getpid()}")


@contextmanager
def whole_file(path: Path, mode: str = "w") -> Iterator[Any]:
    """Open a file for writing that appears under its name only when all of it is on the disk.

    The unfinished file lies beside it, since a move from another file system is a copy, and a copy can tear. It is
    removed where writing fails.
    """
    part = unfinished(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.touch()
    except OSError as error:
        raise type(error)(error.errno, error.strerror, str(path)) from error
    try:
        with naming(path), part.open(mode, encoding=None if "b" in mode else "utf-8") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Add the path to an error of a write, which names no file."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise


def drop_unfinished(folder: Path) -> None:
    """Remove what processes that were killed have left of files that they wrote in `folder`."""
    for path in folder.glob("*.part-*"):
        if UNFINISHED.search(path.name):
            with suppress(OSError):  # a disk that is read-only; it tells of itself where something is written
                path.unlink()


def write_whole(path: Path, text: str) -> None:
    """Write a file of text, whole or not at all."""
    with whole_file(path) as file:
        file.write(text)


@contextmanager
def ending_with_its_reader() -> Iterator[None]:
    """End without a traceback, as after SIGPIPE, where nobody reads stdout any more, as in `... --help | head`."""
    try:
        try:
            yield
        finally:
            if sys.stdout:  # None where it was closed from the start
                sys.stdout.flush()
    except BrokenPipeError:
        out = select.poll()
        out.register(sys.stdout.fileno(), 0)
        if not out.poll(0):  # nothing is wrong with it: it was another pipe
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains when it exits
        raise SystemExit(141) from None


def as_text(name: str) -> str:
    """A name of a file or folder, which need not be text, as text: a byte that is no UTF-8 as \\udcb9."""
    return name.encode("utf-8", "backslashreplace").decode()


def near(path: Path) -> Path:
    """A path as a person writes it here: relative below the working directory, absolute elsewhere."""
    path, here = Path(os.path.abspath(path)), Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def hangs_on(number: int) -> bool:
    """True for SIGHUP under nohup, which the process shall go on ignoring."""
    return number == signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN


def leave_dead_terminal() -> None:
    """Write to nowhere in place of a terminal that is gone, where each write would raise OSError."""
    for output in (1, 2):
        with suppress(OSError):
            if stat.S_ISCHR(os.fstat(output).st_mode) and not os.isatty(output):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, output)
                os.close(nowhere)
