"""Training results and measurements are equal for any number of devices and any strategy."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.environments import LightningEnvironment, SLURMEnvironment
from support import ROOT, configure, cut_at, options, record, some, train_in
from timm.layers import convert_sync_batchnorm

from patchbench.commands.build import build_augment, build_source
from patchbench.commands.draft import check_run
from patchbench.commands.evaluate import evaluate
from patchbench.commands.reopen import Machine
from patchbench.config.errors import Refused
from patchbench.data.batches import Batches
from patchbench.data.order import EvalOrder
from patchbench.runs.hits import read_hits
from patchbench.track.device import peak_of
from patchbench.train.checkpoint import read_checkpoint
from patchbench.train.trainer import chosen

# 359 and 181 are odd, and no multiple of a batch
RUN = [
    *("model=micro", "data.img_size=16", "patch=4", "epochs=2", "batch_size=64", "log_every=1", "logger=csv"),
    *("data.test_size=359", "data.val_size=181", "model.num_prefix_tokens=1", "keep_checkpoints=all"),
]
TWO = ["trainer.devices=2", "trainer.accelerator=cpu"]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run"]


def environment() -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("WANDB_", "HYDRA_"))}
    return kept | {"OMP_NUM_THREADS": "1"}


def start(folder: Path, *arguments: str, by: list[str] | None = None) -> subprocess.Popen[str]:
    """Start train.py as a process with its runs in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    line = [*(by or [sys.executable]), str(ROOT / "train.py"), *arguments, "runs_dir=runs"]
    pipe = subprocess.PIPE
    return subprocess.Popen(line, cwd=folder, env=environment(), stdout=pipe, stderr=pipe, text=True)


def finish(process: subprocess.Popen[str]) -> str:
    try:
        said, complained = process.communicate(timeout=600)
    finally:
        process.kill()
    assert process.returncode == 0, complained
    return said


def metrics(folder: Path) -> pd.DataFrame:
    [path] = folder.rglob("metrics.csv")
    return pd.read_csv(path).pivot_table(index="step", columns="name", values="value", aggfunc="last")


def last(folder: Path) -> dict:
    [path] = folder.rglob("last.ckpt")
    return read_checkpoint(path)


def assert_same(folder: Path, alone: Path) -> None:
    """Check that two runs have equal steps, weights and numbers of images."""
    one, other = metrics(alone), metrics(folder)
    assert len(one) == len(other) == 2 * (1257 // 64)
    pd.testing.assert_series_equal(other["lr-AdamW"], one["lr-AdamW"], check_exact=True)
    for name in ("train/loss", "train/grad_norm"):
        assert other[name].tolist()[:10] == pytest.approx(one[name].tolist()[:10], rel=1e-5), name
    a, b = last(alone), last(folder)
    torch.testing.assert_close(b["state_dict"], a["state_dict"], rtol=1e-3, atol=1e-4)
    result, expected = record(folder)["result"], record(alone)["result"]
    assert result["test/images"] == expected["test/images"] == 359
    hits, ours = (read_hits(next(place.rglob("run.json")).parent) for place in (folder, alone))
    assert hits.asked.all()
    assert hits.right.sum() == result["test/right"]
    np.testing.assert_array_equal(hits.right, ours.right)
    for name in ("test/acc", "val/acc", "val/acc_best"):
        assert result[name] == pytest.approx(expected[name], abs=1e-7), name
    assert result["test/loss"] == pytest.approx(expected["test/loss"], rel=1e-4)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with one process and whole batches."""
    folder = tmp_path_factory.mktemp("alone")
    train_in(configure(*RUN, "trainer=cpu"), folder)
    return folder


def test_micro_batches_learn_the_same(alone, tmp_path):
    train_in(configure(*RUN, "trainer=cpu", "trainer.accumulate=2"), tmp_path)
    assert_same(tmp_path, alone)


@pytest.mark.parametrize("trainer", some(["ddp", "ddp trainer.accumulate=2", "fsdp"], "ddp"))
def test_two_devices_learn_the_same(alone, tmp_path, trainer):
    finish(start(tmp_path, *RUN, *f"trainer={trainer}".split(), *TWO))
    assert_same(tmp_path, alone)


def states(checkpoint: dict) -> dict:
    """Return the states of the optimizer by number, without those of empty parameters."""
    [optimizer] = checkpoint["optimizer_states"]
    return {i: state for i, state in optimizer["state"].items() if state["exp_avg"].numel()}


def groups(checkpoint: dict) -> list[tuple]:
    [optimizer] = checkpoint["optimizer_states"]
    return [(g["params"], g["lr"], g["initial_lr"], g["weight_decay"]) for g in optimizer["param_groups"]]


@pytest.mark.slow
@pytest.mark.parametrize("prefix", [0, 1])
def test_a_sharded_network_leaves_the_checkpoint_of_a_whole_one_and_goes_on_from_it(tmp_path, monkeypatch, prefix):
    from support import Cut, cut_at

    run = [*RUN, f"model.num_prefix_tokens={prefix}"]
    whole = tmp_path / "whole"
    train_in(configure(*run, "trainer=cpu"), whole)
    with monkeypatch.context() as patch:
        cut_at(patch, 25, "signal")
        with pytest.raises((SystemExit, Cut)):
            train_in(configure(*run, "trainer=cpu"), tmp_path / "cut")
    ckpt = tmp_path / "cut" / "last.ckpt"
    for name, arguments in {"resumed": [f"ckpt={ckpt}"], "sharded": []}.items():
        finish(start(tmp_path / name, *run, "trainer=fsdp", *TWO, *arguments))
        a, b = last(whole), last(tmp_path / name)
        torch.testing.assert_close(b["state_dict"], a["state_dict"], rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(states(b), states(a), rtol=1e-3, atol=1e-4)
        assert groups(b) == groups(a)
    assert len(metrics(tmp_path / "resumed")) < len(metrics(whole)), "it went on, and did not start anew"
    [best] = (tmp_path / "sharded").rglob("best.ckpt")
    cfg = configure("trainer=cpu")
    again = evaluate(best, Machine(cfg.trainer, 0, 0.0), cfg.eval)
    assert again["result"]["test/acc"] == record(tmp_path / "sharded")["result"]["test/acc"]


@pytest.mark.slow
def test_under_torchrun_on_one_node(alone, tmp_path):
    by = [*TORCHRUN, "--standalone", "--nproc-per-node=2"]
    said = finish(start(tmp_path, *RUN, "trainer=ddp", *TWO, by=by))
    assert said.count("images at a time") == 1, "only rank 0 speaks"
    assert_same(tmp_path, alone)


@pytest.mark.parametrize("given", [[], ["trainer=ddp", "trainer.devices=3", "trainer.accelerator=cpu"]])
def test_other_ranks_than_torchrun_started_are_refused(tmp_path, monkeypatch, given):
    """Each of the two processes would otherwise train the whole run, in the same folder."""
    started = {"RANK": 0, "LOCAL_RANK": 0, "GROUP_RANK": 0, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2}
    for name, value in {**started, "TORCHELASTIC_RUN_ID": "none"}.items():
        monkeypatch.setenv(name, str(value))
    cure = "torchrun started 2 task.s. on each of 1 node.s.: use trainer=ddp trainer.devices=2 trainer.num_nodes=1"
    with pytest.raises(Refused, match=cure):
        train_in(configure(*RUN, "trainer=cpu", *given), tmp_path)
    assert not list(tmp_path.glob("*.*"))


@pytest.mark.slow
def test_under_torchrun_on_two_nodes(alone, tmp_path):
    nodes = []
    for rank in (0, 1):
        by = [*TORCHRUN, "--nnodes=2", f"--node-rank={rank}", "--nproc-per-node=1"]
        by += ["--master-addr=127.0.0.1", "--master-port=29511"]
        two = ["trainer.num_nodes=2", "trainer.devices=1", "trainer.accelerator=cpu"]
        nodes.append(start(tmp_path, *RUN, "trainer=ddp", *two, by=by))
    said = [finish(node) for node in nodes]
    assert said[0].count("images at a time") == 1
    assert said[1] == ""
    assert_same(tmp_path, alone)


COUNTING = """
import atexit, runpy, sys
import torch.distributed
from collections import Counter
calls = Counter()
for name in ("broadcast", "barrier", "all_reduce", "all_gather_object"):
    def counted(*args, name=name, original=getattr(torch.distributed, name), **kwargs):
        calls[name] += 1
        return original(*args, **kwargs)
    setattr(torch.distributed, name, counted)
sys.argv = sys.argv[1:]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
finally:
    print("calls:", sorted(calls.items()))
"""


@pytest.mark.slow
def test_a_step_of_several_devices_has_no_messages_beside_its_gradients(tmp_path):
    counts = set()
    for batches in (4, 12):
        short = ["epochs=1", f"limit_batches={batches}", "log_every=100", "data.train_size=1000", "trainer=ddp", *TWO]
        started = start(tmp_path / str(batches), *RUN, *short, by=[sys.executable, "-c", COUNTING])
        [count] = [line for line in finish(started).splitlines() if line.startswith("calls:")]
        counts.add(count)
    assert len(counts) == 1, counts


@pytest.mark.slow
def test_nodes_of_which_one_alone_sees_the_checkpoint_refuse_to_start(tmp_path, monkeypatch):
    cut_at(monkeypatch, 3, "signal")
    with pytest.raises(SystemExit):
        train_in(configure(*RUN, "trainer=cpu"), tmp_path / "0")
    nodes = []
    for rank in (0, 1):
        by = [*TORCHRUN, "--nnodes=2", f"--node-rank={rank}", "--nproc-per-node=1"]
        by += ["--master-addr=127.0.0.1", "--master-port=29513", "--max-restarts=0"]
        two = ["trainer.num_nodes=2", "trainer.devices=1", "trainer.accelerator=cpu"]
        nodes.append(start(tmp_path, *RUN, "trainer=ddp", *two, f"hydra.run.dir={tmp_path / str(rank)}", by=by))
    for node in nodes:
        complained = node.communicate(timeout=300)[1]
        assert node.returncode != 0
        assert "start at different steps (rank 0 at step 3, rank 1 at step 0)" in complained


@pytest.mark.parametrize("world_size", [1, 2, 3, 8])
@pytest.mark.parametrize("batch_size", [1, 2, 7, 16])
def test_every_image_is_evaluated_once_and_all_ranks_take_as_many_batches(world_size, batch_size):
    for count in range(world_size, 70):
        orders = [
            EvalOrder(count, batch_size=batch_size, rank=rank, world_size=world_size, limit=None)
            for rank in range(world_size)
        ]
        seen = sorted(i for order in orders for chosen in order for i in chosen.indices)
        assert seen == list(range(count))
        assert len({len(order) for order in orders}) == 1
        sizes = [len(chosen.indices) for order in orders for chosen in order]
        assert min(sizes) >= 1
        assert max(sizes) <= max(batch_size, 2 if world_size > 1 else 1)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("trainer=ddp embed=stem", r"batch norms.*2 CPU processes.*trainer\.devices=1, or embed\.norm=layer"),
        ("trainer=ddp embed=hybrid", r"batch norms.*use trainer\.devices=1$"),
        ("trainer.timeout_s=0", r"trainer\.timeout_s=0 must be above 0, or null for no limit"),
        ("trainer=fsdp trainer.micro_batch=auto", r"trainer\.micro_batch=auto .*use trainer\.micro_batch=<images>"),
        ("trainer=ddp trainer.precision=16-mixed", r"trainer\.precision=16-mixed must be auto, 32-true or bf16-mixed"),
        ("trainer=ddp batch_size=33", r"batch_size=33 does not divide among 2 devices.*use a multiple of 2"),
    ],
)
def test_what_would_depend_on_the_devices_is_refused(tmp_path, micro, arguments, said):
    with pytest.raises(Refused, match=said):
        train_in(configure(*micro, *arguments.split(), *TWO, "logger=none"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_batch_norms_of_micro_batches_are_remarked_on(tmp_path, micro, capsys):
    knobs = ["embed=stem", "trainer=cpu", "logger=none", "epochs=1"]
    train_in(configure(*micro, *knobs, "trainer.accumulate=2"), tmp_path)
    assert "batch norms see one micro-batch at a time" in capsys.readouterr().out
    train_in(configure(*micro, *knobs, "embed.norm=layer", "trainer.accumulate=2"), tmp_path / "layer")
    assert "batch norms" not in capsys.readouterr().out


@pytest.mark.parametrize("embed", [*options("embed"), "hybrid embed.backbone=mobilenetv3_small_050 embed.out_index=2"])
def test_a_shared_batch_norm_takes_the_place_of_each_and_keeps_all_else(build, embed):
    net = build(*f"embed={embed}".split(), "model=micro", "patch=8", "data.img_size=32")
    state, images = {k: v.clone() for k, v in net.state_dict().items()}, torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        before = net.eval()(images)
        net.embed = convert_sync_batchnorm(net.embed)
        torch.testing.assert_close(net(images), before)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in net.modules())
    torch.testing.assert_close(dict(net.state_dict()), state, rtol=0, atol=0)


def test_a_peak_is_that_of_the_device_and_not_of_one_with_a_longer_name():
    peaks = {
        "NVIDIA H100 80GB HBM3": 989e12,
        "NVIDIA H100 PCIe": 756e12,
        "NVIDIA H200": 989e12,
        "NVIDIA GH200 480GB": 989e12,
        "NVIDIA A100-SXM4-80GB": 312e12,
        "NVIDIA L4": 121e12,
        "NVIDIA L40S": 362e12,
        "NVIDIA A10G": 70e12,
        "NVIDIA A10": 125e12,
        "NVIDIA RTX 6000 Ada Generation": 364.2e12,
        "NVIDIA H100 80GB HBM3 MIG 1g.10gb": None,
        "AMD Instinct MI300X": 1307e12,
        "NVIDIA GeForce RTX 4090": 165.2e12,
        "NVIDIA RTX A1000 Laptop GPU": None,
        "Tesla T4": None,
        "NVIDIA T400": None,
    }
    assert {name: peak_of(name) for name in peaks} == peaks


@pytest.mark.parametrize(("native", "precision"), [(True, "bf16-mixed"), (False, "32-true")])
def test_bf16_is_chosen_only_where_the_gpu_computes_in_it(monkeypatch, native, precision):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: including_emulation or native)
    assert chosen(on_gpu=True) == precision
    assert chosen(on_gpu=False) == "32-true"


def test_a_check_puts_nothing_on_the_device(tmp_path, micro, monkeypatch):
    resident = []
    on_device = Batches.resident_splits
    monkeypatch.setattr(Batches, "resident_splits", lambda self: resident.append(on_device(self)) or resident[-1])
    cfg = configure(*micro, "trainer=cpu")
    check_run(cfg, build_source(cfg), tmp_path)
    assert resident
    assert not any(resident)


def test_the_tasks_of_srun_have_cores_of_their_own(micro, monkeypatch):
    """Ranks that a launcher starts share the cores of the node."""
    monkeypatch.setattr("patchbench.data.batches.cores", lambda: 2)
    for name in ("NTASKS", "NTASKS_PER_NODE"):
        monkeypatch.setenv(f"SLURM_{name}", "2")
    for name in ("NODEID", "PROCID", "LOCALID"):
        monkeypatch.setenv(f"SLURM_{name}", "0")
    cfg = configure(*micro)
    source = build_source(cfg)
    workers = {}
    for ranks in (SLURMEnvironment(auto_requeue=False), LightningEnvironment()):
        shape: Any = {"batch_size": 4, "seed": 0, "workers": "auto", "limit": None, "resident_bytes": 0}
        data = Batches(source, build_augment(cfg, source), **shape)
        data.trainer = pl.Trainer(accelerator="cpu", devices=2, strategy="ddp", plugins=[ranks], logger=False)
        data.setup("")
        split = data.splits["train"]
        monkeypatch.setattr(type(split), "slow", True)
        workers[type(ranks)] = data.loader(split, data.train_order()).num_workers
    assert workers == {SLURMEnvironment: 2, LightningEnvironment: 1}


def test_memory_of_weights_is_shared_where_the_network_is(tmp_path, micro):
    from patchbench.commands.build import build_trainer
    from patchbench.commands.draft import draft

    taken = {}
    for trainer in ("ddp", "fsdp"):
        cfg = configure(*micro, f"trainer={trainer}", *TWO)
        taken[trainer] = draft(cfg).memory(build_trainer(cfg, tmp_path, [], epochs=1))
    assert taken["fsdp"].weights == taken["ddp"].weights // 2
    assert taken["fsdp"].per_image == taken["ddp"].per_image
