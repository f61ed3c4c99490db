"""A script in a process of its own, forked from one that has imported everything: seconds less than a cold start."""

import atexit
import os
import runpy
import signal
import sys
from collections.abc import Sequence
from pathlib import Path


def run_script(script: str, arguments: Sequence[str], env: dict[str, str], folder: str, files: Sequence[str]) -> None:
    """Do what `python script arguments` does in `folder`. files: of what it prints to stdout and to stderr."""
    os.setsid()
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(env)
    for number, path in enumerate(files, 1):
        with open(path, "w") as file:
            os.dup2(file.fileno(), number)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    from patchbench.sweep.warm import own_fork_server, own_media_folder  # in the server: imported there already

    own_fork_server()
    own_media_folder()
    sys.argv = [script, *arguments]
    sys.path[0] = str(Path(script).parent)
    try:
        runpy.run_path(script, run_name="__main__")
    finally:
        atexit._run_exitfuncs()  # multiprocessing does not call them at the end of a fork
