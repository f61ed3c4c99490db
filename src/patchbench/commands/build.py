"""Construction of the parts of a run from its configuration, with checks that they fit together."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, get_args

import pytorch_lightning as pl
import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, open_dict
from timm.layers import convert_sync_batchnorm
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import SGD

from patchbench.checks import one_of, positive, qualified, share
from patchbench.config.early import check_numbers, check_rates
from patchbench.config.identity import reads, to_plain
from patchbench.data.augment.chain import Augment
from patchbench.data.batches import Batches
from patchbench.data.source import Source
from patchbench.nets.freeze import PARTS, freeze
from patchbench.track.device import free_memory
from patchbench.track.finite import NonFinite
from patchbench.track.wandb_check import check_wandb
from patchbench.train.budget import Duration
from patchbench.train.checkpoint import KEEP, TESTED
from patchbench.train.task import Classify


def check_options(cfg: DictConfig) -> None:
    """Check the options outside of the groups, and those of budget, logger and optimizer.

    ValueError names the first option with an impossible value.
    """
    check_numbers(cfg)
    if not cfg.budget.value > 0:
        raise ValueError(f"budget.value={cfg.budget.value} must be above 0")
    if cfg.logger.checkpoints and not cfg.logger.wandb:
        raise ValueError("logger.checkpoints=true keeps checkpoints in W&B: use logger=wandb with it")
    if cfg.logger.wandb:
        asked = ("project", "entity", "mode", "tags", "notes", "finish_s", "table_rows")
        check_wandb(**{knob: to_plain(cfg.logger.wandb[knob]) for knob in asked})
    one_of("tested", cfg.tested, TESTED)
    if cfg.freeze is not None:
        one_of("freeze", cfg.freeze, (*PARTS, "null"))
    one_of("keep_checkpoints", cfg.keep_checkpoints, KEEP)
    check_workers(cfg.workers)
    for name in ("compile", "cuda_graphs"):
        if cfg[name] not in ("auto", True, False):
            raise ValueError(f"{name}={cfg[name]} must be auto, true or false")
    check_optim(cfg.optim)


def check_optim(optim: DictConfig) -> None:
    """Check the options `optim.*`, also by building the optimizer and the schedule. ValueError names the option."""
    check_rates(optim)
    for name in ("warmup", "label_smoothing"):
        share(f"optim.{name}", optim[name])
    if optim.clip_grad is not None:
        positive("optim.clip_grad", optim.clip_grad, otherwise="null for no limit")
    if (threshold := optim.get("target_threshold")) is not None:
        share("optim.target_threshold", threshold)
        if optim.get("loss") != "bce":
            raise ValueError(
                f"optim.target_threshold={threshold} is read with optim.loss=bce alone: use it, or leave this one out"
            )
    one_of("optim.nonfinite", optim.get("nonfinite", "stop"), get_args(NonFinite))
    parameter = torch.zeros(1, requires_grad=True)
    try:
        optimizer = instantiate(optim.optimizer)([parameter])
    except InstantiationException as error:
        raise ValueError(f"optim.optimizer={optim.optimizer._target_}: {error.__cause__ or error}") from error
    except ValueError as error:
        raise ValueError(
            f"optim.optimizer._target_={optim.optimizer._target_} refuses its arguments: {error}"
        ) from error
    instantiate(optim.schedule)(optimizer, 1)


def check_workers(workers: Any) -> None:
    """Raise ValueError unless `workers` is a number of processes or auto."""
    if workers != "auto" and not (isinstance(workers, int) and workers >= 0):
        raise ValueError(f"workers={workers} must be auto or a number of processes, 0 for none")


@contextmanager
def building(path: str, part: DictConfig) -> Iterator[None]:
    """Raise the errors of a part without the exception that Hydra wraps around them, and complete the names of knobs.

    path: path of the part, see `qualified`.
    """
    with qualified(path, map(str, part)):
        try:
            yield
        except InstantiationException as error:
            cause: BaseException = error
            while isinstance(cause, InstantiationException) and cause.__cause__ is not None:
                cause = cause.__cause__
            raise cause from None


def build_source(cfg: DictConfig) -> Source:
    """Build the data set of the configuration. ValueError and OSError name its knobs with their path."""
    with building("data", cfg.data):
        return instantiate(cfg.data)


def build_augment(cfg: DictConfig, source: Source) -> Augment:
    """Build the augmentation of the configuration. ValueError names its knobs with their path."""
    with building("augment", cfg.augment):
        return instantiate(cfg.augment)(source)


def build_net(cfg: DictConfig, source: Source) -> Any:
    """Build the network for the images and classes of the source, with initial weights.

    It maps `b c H W` to `b classes`, can be built on the meta device, and has the following attributes:

        layout             its tokens; None if it has no tokens
        blocks             modules; each is compiled, and sharded among devices, by itself
        no_weight_decay()  names of parameters without weight decay, in addition to biases and norms
        embed              its embedding, if its YAML file refers to ${embed}; may have `fit_images` and `varies`
    """
    cfg = cfg.copy()
    with open_dict(cfg):
        cfg.model.pop("init_from", None)  # read by the code that trains the network, see weights/load.py
    build = instantiate(cfg.model)
    with qualified("model", cfg.model.keys() - cfg.keys()):  # a name that is also an option, such as embed, is no knob
        net = build(img_size=source.img_size, in_chans=source.in_chans, num_classes=source.num_classes)
    if cfg.freeze is not None:
        freeze(net, cfg.freeze)
    return net


def build_trainer(cfg: DictConfig, out_dir: Path, callbacks: list[pl.Callback], *, epochs: int) -> pl.Trainer:
    """Build Lightning's Trainer with the options `trainer.*`."""
    return instantiate(cfg.trainer)(max_epochs=epochs, out_dir=out_dir, callbacks=callbacks)


def prepare_data(cfg: DictConfig, source: Source, trainer: pl.Trainer, resident_bytes: int | None = None) -> Batches:
    """Return the batches. The first process of each node reads the data now, so that errors appear before training.

    resident_bytes: bytes of device memory for a data set in memory; None: the share `resident` of the free memory.
    ValueError or OSError if the data cannot be read, or, without allow_cost, if batches do not fit into shared memory.
    """
    if resident_bytes is None:
        resident_bytes = int(cfg.resident * free_memory(trainer.strategy.root_device, trainer.num_devices))
    data = Batches(
        source,
        build_augment(cfg, source),
        batch_size=cfg.batch_size,
        seed=cfg.seed,
        workers=cfg.workers,
        limit=cfg.limit_batches,
        resident_bytes=resident_bytes,
    )
    if trainer.local_rank == 0:
        data.trainer = trainer
        with qualified("data", map(str, cfg.data)):
            data.prepare_data()
        for loader in (data.train_dataloader, data.val_dataloader, data.test_dataloader):
            loader()
        if not cfg.allow_cost:
            data.check_shared_memory()
    return data


def fit_embedding(trainer: pl.Trainer, task: Any, stage: str) -> None:
    """Fit an embedding that has `fit_images` to this number of training images, before training.

    Called on every rank when the data are set up. All ranks use the same images, so that all fits are equal.
    """
    data: Any = trainer
    embed: Any = getattr(task.net, "embed", None)
    if stage == "fit" and (count := getattr(embed, "fit_images", 0)):
        embed.fit(data.datamodule.sample(count))


def build_task(
    cfg: DictConfig, net: nn.Module, data: Batches, duration: Duration, origin: Mapping[str, Any] | None = None
) -> Classify:
    """Build the Lightning module that trains and evaluates `net`. origin: for its checkpoints, see config/origin.py."""
    optimizer = instantiate(cfg.optim.optimizer)
    if cfg.trainer.strategy == "fsdp" and optimizer.func is SGD:
        optimizer = partial(optimizer, fused=False)  # torch's fused SGD takes no shards
    return Classify(
        net,
        optimizer,
        instantiate(cfg.optim.schedule),
        num_classes=data.source.num_classes,
        loss=cfg.optim.get("loss", "cross_entropy"),
        label_smoothing=cfg.optim.label_smoothing,
        target_threshold=cfg.optim.get("target_threshold"),
        clip_grad=cfg.optim.clip_grad,
        nonfinite=cfg.optim.get("nonfinite", "stop"),
        seed=cfg.seed,
        total_steps=duration.steps,
        origin=origin,
    )


def has_batch_norms(net: nn.Module) -> bool:
    """True if a module normalises by the statistics of the batch; a frozen batch norm does not."""
    return any(isinstance(module, _BatchNorm) and module.training for module in net.modules())


def share_batch_norms(cfg: DictConfig, net: Any, trainer: pl.Trainer) -> list[str]:
    """Synchronise batch norms over all devices, so that results do not depend on the number of devices.

    Return a remark if the batch may be split into micro-batches, which batch norms see one at a time. ValueError for
    several CPU processes, for which torch has no synchronised batch norm.
    """
    if not has_batch_norms(net):
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
        return ["batch norms see one micro-batch at a time: the result of training depends on how the batch is split"]
    return []


def compiles(cfg: DictConfig, trainer: pl.Trainer) -> bool:
    """True if blocks are compiled: with compile=true, and with compile=auto on a GPU."""
    return cfg.compile is True or (cfg.compile == "auto" and trainer.strategy.root_device.type == "cuda")


def compile_blocks(net: Any) -> None:
    """Compile each block by itself, which is as fast as compiling the whole network; all blocks share one compilation.

    Modules that rotate q and k, or add a bias to the logits, are compiled too: in each block, such a module takes up to
    30 small operations.
    """
    torch._dynamo.config.optimize_ddp = False  # true would split the graph of a block at the buckets of DDP
    for parts in ("blocks", "rotation", "bias"):
        for part in getattr(net, parts, ()):
            part.compile()
