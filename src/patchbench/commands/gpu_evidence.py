"""Evidence from a GPU: the list of items to measure, in their order, and the file with their results."""

import contextlib
import io
import json
import os
import re
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytorch_lightning as pl
import timm
import torch

from patchbench.commands.bench.bare import bare
from patchbench.commands.bench.evidence import Evidence, Item, measured
from patchbench.commands.bench.limits import attention, ceilings
from patchbench.commands.bench.processes import every_optimizer, run_tests, runs_in_processes
from patchbench.commands.bench.profiles import Profiled, Waits
from patchbench.commands.bench.record import device_facts
from patchbench.commands.bench.rounds import Figures
from patchbench.commands.bench.sides import Asked, inference
from patchbench.commands.bench.training import trained
from patchbench.config.names import register
from patchbench.config.options import CONF
from patchbench.runs.provenance import environment

ROOT = CONF.parent
TOKENS = (64, 65, 196, 197, 784)  # for attention: grids of 8 and 14, without and with a class token, and a grid of 28
AUGMENTS = ("none", "light", "deit", "three")
SMALL = "model=micro data=random data.img_size=32 patch=8 compile=false"
FRACTION = 0.15  # share of the GPU's memory, in which ViT-B/16 cannot train with 256 images at a time


def evidence(kind: str, folder: Path, seconds: float, earlier: Path | None = None) -> Path:
    """Measure the items for which there is time, and return the path of the file, which is written after every item.

    kind: cuda, or cpu for a rehearsal with tiny networks. seconds: time for all items, from now on. earlier: file of
    this function; items that it has are left out, except the ceilings, with which the others are compared.
    """
    measured_before = set() if earlier is None else measured(json.loads(earlier.read_text(encoding="utf-8"))["items"])
    began = time.perf_counter()
    register()
    date = datetime.now(UTC)
    facts = {
        "date": date.isoformat(timespec="seconds"),
        "rehearsal": kind == "cpu",
        "device": device_facts(torch.device(kind)),
        **environment(),
    }
    name = re.sub(r"[^a-z0-9]+", "-", facts["device"]["name"].lower()).strip("-")
    results = Evidence(folder / f"{name}-{date:%Y-%m-%d-%H%M}.json", facts, began + seconds)
    for item in rehearsed(results) if kind == "cpu" else items(results):
        if item.name not in measured_before - {"ceilings"}:
            results.add(item)
    facts["wall_s"] = time.perf_counter() - began
    results.write()
    print(f"wrote {results.path}: {len(measured(facts['items']))} of {len(facts['items'])} items")
    return results.path


def items(results: Evidence) -> Iterator[Item]:
    """Yield the items that are measured on a GPU, the most important first."""
    gpu = torch.device("cuda")
    b16, tests = vit("base"), 75.0
    yield Item("ceilings", 8, partial(ceilings, gpu))
    yield Item("attention", 8, partial(attention, gpu, 64, 12, TOKENS))
    yield Item("B/16", 35, partial(train, b16, 256, 150))
    yield Item("B/16 profiled", 10, partial(profiled, b16, 256))
    for augment in AUGMENTS:
        yield Item(f"waits, augment={augment}", 3, partial(waits, f"{SMALL} augment={augment}"))
    yield Item("B/16 residual=bfloat16", 13, partial(train, f"{b16} residual=bfloat16", 256, 40))
    yield Item("B/16 compile=false", 9, partial(train, f"{b16} compile=false", 256, 40))
    yield Item("B/16 embed=linear", 9, partial(train, f"{b16} embed=linear", 256, 40))
    yield Item("B/16 bare loop", 6, partial(alone, b16, 256, 30))
    yield Item("B/16 timm, eager", 6, partial(alone, b16, 256, 30, "vit_base_patch16_224"))
    for pos in ("rope", "relbias", "alibi"):
        yield Item(f"B/16 pos={pos}", 14, partial(train, f"{b16} pos={pos}", 256, 40))
    yield Item("Ti/16", 12, partial(train, vit("tiny"), 1024, 40))
    yield Item("S/16", 12, partial(train, vit("small"), 512, 40))
    yield Item("L/16", 20, partial(train, vit("large"), 256, 40))
    for batch in (128, 1024):  # a small network: the time of the host counts, with and without graphs
        ti4 = vit("tiny", 4, 32)
        yield Item(f"Ti/4 at 32 px, b{batch}", 9, partial(train, ti4, batch, 60))
        yield Item(f"Ti/4 at 32 px, b{batch}, no graphs", 5, partial(train, f"{ti4} cuda_graphs=false", batch, 60))
    ti5x5 = f"{vit('tiny')} embed=overlap max_gmacs=1000"
    yield Item("Ti, 5x5 stride 2, 224 px", 17, partial(train, ti5x5, 64, 6))
    yield Item("B/16 inference", 10, partial(answers, b16, 256, 40))
    yield Item("processes", 45, partial(in_processes, runs_in_processes, "cuda", 45.0))
    yield Item("optimizers", 45, partial(in_processes, every_optimizer, "cuda", 45.0))
    yield Item("B/16 in little memory", 15, partial(in_little_memory, b16, 256, FRACTION))
    yield Item("tests", tests, lambda: run_tests(ROOT, "cuda", max(1.0, results.left() - 5)))


def rehearsed(results: Evidence) -> Iterator[Item]:
    """Yield the same kinds of items with tiny networks on a CPU, to test that each runs; their figures mean nothing."""
    cpu = torch.device("cpu")
    tiny = "model=micro data=random data.img_size=32 patch=8 trainer=cpu"
    yield Item("ceilings", 8, partial(ceilings, cpu, 32))
    yield Item("attention", 8, partial(attention, cpu, 2, 12, TOKENS[:1]))
    yield Item("B/16", 30, partial(train, tiny, 16, 12))
    yield Item("B/16 profiled", 10, partial(profiled, tiny, 16))
    yield Item("waits, augment=light", 3, partial(waits, f"{SMALL} augment=light trainer=cpu"))
    yield Item("B/16 bare loop", 6, partial(alone, tiny, 16, 3))
    yield Item("B/16 timm, eager", 6, partial(alone, tiny, 16, 3, "test_vit"))
    yield Item("B/16 inference", 10, partial(answers, tiny, 16, 3))
    yield Item("processes", 45, partial(in_processes, runs_in_processes, "cpu", 45.0))
    yield Item("optimizers", 45, partial(in_processes, every_optimizer, "cpu", 60.0))
    yield Item("B/16 in little memory", 15, partial(in_little_memory, tiny, 16, None))
    yield Item("tests", 50, lambda: run_tests(ROOT, "cpu", min(75.0, results.left() - 5)))


def vit(model: str, patch: int = 16, img_size: int = 224) -> str:
    """Return options of a Vision Transformer with random images of a thousand classes."""
    return f"model={model} data=random data.img_size={img_size} data.num_classes=1000 patch={patch}"


def random_images(arguments: str, batch_size: int, steps: int, every: int = 10) -> list[str]:
    """Return options of train.py for random images, in epochs that are not short. every: log_every."""
    per_epoch = min(steps, max(5, 2560 // batch_size))
    return [
        *arguments.split(),
        f"batch_size={batch_size}",
        f"data.train_size={per_epoch * batch_size}",
        f"data.eval_size={min(batch_size, 64)}",
        f"log_every={every}",
        "logger=none",
    ]


def train(arguments: str, batch_size: int, steps: int) -> Figures:
    """Measure training as train.py does it."""
    figures = trained(random_images(arguments, batch_size, steps), steps=steps, warmup=5)
    return {"arguments": arguments} | figures


def alone(arguments: str, batch_size: int, steps: int, peer: str | None = None) -> Figures:
    """Measure a training loop written by hand, with our network, or with the network `peer` of timm."""
    net = None if peer is None else timm.create_model(peer, num_classes=1000)
    return bare(random_images(arguments, batch_size, steps), steps=steps, warmup=3, net=net)


def answers(arguments: str, batch_size: int, steps: int) -> Figures:
    """Measure inference: throughput of batches, and latency of one image."""
    side = inference(Asked(None, random_images(arguments, batch_size, steps)), None, steps, 5, several=False)
    return {"arguments": arguments} | side.measure()


def profiled(arguments: str, batch_size: int) -> Figures:
    """Return the times of the kernels of a training step, and the numbers of its CUDA calls, see `Profiled`."""
    look = Profiled(first=8, steps=6)
    trained(random_images(arguments, batch_size, 20, every=50), steps=15, warmup=5, callbacks=[look])
    return look.figures


def waits(arguments: str) -> Figures:
    """Train with a progress bar; count the waits for the device in ten steps of the second epoch, by place in code."""
    before = os.environ.get("FORCE_COLOR")
    os.environ["FORCE_COLOR"] = "1"
    look = Waits(range(28, 38))
    callbacks: Sequence[pl.Callback] = [look]
    try:
        with contextlib.redirect_stderr(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("always")
            images = random_images(arguments, 128, 60, every=1000)
            trained(images, steps=55, warmup=5, callbacks=callbacks, bar=True)
    finally:
        os.environ.pop("FORCE_COLOR")
        if before is not None:
            os.environ["FORCE_COLOR"] = before
    return {"waits_per_step": look.places.total() / len(look.steps), "places": dict(look.places.most_common(10))}


def in_little_memory(arguments: str, batch_size: int, fraction: float | None) -> Figures:
    """Train with trainer.micro_batch=auto in a part of the GPU's memory. fraction: the part; None on a CPU."""
    images = random_images(f"{arguments} trainer.micro_batch=auto", batch_size, 10)
    if fraction is not None:
        torch.cuda.empty_cache()
        torch.cuda.set_per_process_memory_fraction(fraction)
    try:
        return {"memory_fraction": fraction} | trained(images, steps=5, warmup=5)
    finally:
        if fraction is not None:
            torch.cuda.set_per_process_memory_fraction(1.0)


def in_processes(runs: Callable[[Path, str, str, float], Figures], kind: str, seconds: float) -> Figures:
    """Run trainings as processes, in a folder that is removed; return exit codes and outputs."""
    with tempfile.TemporaryDirectory() as folder:
        return runs(ROOT, folder, kind, seconds)
