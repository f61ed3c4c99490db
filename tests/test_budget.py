"""The cost of a training is estimated before it starts, and a batch is split into micro-batches that fit."""

import itertools
import json
import re
import tempfile
import time
from pathlib import Path

import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from hydra.utils import instantiate
from support import ROOT, configure, options, record, some, train_in
from torch.profiler import ProfilerActivity, profile

from patchbench.commands.build import build_net, build_source
from patchbench.commands.draft import draft
from patchbench.config.errors import Refused
from patchbench.layout import Layout
from patchbench.nets.memory import memory
from patchbench.nets.vit import ViT
from patchbench.track.device import free_memory
from patchbench.train.memory import accumulation

Q1_AT_224 = ["embed=overlap", "data=random", "data.img_size=224"]


def test_what_forward_keeps_is_counted_for_a_network_that_can_be_counted_by_hand():
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 5), torch.nn.GELU(), torch.nn.Linear(5, 7))
    held = memory(net, Layout((2, 2), 5, 1), 3, (2, 2), bf16=False)
    # The image, what GELU sees and what it gives, log-probabilities and their gradient, that of the logits; the label.
    assert held.per_image == 4 * (12 + 5 + 5 + 7 + 7 + 7) + 8
    assert held.weights == 16 * (12 * 5 + 5 + 5 * 7 + 7)


def test_per_image_is_what_the_literature_says(build):
    """34 bytes per value of a block's tokens in 16 bits (Korthikanti et al., 2022), less 2 dropout masks, no n * n."""
    with torch.device("meta"):
        net = build("model=base", "data=random", "patch=16")
    block_values = 196 * 768 * 12
    for bf16, expected in ((True, 36), (False, 64)):
        held = memory(net, net.layout, 3, (224, 224), bf16=bf16)
        assert 0.97 * expected < held.per_image / block_values < 1.06 * expected, "gradients of one layer come on top"
    assert held.weights == 16 * sum(p.numel() for p in net.parameters())
    assert held.bias == 0


@pytest.mark.parametrize("pos", some(options("pos"), "learned", "rope", "relbias", "alibi"))
def test_only_a_bias_costs_the_square_of_the_tokens(build, pos):
    def held(img_size: int):
        with torch.device("meta"):
            net = build(f"pos={pos}", "model=micro", "data=random", f"data.img_size={img_size}", "patch=8")
        return memory(net, net.layout, 3, (img_size, img_size), bf16=False)

    few, many = held(64), held(256)
    assert (many.bias > 0) == (pos in ("relbias", "relbias_mlp", "alibi"))
    learned_bias = pos in ("relbias", "relbias_mlp")
    assert (many.per_image > 17 * few.per_image) == learned_bias, "16 times the tokens"


def measured(arguments: str) -> tuple[int, int]:
    """Return the peak bytes of tensors in two training steps, by torch's profiler, and the estimate.

    The steps are Lightning's: gradients of a step live until the next forward is done. arguments: images, 32 or bf16,
    overrides.
    """
    images, precision, *overrides = arguments.split()
    bf16 = precision == "bf16"
    cfg = configure("patch=8", "data=random", "data.img_size=32", *overrides)
    source = build_source(cfg)
    shape, size = (int(images), 3, *source.img_size), source.img_size
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        net = build_net(cfg, source)
        optimizer = instantiate(cfg.optim.optimizer)(net.parameters())
        pixels, labels = torch.randn(shape), torch.zeros(shape[0], dtype=torch.int64)
        for _ in range(2):
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                loss = F.cross_entropy(net(pixels), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            del loss
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        profiler.export_chrome_trace(file.name)
        events = json.loads(Path(file.name).read_text())["traceEvents"]
    return peak_of_tensors(events), memory(net, net.layout, 3, size, bf16=bf16).step(shape[0])


def peak_of_tensors(events: list[dict]) -> int:
    """Return the peak of allocated bytes, without the workspace of a convolution within its backward pass."""
    kernels = [(e["ts"], e["ts"] + e["dur"]) for e in events if e["name"] == "aten::convolution_backward"]
    changes = sorted((e for e in events if e["name"] == "[memory]"), key=lambda e: e["ts"])
    sizes, since = [e["args"]["Bytes"] for e in changes], {}
    for i, e in enumerate(changes):
        address = e["args"]["Addr"]
        if sizes[i] > 0:
            since[address] = i
        elif (made := since.pop(address, None)) is not None and any(
            start <= changes[made]["ts"] and e["ts"] <= end for start, end in kernels
        ):
            sizes[made] = sizes[i] = 0
    return max(itertools.accumulate(sizes))


FEW = ["32 32 model=cnn data.img_size=64", "32 32 model=micro", "32 bf16 model=micro pos=relbias", "16 32 model=resnet"]
ALL = [f"16 32 model={model}" for model in options("model") if model != "large"]  # as base, with more blocks
ALL += [f"32 {precision} model=micro embed={embed}" for embed in options("embed") for precision in ("32", "bf16")]
ALL += [f"32 {precision} model=micro pos={pos}" for pos in options("pos") for precision in ("32", "bf16")]
ALL += ["8 32 model=small data.img_size=112", "2 32 model=micro embed=overlap data.img_size=224"]


@pytest.mark.parametrize("arguments", [*FEW, *(pytest.param(each, marks=pytest.mark.slow) for each in ALL)])
def test_the_estimate_is_what_tensors_take_at_the_peak_of_two_steps(arguments):
    taken, estimated = measured(arguments)
    assert 0.9 <= estimated / taken <= 1.2


TOO_LARGE = [
    (["model=base"], [r"12,100 tokens", r"3,72\d GMACs", r"max_gmacs=500", "212 times", "overlap_stack", "GiB"]),
    (["model=tiny"], ["739 GMACs", "max_gmacs=500", r"data\.img_size smaller than 224", "allow_cost=true"]),
    (["model=micro", "pos=relbias"], ["attention bias alone takes 1.6 GiB for each image in each layer"]),
    (["model=micro", "batch_size=1024"], [r"trainer\.micro_batch=\d+", "overlap_stack", "GiB free"]),
    (["model=large", "embed=conv", "patch=4", "batch_size=512"], ["a larger patch"]),
]


@pytest.mark.parametrize(("overrides", "said"), some(TOO_LARGE, TOO_LARGE[1], TOO_LARGE[3]), ids=" ".join)
def test_what_cannot_fit_is_refused_before_anything_is_computed(tmp_path, overrides, said):
    started = time.process_time()
    with pytest.raises(Refused) as refused:
        train_in(configure(*Q1_AT_224, *overrides, "trainer=cpu", "logger=none"), tmp_path / "run")
    assert time.process_time() - started < 20
    for words in said:
        assert re.search(words, str(refused.value)), refused.value
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "run").exists()


def test_a_cost_just_above_the_limit_is_written_with_more_digits(tmp_path, micro):
    cfg = configure(*micro, "trainer=cpu", "logger=none")
    limit = float(f"{0.999 * draft(cfg).cost.macs / 1e9:.4g}")
    with pytest.raises(Refused, match="GMACs, more than") as refused:
        train_in(configure(*micro, "trainer=cpu", "logger=none", f"max_gmacs={limit}"), tmp_path / "run")
    [(cost, shown)] = re.findall(r"take ([\d.,]+) GMACs, more than max_gmacs=(\S+) ", str(refused.value))
    assert float(cost) > float(shown) == limit


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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_run_goes_on_in_the_micro_batches_it_was_cut_off_in(tmp_path, micro, monkeypatch):
    from support import Cut, cut_at, weights

    def run(name: str, *overrides: str) -> None:
        kept = [*micro, "trainer=cpu", "logger=none", "keep_checkpoints=all"]
        train_in(configure(*kept, *overrides), tmp_path / name)

    run("whole", "trainer.accumulate=2")
    with monkeypatch.context() as patch:
        cut_at(patch, 5, "signal")
        with pytest.raises((SystemExit, Cut)):
            run("cut", "trainer.accumulate=2")
    run("cut", "trainer.micro_batch=auto")
    torch.testing.assert_close(weights(tmp_path / "whole"), weights(tmp_path / "cut"), rtol=0, atol=0)
