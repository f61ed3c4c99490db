import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig

from patchbench.commands.build import build_net, build_source
from patchbench.config.command import register
from patchbench.config.compose import CONF
from patchbench.train.trainer import quiet

ROOT = CONF.parent
torch.set_num_threads(1)  # tests run side by side
quiet()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--regenerate", action="store_true", help="write tests/golden/ anew: see tests/test_golden.py")


def options(group: str) -> list[str]:
    """Every option of a group: a new one is tested as soon as its file exists."""
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def configure(*overrides: str, command: str = "train") -> DictConfig:
    """The configuration that `python <command>.py <overrides>` would have, with `hydra` in it."""
    register()
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose(command, overrides=list(overrides), return_hydra_config=True)


@pytest.fixture
def build() -> Callable[..., torch.nn.Module]:
    """Build the network that `python train.py <overrides>` would train."""

    def build(*overrides: str) -> torch.nn.Module:
        cfg = configure(*overrides)
        return build_net(cfg, build_source(cfg))

    return build


@pytest.fixture
def micro() -> list[str]:
    """Arguments of a run of a second: the smallest network, small images, few of them."""
    return ["model=micro", "data.img_size=16", "patch=4", "epochs=2", "batch_size=32", "limit_batches=4", "log_every=2"]


def command_in(folder: Path, script: str, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a script of this project in `folder` as a user would, logged in nowhere."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("WANDB_", "HYDRA_"))}
    home = folder / "home"
    kept |= {"OMP_NUM_THREADS": "1", "HOME": str(home), "NETRC": str(home / "netrc"), **env}
    line = [sys.executable, str(ROOT / script), *arguments]
    return subprocess.run(line, cwd=folder, env=kept, capture_output=True, text=True, timeout=300, check=False)


@pytest.fixture
def command(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """`command_in` an empty folder, with a home that all tests share."""

    home = tmp_path_factory.getbasetemp() / "home"
    home.mkdir(exist_ok=True)
    return partial(command_in, tmp_path, HOME=str(home), NETRC=str(home / "netrc"))


def record(folder: Path) -> dict:
    """The one run.json below `folder`."""
    [path] = folder.rglob("run.json")
    return json.loads(path.read_text())
