"""The time that a training step takes more than a step of a plain loop."""

import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from omegaconf import DictConfig
from torch import nn

from patchbench.commands.build import build_net, build_source, instantiate
from patchbench.commands.train import train
from patchbench.config.compose import composed
from patchbench.config.names import register

ROUNDS = 3  # of both loops in turn, so that a busy machine slows down both


def plain_ms(cfg: DictConfig) -> float:
    """Return the median time of a step in a loop as one writes it by hand."""
    source = build_source(cfg)
    split = source.splits()["train"]
    net = build_net(cfg, source)
    optimizer = instantiate(cfg.optim.optimizer)(net.parameters())
    mean, std = (torch.tensor(v).mul(255).view(1, -1, 1, 1) for v in (source.mean, source.std))
    times = []
    for _ in range(cfg.epochs):
        for batch in torch.randperm(len(split)).split(cfg.batch_size)[:-1]:
            start = time.perf_counter()
            images, labels = split.read(batch.tolist())
            loss = nn.functional.cross_entropy(net((images - mean) / std), labels, label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(net.parameters(), cfg.optim.clip_grad)
            optimizer.step()
            times.append(time.perf_counter() - start)
    return 1000 * statistics.median(times)


def framework_ms(cfg: DictConfig) -> float:
    """Return the median time of a step as the run measures it: loading, step, callbacks, and rows of metrics."""
    with tempfile.TemporaryDirectory() as folder:
        train(cfg, cfg.hydra.runtime.choices, Path(folder))
        return json.loads(Path(folder, "run.json").read_text())["result"]["final/step_ms_median"]


def bench(overrides: Sequence[str]) -> None:
    """Time both loops with one thread, and print the difference. overrides: options of train.py."""
    torch.set_num_threads(1)
    register()
    cfg = composed(["trainer=cpu", "logger=csv", *overrides])
    rounds = [(plain_ms(cfg), framework_ms(cfg)) for _ in range(ROUNDS)]
    plain, framework = (min(times) for times in zip(*rounds, strict=True))
    difference = 1000 * (framework - plain)
    print(
        f"\nplain loop {plain:.2f} ms per step, framework {framework:.2f} ms per step: {difference:+.0f} us, "
        f"ratio {framework / plain:.3f} (minimum of {ROUNDS} rounds)"
    )
