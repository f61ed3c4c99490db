"""Provenance of a run: the code, the versions, the machine and the command that made it."""

import ast
import functools
import hashlib
import importlib.util
import io
import os
import platform
import socket
import subprocess
import sys
import sysconfig
import tokenize
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "torchvision", "timm", "pytorch-lightning", "hydra-core", "torchmetrics", "wandb", "numpy")
CHECKOUT = Path(__file__).parents[3]
STARTED = datetime.now(UTC)


def execution() -> dict[str, Any]:
    """Command line, start and end of this process (UTC), and the host; for the record alone, never sent anywhere."""
    return {
        "command": [os.path.basename(sys.argv[0]), *sys.argv[1:]],
        "started": STARTED.isoformat(timespec="seconds"),
        "ended": datetime.now(UTC).isoformat(timespec="seconds"),
        "host": socket.gethostname(),
    }


def environment() -> dict[str, Any]:
    """Versions, commit and machine."""
    import torch

    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    versions = {"python": platform.python_version()} | {name: version(name) for name in PACKAGES}
    return {
        "versions": versions | {"cuda": torch.version.cuda, "driver": driver()},
        "commit": commit(),
        "machine": {"cpu": cpu_name(), "cores": os.cpu_count(), "gpus": gpus, "system": platform.platform()},
    }


def commit() -> str | None:
    """Commit of the checkout that this package runs from, or None outside one.

    It ends in `-dirty` where a file of the checkout was changed, or one under src/ or conf/ is not tracked.
    """

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=CHECKOUT, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no")
        untracked = git("ls-files", "--others", "--exclude-standard", "src", "conf")
        return git("rev-parse", "HEAD") + ("-dirty" if changed or untracked else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def code(targets: Iterable[str]) -> dict[str, str]:
    """Digests of the modules that compute a run, by module: those of `targets`, and all that these import.

    targets: dotted names of modules, classes or functions. Packages that are installed count by their version, not
    here. Comments, docstrings and imports do not count, so that a module may move, and be explained better.
    """
    digests: dict[str, str] = {}
    waiting = [module for target in targets if (module := module_of(target))]
    while waiting:
        name = waiting.pop()
        if name not in digests and (path := source_of(name)):
            digests[name], more = parsed(path, path.stat().st_mtime_ns)
            waiting += more
    return dict(sorted(digests.items()))


@functools.cache
def parsed(path: Path, modified: int) -> tuple[str, tuple[str, ...]]:
    """Digest of a module's file, and the modules of our own that it imports; read again when it was modified."""
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    return hashlib.sha256(essence(text, tree).encode()).hexdigest()[:8], tuple(imported(tree))


def changed(then: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Modules of today whose code is none of that of then, whatever its modules were called."""
    return [name for name, digest in now.items() if digest not in then.values()]


def module_of(target: str) -> str | None:
    """The module in a dotted name of a class or function; None for a package that is installed."""
    top = target.partition(".")[0]
    if not is_own(top):
        return None
    while target and not source_of(target):
        target = target.rpartition(".")[0]
    return target or None


@functools.cache
def is_own(package: str) -> bool:
    """True for this package, and for top-level packages that lie outside of what is installed."""
    if package == __package__.partition(".")[0]:
        return True
    spec = importlib.util.find_spec(package) if package else None
    if spec is None or spec.origin is None or spec.origin in ("built-in", "frozen"):
        return False
    installed = [sysconfig.get_path(kind) for kind in ("purelib", "platlib", "stdlib")]
    return not any(Path(spec.origin).is_relative_to(folder) for folder in installed)


def source_of(module: str) -> Path | None:
    """The file of a module that is written in Python, or None; nothing is imported to find it."""
    top, *inner = module.split(".")
    spec = importlib.util.find_spec(top)
    if spec is None or not spec.origin or not spec.origin.endswith(".py"):
        return None
    if not inner:
        return Path(spec.origin)
    for folder in spec.submodule_search_locations or ():
        path = Path(folder, *inner)
        for file in (path.with_suffix(".py"), path / "__init__.py"):
            if file.is_file():
                return file
    return None


def imported(tree: ast.AST) -> Iterator[str]:
    """Modules of our own that a module imports."""
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        yield from (module for name in names if (module := module_of(name)))


def essence(text: str, tree: ast.Module) -> str:
    """The text of a module without comments, docstrings, imports and blank lines."""
    lines = text.splitlines()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            lines[row - 1] = lines[row - 1][:column]
    for node in ast.walk(tree):
        silent: ast.stmt | None = None
        if isinstance(node, ast.Import | ast.ImportFrom):
            silent = node
        elif isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            silent = node.body[0]
        if silent:
            end = silent.end_lineno or silent.lineno
            lines[silent.lineno - 1 : end] = [""] * (end - silent.lineno + 1)
    return "\n".join(line.rstrip() for line in lines if line.strip())


def driver() -> str | None:
    """Version of NVIDIA's driver, or None."""
    path = Path("/sys/module/nvidia/version")
    return path.read_text().strip() if path.exists() else None


def cpu_name() -> str:
    """Model of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
