import gc
import inspect
import os
import shutil
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

# Before any module of ours: the shape checks compile anew each library that one of our modules is the first to import.
import pytorch_lightning  # noqa: F401
import timm  # noqa: F401
import torch
import torchmetrics.classification  # noqa: F401
from filelock import FileLock
from lab import tables_of_faults
from support import command_in, configure, study_runs_in

from patchbench.commands.build import build_net, build_source
from patchbench.machine import cores, write_whole
from patchbench.train.trainer import quiet

gc.freeze()  # imported modules stay: a collection, which statsmodels asks for in every call, need not go through them
torch.set_num_threads(1)  # tests run side by side
quiet()


def pytest_xdist_auto_num_workers() -> int:
    """Return one worker more than there are cores, since tests also wait for servers and time limits."""
    return min(8, cores() + 1)


def pytest_unconfigure() -> None:
    gc.unfreeze()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--regenerate", action="store_true", help="write tests/golden/ anew: see tests/test_golden.py")
    parser.addoption("--trials", type=int, default=1, help="trials of each fault in tests/test_faults.py")
    parser.addoption("--table", type=Path, help="a file for the table of these trials")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("regenerate"):
        config.option.markexpr = ""  # the slow tests write files as well


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Draw a fault so many times; its variants, which the mark of that name lists, take turns, and each is tried."""
    if "trial" not in metafunc.fixturenames:
        return
    trials = metafunc.config.getoption("trials")
    if mark := metafunc.definition.get_closest_marker("variants"):
        name, values = mark.args
        count = max(trials, len(values))
        metafunc.parametrize(("trial", name), [(n, values[n % len(values)]) for n in range(count)])
    else:
        metafunc.parametrize("trial", range(trials))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give a test that is marked `promise` a row in the table of faults: its name and the first paragraph of its
    docstring, or the two texts of the mark.
    """
    for item in items:
        if isinstance(item, pytest.Function) and (mark := item.get_closest_marker("promise")):
            name = item.function.__name__.removeprefix("test_").replace("_", " ")
            paragraph = (inspect.getdoc(item.function) or "").partition("\n\n")[0]
            fault, promise = mark.args or (name, paragraph.replace("\n", " ").rstrip("."))
            drawn = "trial" in item.fixturenames
            item.user_properties += [("fault", fault), ("promise", promise), ("drawn", drawn)]


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    if path := config.getoption("table"):
        reports = [*terminalreporter.stats.get("passed", []), *terminalreporter.stats.get("failed", [])]
        table = tables_of_faults(reports, path.read_text() if path.exists() else "")
        write_whole(path, table)
        terminalreporter.write_line(table)


@pytest.fixture
def build() -> Callable[..., torch.nn.Module]:
    """Build the network that `python train.py <overrides>` would train."""

    def build(*overrides: str) -> torch.nn.Module:
        cfg = configure(*overrides)
        return build_net(cfg, build_source(cfg))

    return build


@pytest.fixture
def micro() -> list[str]:
    """Arguments of a run that takes a second: the smallest network, and few small images."""
    return ["model=micro", "data.img_size=16", "patch=4", "epochs=2", "batch_size=32", "limit_batches=4", "log_every=2"]


@pytest.fixture
def command(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """`command_in` an empty folder, with a home that all tests share."""

    home = tmp_path_factory.getbasetemp() / "home"
    home.mkdir(exist_ok=True)
    return partial(command_in, tmp_path, HOME=str(home), NETRC=str(home / "netrc"))


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Callable[[Path], Any]], Path]:
    """Return a function that fills a folder once for the tests of all processes: `once(name, fill)`.

    Tests only read the folder, or copy it.
    """
    base = tmp_path_factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def filled(name: str, fill: Callable[[Path], Any]) -> Path:
        folder, whole = base / f"once-{name}", base / f"once-{name}.whole"
        with FileLock(base / f"once-{name}.lock"):
            if not whole.exists():
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                fill(folder)
                whole.touch()
        return folder

    return filled


@pytest.fixture(scope="session")
def study_runs(once: Callable[[str, Callable[[Path], Any]], Path]) -> Path:
    """The six runs of STUDY."""
    return once("study-runs", study_runs_in)
