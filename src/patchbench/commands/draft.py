"""Draft of a run: its network on the meta device, its cost, checks before training, and the size of micro-batches."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from patchbench.checks import Size
from patchbench.commands.build import (
    build_net,
    build_source,
    build_task,
    build_trainer,
    check_options,
    has_batch_norms,
    prepare_data,
)
from patchbench.config.identity import reads, to_plain
from patchbench.data.batches import Batches
from patchbench.data.source import Source, Split
from patchbench.data.statistics import check_variety
from patchbench.evaluate.robustness import Views, check_views, read_views
from patchbench.nets.cost import Cost, cost
from patchbench.nets.memory import Memory, memory
from patchbench.track.device import free_memory, free_memory_of_gpus
from patchbench.train.budget import Duration
from patchbench.train.checkpoint import read_checkpoint
from patchbench.train.memory import MicroBatches, accumulation, refuse_too_costly


@dataclass(frozen=True)
class Draft:
    """Draft of a run, which takes no memory for weights: data set, network on the meta device, cost of an image."""

    cfg: DictConfig
    source: Source
    net: Any
    cost: Cost

    def views(self) -> Views:
        """Return the views of the test images in the options `eval.*`. ValueError if the network cannot process one."""
        options: Any = OmegaConf.to_container(self.cfg.eval, resolve=True)
        views = read_views(**options, run_patch=to_plain(self.cfg.patch))
        check_views(views, self.net, self.source)
        return views

    def test_at(self, img_size: Size) -> Split:
        """Return the test split of the same data set at another image size."""
        resized: Any = OmegaConf.merge(self.cfg, {"data": {"img_size": list(img_size)}})
        return build_source(resized).splits()["test"]

    def macs_at(self, img_size: Size) -> int:
        """Count the multiply-accumulates of an image of another size."""
        return cost(self.net, self.net.layout, self.source.in_chans, img_size).macs

    def memory(self, trainer: pl.Trainer) -> Memory:
        """Estimate the memory of a training step at the precision of the trainer, without computing the step."""
        source, bf16 = self.source, "bf16" in str(trainer.precision)
        estimate = memory(self.net, self.net.layout, source.in_chans, source.img_size, bf16=bf16)
        sharded = self.cfg.trainer.strategy == "fsdp"
        return replace(estimate, weights=estimate.weights // trainer.world_size) if sharded else estimate


def draft(cfg: DictConfig, source: Source | None = None) -> Draft:
    """Draft a run. ValueError, TypeError, OSError or an error of Hydra if a part cannot be built.

    source: the data set of `cfg`, if it is already built.
    """
    source = build_source(cfg) if source is None else source
    with torch.device("meta"):
        net = build_net(cfg, source)
    return Draft(cfg, source, net, cost(net, net.layout, source.in_chans, source.img_size))


def split_batch(
    draft: Draft, trainer: pl.Trainer, ckpt: Path | None, free: int | None = None
) -> tuple[MicroBatches, Memory]:
    """Set the number of micro-batches of the trainer; return a callback that may increase it, and the memory of a step.

    ckpt: checkpoint from which the run resumes; its number of micro-batches is used. free: free bytes of the device;
    None: measured now, for which a GPU creates a CUDA context for this process. ValueError if the batch cannot be split
    as the options ask, or, without allow_cost, if an image costs too much or a micro-batch does not fit into memory.
    """
    cfg, source = draft.cfg, draft.source
    trainer.accumulate_grad_batches = accumulation(
        accumulate=cfg.trainer.accumulate,
        micro_batch=cfg.trainer.micro_batch,
        batch_size=cfg.batch_size,
        world_size=trainer.world_size,
    )
    auto = cfg.trainer.micro_batch == "auto"
    if ckpt:  # its position in the data is counted in its own micro-batches
        state = read_checkpoint(ckpt)["callbacks"][MicroBatches.__name__]
        auto, trainer.accumulate_grad_batches = False, state["accumulate"]
    images = images_at_once(cfg, trainer)
    refuse_lone_values(draft, images)
    needed = draft.memory(trainer)
    if not cfg.allow_cost:
        device = trainer.strategy.root_device
        refuse_too_costly(
            draft.cost,
            needed,
            images=1 if auto else images,
            free=free_memory(device, trainer.num_devices) if free is None else free,
            device=device.type.upper(),
            max_gmacs=cfg.max_gmacs,
            img_size=source.img_size,
            reads_patch=reads(cfg, "patch"),
        )
    split = MicroBatches(auto, needed, batch_size=cfg.batch_size, in_chans=source.in_chans, img_size=source.img_size)
    return split, needed


def refuse_lone_values(draft: Draft, images: int) -> None:
    """Raise ValueError if a batch norm would see one value per channel, which has no variance.

    images: number of images of a micro-batch.
    """
    if images > 1 or not has_batch_norms(draft.net):
        return
    try:
        draft.net.train()(torch.empty(images, draft.source.in_chans, *draft.source.img_size, device="meta"))
    except ValueError as error:
        part = "embed.norm=layer" if "norm" in draft.cfg.embed else "a larger data.img_size"
        raise ValueError(
            f"batch_size={draft.cfg.batch_size} gives a batch norm one image at a time, with one value per channel: "
            f"use more images at a time, or {part}"
        ) from error


def images_at_once(cfg: DictConfig, trainer: pl.Trainer) -> int:
    """Return the number of images of a micro-batch on one device."""
    return max(1, cfg.batch_size // (trainer.world_size * trainer.accumulate_grad_batches))


def build_duration(draft: Draft, data: Batches) -> Duration:
    """Build the duration of training. ValueError if the budget is less than a step, provided that the data are read."""
    duration = Duration(instantiate(draft.cfg.budget), data, draft.cost.train_flops(draft.cfg.batch_size))
    if data.splits:
        duration.check()
    return duration


def check_run(cfg: DictConfig, source: Source, out_dir: Path) -> Cost:
    """Check a run as training does before its first step, without weights and checkpoints, and return its cost.

    Several processes may do this at the same time: none of them takes memory of a GPU, not even for a CUDA context.
    """
    check_options(cfg)
    run = draft(cfg, source)
    run.views()
    trainer = build_trainer(cfg, out_dir, [], epochs=cfg.epochs)
    on_gpu = trainer.strategy.root_device.type == "cuda"
    split_batch(run, trainer, None, free=free_memory_of_gpus() if on_gpu else None)
    data = prepare_data(cfg, source, trainer, resident_bytes=0)
    check_variety(data.splits["train"], getattr(source, "remarks", []))
    build_task(cfg, run.net, data, build_duration(run, data))
    return run.cost
