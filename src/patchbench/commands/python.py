"""The commands as functions for notebooks and programs, with the options of the command line."""

import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig
from torch import nn
from torchvision.transforms.functional import normalize

from patchbench.commands.build import build_net, build_source
from patchbench.commands.train import train
from patchbench.config.compose import composed, without_hydra
from patchbench.config.errors import CellFailed, Refused, refusing
from patchbench.config.mistakes import HYDRA_ERRORS, explain
from patchbench.config.names import register
from patchbench.config.origin import restored
from patchbench.machine import display_path
from patchbench.runs.record import read_record
from patchbench.train.checkpoint import read_checkpoint
from patchbench.weights.load import load
from patchbench.weights.read import net_state


def net(*overrides: str) -> nn.Module:
    """Build the network that `python train.py <overrides>` would train, with the initial weights of its seed.

    It maps images (b, c, H, W), normalised like its data, to logits (b, classes). An embedding with `fit_images` is not
    fitted. The state of torch's random numbers is left as it was. ValueError, in one line, for an impossible option or
    combination of options.
    """
    cfg = configuration(overrides)
    with in_one_line(overrides), torch.random.fork_rng(devices=[]):
        source = build_source(cfg)
        torch.manual_seed(cfg.seed)
        network = build_net(cfg, source)
        if cfg.model.get("init_from"):
            with refusing():
                load(network, cfg.model.init_from)
        return network


def trained(ckpt: str | Path, *, data_root: str | None = None) -> nn.Module:
    """Load the network of a checkpoint, in evaluation mode, on the CPU.

    Its function `normalize` maps images (b, c, H, W) of values 0 ... 1 to the inputs of the network, with the mean and
    the standard deviation of its training data.
    data_root: present folder of its data, if they were moved. FileNotFoundError if there is no such file, ValueError if
    the file was altered or is no checkpoint.
    """
    with in_one_line(()):
        checkpoint = read_checkpoint(ckpt)
        cfg = restored(checkpoint["patchbench"], data_root)
        source = build_source(cfg)
        network = build_net(cfg, source)
        network.load_state_dict(net_state(checkpoint))
        network.normalize = partial(normalize, mean=list(source.mean), std=list(source.std))  # type: ignore[assignment]
        return network.eval()


def run(*overrides: str) -> dict[str, Any]:
    """Train as `python train.py <overrides>` does, into the same folder, and return the record of run.json.

    A finished run is not repeated. ValueError if the run is impossible, RuntimeError if training fails, both in one
    line. KeyboardInterrupt after Ctrl-C, when the run is saved; the same call resumes it.
    """
    cfg = configuration(overrides, whole=True)
    out_dir = display_path(Path(cfg.hydra.run.dir))
    with in_one_line(overrides):
        try:
            train(cfg, dict(cfg.hydra.runtime.choices), out_dir)
        except SystemExit as stopped:
            if stopped.code == 128 + signal.SIGINT:
                raise KeyboardInterrupt from None
            raise
        return read_record(out_dir / "run.json")


def configuration(overrides: Sequence[str], *, whole: bool = False) -> DictConfig:
    """Compose the configuration of train.py. whole: with the key `hydra`, which names the folder of the run."""
    if not all(isinstance(override, str) for override in overrides):
        raise TypeError('options are texts, one for each argument: "embed=overlap", "pos=rope"')
    register()
    GlobalHydra.instance().clear()
    with in_one_line(overrides):
        cfg = composed(overrides)
        return cfg if whole else without_hydra(cfg)


@contextmanager
def in_one_line(overrides: Sequence[str]) -> Iterator[None]:
    """Convert the errors that a command prints: to ValueError if it cannot run, to RuntimeError if training fails."""
    try:
        yield
    except (Refused, *HYDRA_ERRORS) as error:
        raise ValueError(explain(error, overrides)) from error
    except CellFailed as error:
        raise RuntimeError(str(error)) from error
