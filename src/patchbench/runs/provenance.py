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
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "torchvision", "timm", "pytorch-lightning", "hydra-core", "torchmetrics", "wandb", "numpy")
CHECKOUT = Path(__file__).parents[3]
OUTPUTS = (":!experiments/*/*.csv", ":!experiments/*/*.npz", ":!benchmarks")  # files that studies and benchmarks write
STARTED = datetime.now(UTC)


def execution() -> dict[str, Any]:
    """Return command line, start and end of this process (UTC), and the host. They stay in the record, and are never
    uploaded.
    """
    return {
        "command": [os.path.basename(sys.argv[0]), *sys.argv[1:]],
        "started": STARTED.isoformat(timespec="seconds"),
        "ended": datetime.now(UTC).isoformat(timespec="seconds"),
        "host": socket.gethostname(),
    }


def environment() -> dict[str, Any]:
    """Return the versions of the packages, the commit of the code, and the machine."""
    import torch

    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    versions = {"python": platform.python_version()} | {name: version(name) for name in PACKAGES}
    return {
        "versions": versions | {"cuda": torch.version.cuda, "driver": driver()},
        "commit": commit(),
        "machine": {"cpu": cpu_name(), "cores": os.cpu_count(), "gpus": gpus, "system": platform.platform()},
    }


def commit() -> str | None:
    """Return the commit of the git checkout of this package, or None outside of a checkout.

    The commit ends in `-dirty` if a tracked file was changed, other than OUTPUTS, or a file under src/ or conf/ is not
    tracked.
    """

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=CHECKOUT, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    try:
        modified = git("status", "--porcelain", "--untracked-files=no", "--", ".", *OUTPUTS)
        untracked = git("ls-files", "--others", "--exclude-standard", "src", "conf")
        return git("rev-parse", "HEAD") + ("-dirty" if modified or untracked else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def code(targets: Iterable[str]) -> dict[str, str]:
    """Return the digests of the modules that compute a run: the modules of `targets`, and all that they import.

    targets: dotted names of modules, classes or functions. Installed packages are left out: their versions are in
    `environment`. Comments, docstrings and imports do not count, so that a module may be moved and documented better.
    """
    digests: dict[str, str] = {}
    waiting = [module for target in targets if (module := module_of(target))]
    while waiting:
        name = waiting.pop()
        if name not in digests and (path := source_of(name)):
            digests[name], more = parsed(name, path, path.stat().st_mtime_ns)
            waiting += more
    return dict(sorted(digests.items()))


@functools.cache
def parsed(name: str, path: Path, modified: int) -> tuple[str, tuple[str, ...]]:
    """Return the digest of a module, and the modules of this project that it imports.

    modified: time of the last change of the file, in nanoseconds; part of the key of the cache.
    """
    text = path.read_text(encoding="utf-8")
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    tree = ast.parse(text)
    named = {node: imported(node, package) for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)}
    own = [node for node, modules in named.items() if modules]
    modules = tuple(module for modules in named.values() for module in modules)
    return hashlib.sha256(code_text(text, tree, own).encode()).hexdigest()[:8], modules


def changed(earlier: Mapping[str, str], current: Mapping[str, str]) -> list[str]:
    """List the modules of `current` with a digest that no module in `earlier` has, under any name."""
    return [name for name, digest in current.items() if digest not in earlier.values()]


def module_of(target: str) -> str | None:
    """Return the module in a dotted name of a class or function; None for an installed package."""
    top = target.partition(".")[0]
    if not is_own(top):
        return None
    while target and not source_of(target):
        target = target.rpartition(".")[0]
    return target or None


@functools.cache
def is_own(package: str) -> bool:
    """True for this package, and for top-level packages that are not installed, such as files of the user."""
    if package == __package__.partition(".")[0]:
        return True
    spec = importlib.util.find_spec(package) if package else None
    if spec is None:
        return False
    location: str | None = spec.origin or next(iter(spec.submodule_search_locations or ()), None)  # no __init__.py
    if location is None or location in ("built-in", "frozen"):
        return False
    installed = [sysconfig.get_path(kind) for kind in ("purelib", "platlib", "stdlib")]
    return not any(Path(location).is_relative_to(folder) for folder in installed)


def source_of(module: str) -> Path | None:
    """Return the file of a module, without importing it; None if it is not written in Python."""
    top, *inner = module.split(".")
    spec = importlib.util.find_spec(top)
    if spec is None:
        return None
    if not inner:
        return Path(spec.origin) if spec.origin and spec.origin.endswith(".py") else None
    for folder in spec.submodule_search_locations or ():
        path = Path(folder, *inner)
        for file in (path.with_suffix(".py"), path / "__init__.py"):
            if file.is_file():
                return file
    return None


def imported(node: ast.Import | ast.ImportFrom, package: str) -> list[str]:
    """List the modules of this project that an import statement names. package: package of the importing module."""
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    else:
        above = package.split(".")[: len(package.split(".")) + 1 - node.level] if node.level else []
        module = ".".join([*above, node.module] if node.module else above)
        names = [f"{module}.{alias.name}" for alias in node.names]
    return [own for name in names if (own := module_of(name))]


def code_text(text: str, tree: ast.Module, left_out: Iterable[ast.stmt]) -> str:
    """Return the text of a module without comments, docstrings, blank lines, and the statements in `left_out`."""
    lines = text.encode().splitlines()
    spans = [(node.lineno, node.col_offset, node.end_lineno, node.end_col_offset) for node in left_out]
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            column = len(token.line[: token.start[1]].encode())
            spans.append((token.start[0], column, token.start[0], len(lines[token.start[0] - 1])))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            first = node.body[0]
            spans.append((first.lineno, first.col_offset, first.end_lineno, first.end_col_offset))
    for row, column, last, end in sorted(spans, reverse=True, key=lambda span: span[:2]):
        assert last is not None
        rest = lines[last - 1][end:]
        lines[row - 1 : last] = [lines[row - 1][:column] + rest, *[b""] * (last - row)]
    return b"\n".join(line.rstrip() for line in lines if line.strip()).decode()


def driver() -> str | None:
    """Version of NVIDIA's driver, or None without one."""
    path = Path("/sys/module/nvidia/version")
    return path.read_text().strip() if path.exists() else None


def cpu_name() -> str:
    """Model of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
