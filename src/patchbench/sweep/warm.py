"""All imports of a cell, made once: the fork server of multiprocessing loads this module, and forks each cell.

This module calls nothing of torch, so it starts neither CUDA nor OpenMP threads, which do not work after a fork.
"""

import atexit
import importlib
import multiprocessing
import os
import pkgutil
import runpy
import signal
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import psutil
import sklearn.datasets
import sklearn.model_selection
import torch
import wandb
from hydra.core.plugins import Plugins
from wandb.sdk.data_types._private import MEDIA_TMP

import patchbench.commands.train
import patchbench.data.augment
import patchbench.data.diagnostics
import patchbench.data.sets
import patchbench.embed
import patchbench.nets
import patchbench.pos
from patchbench.config.origin import TRUNK
from patchbench.runs.provenance import code

LAZY = (wandb, sklearn.datasets, sklearn.model_selection, patchbench.commands.train)  # other modules import them late
PACKAGES = (patchbench.embed, patchbench.pos, patchbench.nets, patchbench.data.sets, patchbench.data.diagnostics)
NAMED = [  # modules that are named only in the configuration
    module.name
    for package in (*PACKAGES, patchbench.data.augment)
    for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}.")
]
for name in NAMED:
    importlib.import_module(name)
Plugins.instance()  # Hydra's search for plugins
code([*NAMED, *TRUNK])  # the digests of these modules, which the record of each cell contains


def run_cell(
    script: str, arguments: Sequence[str], env: dict[str, str], log: Path, threads: int | None, grace_s: float
) -> None:
    """Run `python script arguments` in a session of its own, with stdout and stderr appended to `log`.

    threads: number of threads of torch; None: unchanged. When the parent process exits, the cell has `grace_s` seconds
    to save its checkpoint; then it is killed with its child processes.
    """
    os.setsid()
    os.environ.clear()
    os.environ.update(env)
    with log.open("a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, exit_on_signal)  # so that `finally` blocks run before and after training
    threading.Thread(target=end_with_parent, args=(grace_s,), daemon=True).start()
    if threads:
        torch.set_num_threads(threads)
    try:
        run_as_main(script, arguments)
    finally:
        for child in psutil.Process().children(recursive=True):
            child.kill()


def run_as_main(script: str, arguments: Sequence[str]) -> None:
    """Run a script in this fork, with a fork server and a media folder of its own."""
    own_fork_server()
    own_media_folder()
    sys.argv = [script, *arguments]
    sys.path[0] = str(Path(script).parent)
    try:
        runpy.run_path(script, run_name="__main__")
    finally:
        atexit._run_exitfuncs()  # multiprocessing does not call exit functions at the end of a fork


def exit_with_parent() -> None:
    """Make a process that checks cells exit when its parent exits, and ignore SIGINT."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=end_with_parent, args=(0.0,), daemon=True).start()


def exit_on_signal(number: int, frame: FrameType | None) -> None:
    """Handle a signal: exit with 128 + its number."""
    signal.signal(number, signal.SIG_IGN)
    raise SystemExit(128 + number)


def own_fork_server() -> None:
    """Give this cell a fork server of its own, for data workers in Python 3.14, where a fork server is the default.

    With the fork server of the sweep, each data worker would import torch again, which takes seconds.
    """
    multiprocessing.set_start_method(None, force=True)
    server: Any = multiprocessing.forkserver._forkserver  # type: ignore[attr-defined]
    server.__init__()
    server.set_forkserver_preload([])


def own_media_folder() -> None:
    """Give this cell a folder of its own for media of W&B: the first cell that exits would remove a common folder."""
    MEDIA_TMP._finalizer.detach()  # type: ignore[attr-defined]
    MEDIA_TMP.__init__("wandb-media")  # type: ignore[misc]


def end_with_parent(grace_s: float) -> None:
    """Wait until the parent exits, then end this process, and kill its process group after `grace_s` seconds."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(grace_s)
    if os.getpgid(0) == os.getpid():
        os.killpg(0, signal.SIGKILL)
