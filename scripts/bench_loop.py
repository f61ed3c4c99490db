"""What a step through the framework costs above a plain loop: same network, data and optimizer, one CPU thread.

python scripts/bench_loop.py model=micro data.img_size=16 patch=4      any options of train.py
"""

import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from torch import nn

from patchbench.commands.build import build_net, build_source, instantiate
from patchbench.commands.train import train
from patchbench.config.command import register
from patchbench.config.compose import CONF

ROUNDS = 3  # both in turn, so that a busy machine slows both


def plain_ms(cfg: DictConfig) -> float:
    """Median time of a step of the loop one would write by hand."""
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
    """Median time of a step as the run itself measures it: loading, step, callbacks; rows written every `log_every`."""
    with tempfile.TemporaryDirectory() as folder:
        train(cfg, {}, Path(folder))
        return json.loads(Path(folder, "run.json").read_text())["result"]["final/step_ms_median"]


def main(*overrides: str) -> None:
    torch.set_num_threads(1)
    register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("train", overrides=["trainer=cpu", "logger=csv", *overrides])
    rounds = [(plain_ms(cfg), framework_ms(cfg)) for _ in range(ROUNDS)]
    plain, framework = (min(times) for times in zip(*rounds, strict=True))
    print(
        f"\nplain loop {plain:.2f} ms a step, framework {framework:.2f} ms: +{1000 * (framework - plain):.0f} us,",
        end=" ",
    )
    print(f"ratio {framework / plain:.3f} (least of {ROUNDS} rounds)")


if __name__ == "__main__":
    main(*sys.argv[1:])
