"""Presets, conf/experiment/*.yaml: each is the options that it names, and those on the command line win."""

from typing import Any

import pytest
import torch
from omegaconf import DictConfig, OmegaConf
from support import CONF, configure, options

from patchbench.commands.build import build_net, build_source, check_options
from patchbench.commands.values import check_values
from patchbench.config.identity import GROUPS, compared, identity_of, leaves
from patchbench.config.kinds import spelled
from patchbench.config.options import Compared
from patchbench.sweep.check import compose_cell

PRESETS = options("experiment")
ALL = pytest.mark.parametrize("preset", PRESETS)


def parts(preset: str) -> tuple[dict[str, str], dict[str, Any]]:
    """The groups that a preset chooses, and the knobs that it sets, by path."""
    tree: Any = OmegaConf.to_container(OmegaConf.load(CONF / "experiment" / f"{preset}.yaml"))
    chosen = {key.removeprefix("override /"): option for entry in tree.pop("defaults") for key, option in entry.items()}
    return chosen, {path.lstrip("."): value for path, value in leaves(tree, "")}


def identified(cfg: DictConfig) -> str:
    return identity_of(cfg, cfg.hydra.runtime.choices)


@ALL
def test_it_makes_the_run_that_its_options_make(preset):
    chosen, knobs = parts(preset)
    typed = [f"{name}={spelled(value)}" for name, value in [*chosen.items(), *knobs.items()]]
    short, long = configure(f"experiment={preset}"), configure(*typed)
    found = [compared(cfg, cfg.hydra.runtime.choices) for cfg in (short, long)]
    assert found[0] == found[1]
    assert identified(short) == identified(long) != identified(configure())
    assert short.hydra.run.dir == long.hydra.run.dir


@ALL
def test_it_says_what_is_trained_and_nothing_of_how(preset):
    chosen, knobs = parts(preset)
    assert set(chosen) <= set(GROUPS)
    assert {path.partition(".")[0] for path in knobs} <= Compared.__dataclass_fields__.keys()


@ALL
def test_all_that_it_says_can_be_changed(preset):
    chosen, knobs = parts(preset)
    for group in chosen:
        other = options(group)[0]
        assert configure(f"experiment={preset}", f"{group}={other}").hydra.runtime.choices[group] == other
    for path in knobs:
        assert OmegaConf.select(configure(f"experiment={preset}", f"{path}=7"), path) == 7
    fast = configure(f"experiment={preset}", "trainer=fast")
    assert (fast.epochs, fast.limit_batches) == (1, 10), "what only shows that it runs"


@ALL
def test_its_values_are_checked_and_its_network_learns(preset):
    cfg = configure(f"experiment={preset}", "trainer=cpu")
    check_values(cfg)
    check_options(cfg)
    img_size = cfg.data.img_size
    cfg = configure(f"experiment={preset}", "data=random", f"data.img_size={img_size}")
    with torch.device("meta"):
        net = build_net(cfg, build_source(cfg))
        assert net(torch.empty(1, 3, img_size, img_size)).shape == (1, net.head.out_features)
    cell = compose_cell([f"experiment={preset}", "data=random", f"data.img_size={img_size}", "hydra.sweep.dir=x"], 0)
    assert not isinstance(cell, str), cell
    assert cell.origin["identity"] == identified(cfg)
