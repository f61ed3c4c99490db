"""Parts of a run from its configuration, and the checks that they fit together."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf, open_dict
from timm.layers import convert_sync_batchnorm
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from patchbench.checks import Size, qualified
from patchbench.config.identity import plain, reads
from patchbench.data.augment.chain import Augment
from patchbench.data.batches import Batches
from patchbench.data.source import Source, Split
from patchbench.evaluate.robustness import Views, check_views, read_views
from patchbench.nets.cost import Cost, Memory, cost, memory
from patchbench.track.device import free_memory
from patchbench.train.budget import Duration
from patchbench.train.checkpoint import read_checkpoint
from patchbench.train.memory import MicroBatches, accumulation, refuse_what_cannot_fit
from patchbench.train.task import Classify


@dataclass(frozen=True)
class Draft:
    """A run before it takes memory: its data set, its network on the meta device, the cost of an image."""

    cfg: DictConfig
    source: Source
    net: Any
    cost: Cost

    def views(self) -> Views:
        """Views of the test images that the options `eval.*` ask for, checked against the network."""
        options: Any = OmegaConf.to_container(self.cfg.eval, resolve=True)
        views = read_views(**options, run_patch=plain(self.cfg.patch))
        check_views(views, self.net, self.source)
        return views

    def test_at(self, img_size: Size) -> Split:
        """The test split of the same data set at another image size."""
        resized: Any = OmegaConf.merge(self.cfg, {"data": {"img_size": list(img_size)}})
        return build_source(resized).splits()["test"]

    def macs_at(self, img_size: Size) -> int:
        """Multiply-accumulates of an image of another size."""
        return cost(self.net, self.net.layout, self.source.in_chans, img_size).macs

    def memory(self, trainer: pl.Trainer) -> Memory:
        """Estimate a training step at the precision of the trainer, without computing anything."""
        source, bf16 = self.source, "bf16" in str(trainer.precision)
        estimate = memory(self.net, self.net.layout, source.in_chans, source.img_size, bf16=bf16)
        sharded = self.cfg.trainer.strategy == "fsdp"
        return replace(estimate, weights=estimate.weights // trainer.world_size) if sharded else estimate


def draft(cfg: DictConfig, source: Source | None = None) -> Draft:
    """Draft a run. ValueError, OSError and the like where a part cannot be built.

    source: the data set of `cfg`, where it is there already.
    """
    source = build_source(cfg) if source is None else source
    with torch.device("meta"):
        net = build_net(cfg, source)
    return Draft(cfg, source, net, cost(net, net.layout, source.in_chans, source.img_size))


def check_options(cfg: DictConfig) -> None:
    """Check the options outside the groups. ValueError names the first that cannot be."""
    for name in ("epochs", "batch_size", "log_every"):
        if cfg[name] < 1:
            raise ValueError(f"{name}={cfg[name]} must be at least 1")
    if not cfg.budget.value > 0:
        raise ValueError(f"budget.value={cfg.budget.value} must be above 0")
    if cfg.seed < 0:
        raise ValueError(f"seed={cfg.seed} must not be negative")
    if cfg.limit_batches is not None and cfg.limit_batches < 1:
        raise ValueError(f"limit_batches={cfg.limit_batches} must be at least 1, or null for all")
    if cfg.logger.checkpoints and not cfg.logger.wandb:
        raise ValueError("logger.checkpoints=true keeps checkpoints in W&B: use logger=wandb with it")
    check_workers(cfg.workers)
    if not 0 <= cfg.resident <= 1:
        raise ValueError(f"resident={cfg.resident} is no share of the device's memory: use 0 to 1")
    if cfg.compile not in ("auto", True, False):
        raise ValueError(f"compile={cfg.compile} must be auto, true or false")
    # An optimizer is built by Lightning when training starts; its options are tried now.
    parameter = torch.zeros(1, requires_grad=True)
    instantiate(cfg.optim.schedule)(instantiate(cfg.optim.optimizer)([parameter]), 1)


def check_workers(workers: Any) -> None:
    """ValueError unless `workers` is a number of processes or auto."""
    if workers != "auto" and not (isinstance(workers, int) and workers >= 0):
        raise ValueError(f"workers={workers} must be auto or a number of processes, 0 for none")


@contextmanager
def building(path: str, part: DictConfig) -> Iterator[None]:
    """Raise a part's own refusal, without the exception that Hydra wraps around it, with its knobs named in full."""
    with qualified(path, map(str, part)):
        try:
            yield
        except InstantiationException as error:
            cause: BaseException = error
            while isinstance(cause, InstantiationException) and cause.__cause__ is not None:
                cause = cause.__cause__
            raise cause from None


def build_source(cfg: DictConfig) -> Source:
    """The data set of the configuration. ValueError, OSError: refusals of the set, which name its knobs in full."""
    with building("data", cfg.data):
        return instantiate(cfg.data)


def build_augment(cfg: DictConfig, source: Source) -> Augment:
    """The augmentation of the configuration. ValueError names its knobs in full."""
    with building("augment", cfg.augment):
        return instantiate(cfg.augment)(source)


def build_net(cfg: DictConfig, source: Source) -> Any:
    """The network that fits the images and classes of the source, freshly initialised.

    It maps `b c H W` to `b classes`, is built on the meta device as well, and says of itself

        layout             its tokens, or None where it has none
        blocks             modules that are compiled, and shared out among devices, each by itself
        no_weight_decay()  names of the parameters that are spared weight decay beside biases and norms
        embed              its embedding, where its YAML names ${embed}: asked for `fit_images`
    """
    cfg = cfg.copy()
    with open_dict(cfg):
        cfg.model.pop("init_from", None)  # for whoever trains it, see weights/load.py
    build = instantiate(cfg.model)
    with qualified("model", cfg.model.keys() - cfg.keys()):  # an option beside `model`, such as embed, is no knob
        return build(img_size=source.img_size, in_chans=source.in_chans, num_classes=source.num_classes)


def build_trainer(cfg: DictConfig, out_dir: Path, callbacks: list[pl.Callback], *, epochs: int) -> pl.Trainer:
    """Lightning's Trainer by the options `trainer.*`."""
    return instantiate(cfg.trainer)(max_epochs=epochs, out_dir=out_dir, callbacks=callbacks)


def split_batch(draft: Draft, trainer: pl.Trainer, ckpt: Path | None) -> tuple[MicroBatches, Memory]:
    """Micro-batches that fit, and what a step takes. ValueError, without allow_cost, where nothing would fit."""
    cfg, source = draft.cfg, draft.source
    trainer.accumulate_grad_batches = accumulation(
        accumulate=cfg.trainer.accumulate,
        micro_batch=cfg.trainer.micro_batch,
        batch_size=cfg.batch_size,
        world_size=trainer.world_size,
    )
    auto = cfg.trainer.micro_batch == "auto"
    if ckpt:  # its place in the data is counted in its own micro-batches
        state = read_checkpoint(ckpt)["callbacks"][MicroBatches.__name__]
        auto, trainer.accumulate_grad_batches = False, state["accumulate"]
    needed = draft.memory(trainer)
    if not cfg.allow_cost:
        device = trainer.strategy.root_device
        refuse_what_cannot_fit(
            draft.cost,
            needed,
            images=1 if auto else images_at_once(cfg, trainer),
            free=free_memory(device, trainer.num_devices),
            device=device.type.upper(),
            max_gmacs=cfg.max_gmacs,
            img_size=source.img_size,
            reads_patch=reads(cfg, "patch"),
        )
    split = MicroBatches(auto, needed, batch_size=cfg.batch_size, in_chans=source.in_chans, img_size=source.img_size)
    return split, needed


def images_at_once(cfg: DictConfig, trainer: pl.Trainer) -> int:
    """Images of a micro-batch on one device."""
    return max(1, cfg.batch_size // (trainer.world_size * trainer.accumulate_grad_batches))


def prepare_data(cfg: DictConfig, source: Source, trainer: pl.Trainer) -> Batches:
    """Read the data now, on the first process of the node, so that what is wrong with it is said before training."""
    data = Batches(
        source,
        build_augment(cfg, source),
        batch_size=cfg.batch_size,
        seed=cfg.seed,
        workers=cfg.workers,
        limit=cfg.limit_batches,
        room=int(cfg.resident * free_memory(trainer.strategy.root_device, trainer.num_devices)),
    )
    if trainer.local_rank == 0:
        data.trainer = trainer
        with qualified("data", map(str, cfg.data)):
            data.prepare_data()
        for loader in (data.train_dataloader, data.val_dataloader, data.test_dataloader):
            loader()
    return data


def fit_embedding(trainer: pl.Trainer, task: Any, stage: str) -> None:
    """Let an embedding that asks for `fit_images` see some before training.

    Called when the data are there, on every rank: all see the same images, so all fit the same.
    """
    data: Any = trainer
    embed: Any = getattr(task.net, "embed", None)
    if stage == "fit" and (count := getattr(embed, "fit_images", 0)):
        embed.fit(data.datamodule.sample(count))


def build_duration(draft: Draft, data: Batches) -> Duration:
    """ValueError if the budget does not hold a step; where the data are not read yet, that shows later."""
    duration = Duration(instantiate(draft.cfg.budget), data, draft.cost.train_flops)
    if data.splits:
        duration.check()
    return duration


def build_task(cfg: DictConfig, net: nn.Module, data: Batches, duration: Duration) -> Classify:
    """Lightning's module that trains and judges `net`."""
    return Classify(
        net,
        instantiate(cfg.optim.optimizer),
        instantiate(cfg.optim.schedule),
        num_classes=data.source.num_classes,
        label_smoothing=cfg.optim.label_smoothing,
        clip_grad=cfg.optim.clip_grad,
        seed=cfg.seed,
        total_steps=duration.steps,
    )


def share_batch_norms(cfg: DictConfig, net: Any, trainer: pl.Trainer) -> list[str]:
    """Let batch norms see the batch of all devices, so that their number changes nothing; remarks where that fails.

    ValueError for several CPUs, among which torch shares none.
    """
    if not any(isinstance(module, _BatchNorm) for module in net.modules()):
        return []
    if trainer.world_size > 1 and trainer.strategy.root_device.type != "cuda":
        parts = ["embed", "model"] if reads(cfg, "embed") else ["model"]
        raise ValueError(
            f"trainer.devices={cfg.trainer.devices}: this network has batch norms, which torch shares among GPUs "
            f"only, so each of {trainer.world_size} CPU processes would normalise by its own images: use "
            f"trainer.devices=1{''.join(f', or {part}.norm=layer' for part in parts if 'norm' in cfg[part])}"
        )
    if trainer.world_size > 1:
        convert_sync_batchnorm(net)
    if trainer.accumulate_grad_batches > 1 or cfg.trainer.micro_batch == "auto":
        return ["batch norms see one micro-batch at a time: what is learnt depends on how the batch is split"]
    return []


def compile_blocks(net: Any) -> None:
    """Compile each block by itself: as fast as the whole network, and compiled once for all blocks."""
    for block in net.blocks:
        block.compile()


def check_run(cfg: DictConfig, source: Source, out_dir: Path) -> Cost:
    """Refuse what training would refuse, without the memory, the weights and the checkpoint that it takes."""
    check_options(cfg)
    run = draft(cfg, source)
    run.views()
    trainer = build_trainer(cfg, out_dir, [], epochs=cfg.epochs)
    split_batch(run, trainer, None)
    data = prepare_data(cfg, source, trainer)
    build_task(cfg, run.net, data, build_duration(run, data))
    return run.cost
