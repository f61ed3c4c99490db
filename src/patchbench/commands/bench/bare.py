"""Bare training loop, without the framework, to measure what the framework adds to a step."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from hydra.utils import instantiate
from omegaconf import DictConfig
from torch import Tensor, nn
from torch.utils.data import DataLoader, Sampler

from patchbench.commands.bench.rounds import Figures
from patchbench.commands.bench.training import per_step, step_times, timed_steps, training
from patchbench.commands.build import build_net, build_source, build_trainer, compile_blocks, compiles
from patchbench.data.batches import Reader
from patchbench.data.order import BatchIndices
from patchbench.data.source import InMemory, Source, Split, TensorSplit
from patchbench.machine import cores
from patchbench.track.device import GIB


class Shuffled(Sampler[BatchIndices]):
    """Sampler of the batches of an epoch, in random order. An incomplete last batch is left out."""

    def __init__(self, count: int, batch_size: int) -> None:
        self.count, self.batch_size = count, batch_size

    def __iter__(self) -> Iterator[BatchIndices]:
        for part in torch.randperm(self.count).split(self.batch_size):
            if len(part) == self.batch_size:
                yield BatchIndices(part.tolist())


@dataclass(frozen=True)
class Plain:
    """Parts of a training with nothing beside it: network and optimizer, on one device, and batches without end."""

    cfg: DictConfig
    device: torch.device
    precision: str
    net: nn.Module
    optimizer: torch.optim.Optimizer
    batches: Iterator[tuple[Tensor, Tensor]]
    levels: tuple[Tensor, Tensor]

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return the cross-entropy with label smoothing. images: b c H W, values 0 ... 255."""
        mean, std = self.levels
        smoothing = self.cfg.optim.label_smoothing
        return F.cross_entropy(self.net((images - mean) / std), labels, label_smoothing=smoothing)

    def figures(self, times: Sequence[float], wall: float, cpu: float) -> Figures:
        """Return the figures of steps. times: seconds of each step. wall, cpu: seconds of all steps."""
        figures = step_times(times, self.cfg.batch_size)
        if self.device.type == "cuda":
            figures["gpu_peak_allocated_gib"] = torch.cuda.max_memory_allocated(self.device) / GIB
        return figures | per_step(wall, cpu, len(times), self.cfg.batch_size)


def plain(overrides: Sequence[str], steps: int, net: nn.Module | None = None) -> Plain:
    """Build the parts of a training. ValueError for a configuration with augmentation or with micro-batches.

    Precision, compilation and the number of processes that read are those of train.py.
    overrides: options of train.py. net: a network that is trained instead of the network of the options, as it is, on
    the same data.
    """
    cfg = training(overrides, steps)
    check_plain(cfg)
    trainer = build_trainer(cfg, Path(), [], epochs=1)
    device = trainer.strategy.root_device
    source = build_source(cfg)
    split = source.splits()["train"]
    torch.manual_seed(cfg.seed)
    if net is None:
        net = build_net(cfg, source)
        fit_embedding(net, source, split)
        if compiles(cfg, trainer):
            compile_blocks(net)
    net = net.to(device).train()
    optimizer = instantiate(cfg.optim.optimizer)(net.parameters())
    batches = endless(split, cfg.batch_size, cfg.workers, device)
    return Plain(cfg, device, str(trainer.precision), net, optimizer, batches, levels(source, device))


def bare(overrides: Sequence[str], *, steps: int, warmup: int, net: nn.Module | None = None) -> Figures:
    """Train for `warmup` + `steps` steps; return the figures of the last `steps` steps.

    A step reads a batch, normalises it, computes loss and gradient, clips the gradient and calls the optimizer. There
    is no augmentation, no schedule, no accuracy, no log, no check.
    overrides, net: see `plain`.
    """
    parts = plain(overrides, warmup + steps, net)
    optimizer, parameters = parts.optimizer, list(parts.net.parameters())
    clip, bf16 = parts.cfg.optim.clip_grad, "bf16" in parts.precision

    def step() -> None:
        images, labels = next(parts.batches)
        with torch.autocast(parts.device.type, torch.bfloat16, enabled=bf16):
            loss = parts.loss(images, labels)
        optimizer.zero_grad()
        loss.backward()
        if clip is not None:
            nn.utils.clip_grad_norm_(parameters, clip)
        optimizer.step()

    return parts.figures(*timed_steps(step, steps, warmup, parts.device))


def check_plain(cfg: DictConfig) -> None:
    """Raise ValueError for a configuration with augmentation or with micro-batches: these peers have neither."""
    if cfg.hydra.runtime.choices.augment != "none":
        raise ValueError(
            f"augment={cfg.hydra.runtime.choices.augment}: this peer augments nothing, so it is measured with "
            "augment=none"
        )
    if cfg.trainer.accumulate != 1 or cfg.trainer.micro_batch is not None:
        raise ValueError(
            f"trainer.accumulate={cfg.trainer.accumulate} trainer.micro_batch={cfg.trainer.micro_batch}: this "
            "peer takes whole batches: use a smaller batch_size"
        )


def levels(source: Source, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of each channel, for pixels in 0 ... 255, both of shape (1, c, 1, 1)."""
    mean, std = (torch.tensor(v, device=device).mul(255).view(1, -1, 1, 1) for v in (source.mean, source.std))
    return mean, std


def fit_embedding(net: nn.Module, source: Source, split: Split) -> None:
    """Fit an embedding that has `fit_images` to this number of training images, before training."""
    embed = getattr(net, "embed", None)
    if count := min(getattr(embed, "fit_images", 0), len(split)):
        images, _ = split.read(range(count))
        mean, std = levels(source, images.device)
        embed.fit((images - mean) / std)  # type: ignore[union-attr]


def endless(split: Split, batch_size: int, workers: int | str, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield batches on the device, epoch after epoch without end.

    A set in memory is copied to the device as a whole. workers: number of processes that read; auto: none for a set in
    memory, else one per core, at most 8.
    """
    sampler, on_gpu = Shuffled(len(split), batch_size), device.type == "cuda"
    if isinstance(split, TensorSplit) and not split.crops:
        images, labels = split.images.to(device), split.labels.to(device)
        whole = InMemory(images, labels)
        while True:
            for part in torch.randperm(len(split), device=device).split(batch_size):
                if len(part) == batch_size:
                    yield whole.read(part)
    count = workers if isinstance(workers, int) else min(8, cores()) * split.slow
    loader: DataLoader = DataLoader(
        Reader(split, None),
        batch_size=None,
        sampler=sampler,
        num_workers=count,
        pin_memory=on_gpu,
        persistent_workers=count > 0,
    )
    while True:
        for images, labels in loader:
            yield images.to(device, non_blocking=True), labels.to(device, non_blocking=True)
