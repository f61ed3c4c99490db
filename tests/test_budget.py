"""The cost is known before it is paid, and a batch is split into what fits."""

import json
import os
import re
import subprocess
import sys
import time

import pandas as pd
import pytest
import torch
from support import ROOT, configure, options, record, train_in

from patchbench.config.errors import Refused
from patchbench.layout import Layout
from patchbench.nets.cost import memory
from patchbench.nets.vit import ViT
from patchbench.track.device import free_memory
from patchbench.train.memory import accumulation

Q1_AT_224 = ["embed=overlap", "data=random", "data.img_size=224"]


def test_what_forward_keeps_is_counted_for_a_network_that_can_be_counted_by_hand():
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 5), torch.nn.GELU(), torch.nn.Linear(5, 7))
    held = memory(net, Layout((2, 2), 5, 1), 3, (2, 2), bf16=False)
    # the image, what GELU sees and what it gives; log-probabilities and the label; the weight of the classes
    assert held.per_image == 4 * (12 + 5 + 5 + 7) + 8
    assert held.weights == 16 * (12 * 5 + 5 + 5 * 7 + 7)


def test_per_image_is_what_the_literature_says(build):
    """34 bytes per value of a block's tokens in 16 bits (Korthikanti et al., 2022), less 2 dropout masks, no n * n."""
    with torch.device("meta"):
        net = build("model=base", "data=random", "patch=16")
    block_values = 196 * 768 * 12
    for bf16, expected in ((True, 36), (False, 64)):
        held = memory(net, net.layout, 3, (224, 224), bf16=bf16)
        assert held.per_image / block_values == pytest.approx(expected, rel=0.03)
    assert held.weights == 16 * sum(p.numel() for p in net.parameters())
    assert held.bias == 0


@pytest.mark.parametrize("pos", options("pos"))
def test_only_a_bias_costs_the_square_of_the_tokens(build, pos):
    def held(img_size: int):
        with torch.device("meta"):
            net = build(f"pos={pos}", "model=micro", "data=random", f"data.img_size={img_size}", "patch=8")
        return memory(net, net.layout, 3, (img_size, img_size), bf16=False)

    few, many = held(64), held(256)
    assert (many.bias > 0) == (pos in ("relbias", "relbias_mlp", "alibi"))
    learned_bias = pos in ("relbias", "relbias_mlp")
    assert (many.per_image > 17 * few.per_image) == learned_bias, "16 times the tokens"


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [
        "16 32 model=tiny data=random",
        "16 bf16 model=tiny data=random",
        "16 32 model=tiny data=random pos=rope embed=linear",
        "8 32 model=small data=random patch=8 data.img_size=112",
        "64 32 model=micro data=random embed=overlap data.img_size=64",
        "2 32 model=micro data=random embed=overlap data.img_size=224",
    ],
)
def test_the_estimate_is_what_two_steps_take(arguments):
    line = [sys.executable, "-c", TWO_STEPS, *arguments.split()]
    # Every freed tensor goes back to the system at once: measured shall be tensors, not what the allocator hoards.
    env = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    done = subprocess.run(line, cwd=ROOT / "tests", env=env, capture_output=True, text=True, check=True)
    taken, estimated = json.loads(done.stdout)
    assert estimated == pytest.approx(taken, rel=0.2)


TWO_STEPS = """
import json, sys, psutil, torch
from support import configure
from patchbench.commands.build import build_net, build_source
from patchbench.nets.cost import memory
from patchbench.track.device import peak_resident_bytes, reset_peak_resident

images, bf16 = int(sys.argv[1]), sys.argv[2] == "bf16"

def step(net, images):
    optimizer = torch.optim.AdamW(net.parameters())
    for _ in range(2):
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            logits = net(torch.randn(images, 3, *source.img_size))
            torch.nn.functional.cross_entropy(logits, torch.zeros(images, dtype=torch.int64)).backward()
        optimizer.step()

cfg = configure("model=micro", "data.img_size=16")
source = build_source(cfg)
step(build_net(cfg, source), 1)  # libraries load, thread pools start
cfg = configure(*sys.argv[3:])
source = build_source(cfg)
before = psutil.Process().memory_info().rss
reset_peak_resident()
net = build_net(cfg, source)
step(net, images)
taken = peak_resident_bytes() - before
print(json.dumps([taken, memory(net, net.layout, 3, source.img_size, bf16=bf16).step(images)]))
"""


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["model=base"], [r"12,100 tokens", r"3,72\d GMACs", r"max_gmacs=500", "212 times", "overlap_stack", "GiB"]),
        (["model=tiny"], ["739 GMACs", "max_gmacs=500", r"data\.img_size smaller than 224", "allow_cost=true"]),
        (["model=micro", "pos=relbias"], ["attention bias alone takes 1.6 GiB for each image in each layer"]),
        (["model=micro", "batch_size=1024"], [r"trainer\.micro_batch=\d+", "overlap_stack", "GiB free"]),
        (["model=large", "embed=conv", "patch=4", "batch_size=512"], ["a larger patch"]),
    ],
    ids=" ".join,
)
def test_what_cannot_fit_is_refused_before_anything_is_computed(tmp_path, overrides, said):
    started = time.perf_counter()
    with pytest.raises(Refused) as refused:
        train_in(configure(*Q1_AT_224, *overrides, "trainer=cpu", "logger=none"), tmp_path / "run")
    assert time.perf_counter() - started < 20
    for words in said:
        assert re.search(words, str(refused.value)), refused.value
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "run").exists()


def test_allow_cost_trains_all_the_same(tmp_path, micro):
    expensive = [*micro, "max_gmacs=1e-6", "epochs=1", "logger=none", "trainer=cpu"]
    with pytest.raises(Refused, match="allow_cost=true"):
        train_in(configure(*expensive), tmp_path / "run")
    train_in(configure(*expensive, "allow_cost=true"), tmp_path / "run")
    assert (tmp_path / "run" / "run.json").exists()


def test_free_memory_is_shared_among_the_processes_of_a_machine():
    alone, shared = (free_memory(torch.device("cpu"), n) for n in (1, 4))
    assert shared == pytest.approx(alone / 4, rel=0.05)


def test_a_micro_batch_divides_what_a_device_gets():
    assert accumulation(accumulate=1, micro_batch=8, batch_size=32, world_size=2) == 2
    assert accumulation(accumulate=4, micro_batch=None, batch_size=32, world_size=2) == 4
    assert accumulation(accumulate=1, micro_batch="auto", batch_size=32, world_size=2) == 1
    with pytest.raises(ValueError, match=r"trainer\.micro_batch=5 .*use trainer\.micro_batch=1\|2\|4\|8\|16"):
        accumulation(accumulate=1, micro_batch=5, batch_size=32, world_size=2)


@pytest.mark.parametrize("micro_batch", ["0", "8 trainer.accumulate=2"])
def test_a_micro_batch_that_is_none_is_refused(tmp_path, micro, micro_batch):
    asked = f"trainer.micro_batch={micro_batch}".split()
    with pytest.raises(Refused, match=r"trainer\.micro_batch="):
        train_in(configure(*micro, *asked, "trainer=cpu", "logger=none"), tmp_path / "run")


def losses(folder) -> list[float]:
    csv = pd.read_csv(next(folder.rglob("metrics.csv")))
    return csv[csv.name.isin(["train/loss", "val/loss", "train/grad_norm"])].value.tolist()


def out_of_memory_above(most: int):
    def forward(self, images):
        real = type(images) is torch.Tensor  # on fake ones the memory is estimated
        if real and torch.is_grad_enabled() and len(images) > most:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return original(self, images)

    original = ViT.forward
    return forward


def test_a_batch_that_does_not_fit_is_halved_until_it_does_and_trains_the_same(tmp_path, micro, monkeypatch, capsys):
    def run(name: str, *overrides: str) -> list[float]:
        train_in(configure(*micro, "trainer=cpu", "logger=csv", *overrides), tmp_path / name)
        return losses(tmp_path / name)

    whole = run("whole")
    with monkeypatch.context() as patch:
        patch.setattr(ViT, "forward", out_of_memory_above(10))
        split = run("split", "trainer.micro_batch=auto")
    assert "4 micro-batches of 8 images" in capsys.readouterr().out
    assert split == pytest.approx(whole, rel=1e-4)
    assert run("asked", "trainer.micro_batch=8") == split
    with monkeypatch.context() as patch:
        patch.setattr(ViT, "forward", out_of_memory_above(0))
        with pytest.raises(torch.OutOfMemoryError, match="not one image"):
            run("none", "trainer.micro_batch=auto")


def test_ranks_agree_on_what_fits_the_smallest(micro, tmp_path, command):
    script = tmp_path / "train.py"
    script.write_text(f"""
import os, sys
sys.path.insert(0, {str(ROOT)!r}), sys.path.insert(0, {str(ROOT / "tests")!r})
import train
if __name__ == "__main__":
    from test_budget import ViT, out_of_memory_above
    if os.environ.get("LOCAL_RANK") == "1":
        ViT.forward = out_of_memory_above(4)
    train.main()
""")
    ranks = ["trainer=ddp", "trainer.devices=2", "trainer.accelerator=cpu", "trainer.micro_batch=auto"]
    two = command(str(script), *micro, *ranks, "logger=csv", "runs_dir=two", "epochs=1")
    assert two.returncode == 0, two.stderr
    assert "4 micro-batches of 4 images" in two.stdout
    one = command("train.py", *micro, "trainer=cpu", "logger=csv", "runs_dir=one", "epochs=1")
    assert one.returncode == 0, one.stderr
    assert record(tmp_path / "two")["identity"] == record(tmp_path / "one")["identity"]
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=1e-3)


def test_a_run_goes_on_in_the_micro_batches_it_was_cut_off_in(tmp_path, micro, monkeypatch):
    from support import Cut, cut_at, weights

    def run(name: str, *overrides: str) -> None:
        train_in(configure(*micro, "trainer=cpu", "logger=none", *overrides), tmp_path / name)

    run("whole", "trainer.accumulate=2")
    with monkeypatch.context() as patch:
        cut_at(patch, 5, "signal")
        with pytest.raises((SystemExit, Cut)):
            run("cut", "trainer.accumulate=2")
    run("cut", "trainer.micro_batch=auto")
    torch.testing.assert_close(weights(tmp_path / "whole"), weights(tmp_path / "cut"), rtol=0, atol=0)
