"""The machine and its operating system: cores, paths, files that are written whole or not at all, broken pipes."""

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

PARTIAL = re.compile(r"\.part-\d+$")


def cores() -> int:
    """Number of cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def partial_path(path: Path) -> Path:
    """Name of a file while this process writes it."""
    return path.with_name(f"{path.name}.part-{os.getpid()}")


@contextmanager
def whole_file(path: Path, mode: str = "w") -> Iterator[Any]:
    """Open a file for writing; the file appears under its name only when all bytes are on the disk.

    The partial file lies in the same folder, since a move from another file system is a copy, and a copy can be cut
    off. The partial file is removed if writing fails.
    """
    part = partial_path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.touch()
    except OSError as error:
        raise type(error)(error.errno, error.strerror, str(path)) from error
    try:
        with path_in_errors(path), part.open(mode, encoding=None if "b" in mode else "utf-8") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def path_in_errors(path: Path) -> Iterator[None]:
    """Add the path to an OSError of a write: the system does not name the file there."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise


def remove_partial_files(folder: Path) -> None:
    """Remove the partial files that killed processes have left in `folder`."""
    for path in folder.glob("*.part-*"):
        if PARTIAL.search(path.name):
            with suppress(OSError):  # on a read-only disk the next write reports the error
                path.unlink()


def write_whole(path: Path, text: str) -> None:
    """Write a file of text, whole or not at all."""
    with whole_file(path) as file:
        file.write(text)


@contextmanager
def exit_on_broken_pipe() -> Iterator[None]:
    """Exit with code 141, as after SIGPIPE, and without a traceback when the reader of stdout has ended.

    Example: `... --help | head`.
    """
    try:
        try:
            yield
        finally:
            if sys.stdout:  # None if stdout was closed before Python started
                sys.stdout.flush()
    except BrokenPipeError:
        out = select.poll()
        out.register(sys.stdout.fileno(), 0)
        if not out.poll(0):  # stdout works: another pipe is broken
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python prints an error when it exits
        raise SystemExit(141) from None


def printable(name: str) -> str:
    """Name of a file or folder as text; a byte that is not UTF-8 is written as \\udcb9."""
    return name.encode("utf-8", "backslashreplace").decode()


def display_path(path: Path) -> Path:
    """Path for messages: relative to the working directory if it lies below, else absolute."""
    path, cwd = Path(os.path.abspath(path)), Path.cwd()
    return path.relative_to(cwd) if path.is_relative_to(cwd) else path


def ignored_under_nohup(number: int) -> bool:
    """True for SIGHUP if the process ignores it, as under nohup: then it must stay ignored."""
    return number == signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN


def redirect_dead_terminal() -> None:
    """Redirect stdout and stderr to /dev/null if their terminal is gone: each write would raise OSError."""
    for descriptor in (1, 2):
        with suppress(OSError):
            if stat.S_ISCHR(os.fstat(descriptor).st_mode) and not os.isatty(descriptor):
                devnull = os.open(os.devnull, os.O_WRONLY)
                os.dup2(devnull, descriptor)
                os.close(devnull)
