"""Searches in place of grids: Optuna with its Hydra sweeper, and sweeps of W&B."""

import json
import os
import re
import subprocess
import sys

import pytest
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf
from support import ROOT, configure, some
from wandb.sdk.launch.sweeps.utils import create_sweep_command_args
from wandb_server import Server

from patchbench.config.errors import Refused
from patchbench.sweep.wandb_sweep import wandb_sweep


def as_run(*arguments: str, method: str = "grid") -> dict:
    """Write a sweep to YAML and read it again."""
    return yaml.safe_load(yaml.safe_dump(wandb_sweep(arguments, method=method, metric="val/acc_best", project="p")))


SWEPT = [
    "embed=conv,linear",
    "patch=4,[4,8]",
    "pos=[learned,rope],none",
    "limit_batches=null,4",
    "compile=true,false,auto",
    "seed=range(2,9,3)",
    "optim.lr=1e-5,0.5",
    "data_dir='a b',\"c,d\",e\\,f",
]


@pytest.mark.parametrize("argument", some(SWEPT, SWEPT[2], SWEPT[-1]))
def test_what_an_agent_of_wandb_runs_is_what_a_sweep_of_hydra_would(argument):
    [axis] = OverridesParser.create().parse_overrides([argument])
    key, values = axis.key_or_group, as_run(argument)["parameters"][axis.key_or_group]["values"]
    built = [create_sweep_command_args({"args": {key: {"value": value}}})["args_no_hyphens"][0] for value in values]
    expected = [f"{key}={value}" for value in axis.sweep_string_iterator()]
    for one, other in zip(built, expected, strict=True):
        plain = [OmegaConf.to_container(configure(o), throw_on_missing=False) for o in (one, other)]
        plain = [{k: v for k, v in each.items() if k != "hydra"} for each in plain]
        assert plain[0] == plain[1], (one, other)


def test_intervals_become_distributions_and_the_rest_of_the_line_stays_as_it_is():
    sweep = as_run(
        "model=micro",
        "optim.lr=tag(log,interval(1e-4,1e-2))",
        "epochs=int(interval(1,5))",
        "optim.clip_grad=interval(0.5,2)",
        method="bayes",
    )
    assert sweep["command"] == ["${env}", "${interpreter}", "${program}", "model=micro", "${args_no_hyphens}"]
    assert sweep["parameters"] == {
        "optim.lr": {"distribution": "log_uniform_values", "min": 1e-4, "max": 1e-2},
        "epochs": {"distribution": "int_uniform", "min": 1, "max": 5},
        "optim.clip_grad": {"distribution": "uniform", "min": 0.5, "max": 2.0},
    }


@pytest.mark.parametrize(
    ("arguments", "method", "said"),
    [
        (["embed=cnv,conv"], "grid", "embed/cnv"),
        (["patch=4"], "grid", "no argument has several values"),
        (["seed=1,2"], "gird", "method=gird is unknown: use grid"),
        (["optim.lr=interval(1,2)"], "grid", "cannot search optim.lr"),
        (["ptach=1,2"], "grid", "ptach"),
    ],
)
def test_what_no_agent_could_run_is_refused_at_once(arguments, method, said):
    with pytest.raises(Refused, match=re.escape(said)):
        wandb_sweep(arguments, method=method, metric="val/acc_best", project="p")


@pytest.mark.slow
def test_a_search_by_optuna_proposes_cells_and_repeats_itself(command, micro, tmp_path):
    pytest.importorskip("optuna", reason="needs the extra `optuna`")
    line = ["-m", "hydra/sweeper=search", "hydra.sweeper.n_trials=3", *micro, "epochs=1", "trainer=cpu", "logger=none"]
    line += ["optim.lr=tag(log,interval(1e-4,1e-2))", "embed=conv,linear", "pos=[learned],[learned,rope]"]
    done = command("train.py", *line)
    assert done.returncode == 0, done.stderr
    records = [json.loads(path.read_text()) for path in tmp_path.rglob("run.json")]
    assert len({r["identity"] for r in records}) == 3
    best = max(records, key=lambda r: r["result"]["val/acc_best"])["result"]["val/acc_best"]
    kept = yaml.safe_load((tmp_path / "runs" / "optimization_results.yaml").read_text())
    assert kept["best_value"] == best
    assert all(1e-4 <= r["config"]["optim"]["lr"] <= 1e-2 for r in records)
    again = command("train.py", *line)
    assert again.stdout.count("done before") == 3, again.stdout + again.stderr


@pytest.mark.slow
def test_an_agent_of_wandb_runs_the_cells_and_the_server_learns_what_came_of_them(command, micro, tmp_path):
    (tmp_path / "train.py").symlink_to(ROOT / "train.py")
    with Server() as server:
        cells = ["pos=[learned,rope]", "patch=4,[4,8]"]
        created = command("scripts/wandb_sweep.py", "--create", *micro, "epochs=1", "trainer=cpu", *cells, **server.env)
        assert created.returncode == 0, created.stderr
        said = created.stdout.splitlines()[-1]
        assert said.endswith("wandb agent patchbench/sweep")
        env = {k: v for k, v in os.environ.items() if not k.startswith("WANDB_")} | server.env
        line = [sys.executable, "-m", "wandb", "agent", "patchbench/sweep"]
        agent = subprocess.run(line, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300, check=False)
        assert agent.returncode == 0, agent.stderr
    assert server.unknown == []
    records = {str(r["factors"]["patch"]): r for r in (json.loads(p.read_text()) for p in tmp_path.rglob("run.json"))}
    assert set(records) == {"4", "[4, 8]"}
    assert len(server.runs) == 2
    for run in server.runs.values():
        assert (run["sweep"], run["exit_code"]) == ("sweep", 0)
        patch = str(yaml.safe_load(str(run["config"]["patch"])))
        assert run["summary"]["val/acc_best"] == records[patch]["result"]["val/acc_best"]
