"""Price of the guards against faults: python tests/price.py prints it; make faults appends it to benchmarks/faults.md.

All measurements use one thread. Steps with and without a guard alternate, and their medians are compared.
"""

import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from patchbench.commands.build import build_net, build_source
from patchbench.config.compose import composed
from patchbench.config.names import register
from patchbench.runs.sealed import check_seal, sealed_file
from patchbench.track.finite import FiniteSteps

STEPS = 200
OPTIONS = {
    "micro, 16 pixels, 32 images": ("model=micro", "data.img_size=16", "patch=4", "batch_size=32"),
    "ViT-Ti, 64 pixels, 16 images": ("model=tiny", "data.img_size=64", "patch=16", "batch_size=16"),
}


def step_of(net: nn.Module, images: torch.Tensor, labels: torch.Tensor, guarded: bool) -> Callable[[], None]:
    """Return a training step with gradient clipping, with or without the check of the norm."""
    optimizer, guard = torch.optim.AdamW(net.parameters(), fused=True), FiniteSteps("stop")

    def step() -> None:
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(images), labels).backward()
        norm = nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        if guarded:
            guard.watch(optimizer, norm)
        optimizer.step()

    return step


def seconds_of(act: Callable[[], object]) -> float:
    began = time.perf_counter()
    act()
    return time.perf_counter() - began


def finite_rows() -> list[str]:
    """Measure the price of `FiniteSteps`, a row for each network."""
    rows = []
    for name, options in OPTIONS.items():
        cfg = composed(["trainer=cpu", *options])
        source = build_source(cfg)
        images = torch.randn(cfg.batch_size, source.in_chans, *source.img_size)
        labels = torch.arange(cfg.batch_size) % source.num_classes
        steps = [step_of(build_net(cfg, source), images, labels, guarded) for guarded in (False, True)]
        times = [[seconds_of(step) for step in steps] for _ in range(STEPS)]
        without, guarded = (1000 * statistics.median(column) for column in zip(*times, strict=True))
        more = f"{100 * (guarded / without - 1):+.2f} %"
        rows.append(f"| a gradient that is not finite: {name} | {without:.2f} ms a step | {more} |")
    return rows


def digest_rows(gigabytes: float = 0.4) -> list[str]:
    """Measure the price of the digest, which is written with a checkpoint and checked before it is read."""
    weights = {"weight": torch.randn(int(gigabytes * 1e9 / 4))}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "last.ckpt")

        def save() -> None:
            with sealed_file(path) as file:
                torch.save(weights, file)

        plain = statistics.median(seconds_of(lambda: torch.save(weights, path)) for _ in range(5))
        sealed = statistics.median(seconds_of(save) for _ in range(5))
        check = statistics.median(seconds_of(lambda: check_seal(path)) for _ in range(5))
    return [
        f"| a digest is written with {gigabytes} GB of weights | {plain:.2f} s to save | +{sealed - plain:.2f} s |",
        f"| it is checked before they are read | | {gigabytes / check:.2f} GB/s |",
    ]


if __name__ == "__main__":
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    register()
    print("\nWhat it costs:\n\n| guard | without it | price |\n|---|---|---|")
    print("\n".join([*finite_rows(), *digest_rows()]))
