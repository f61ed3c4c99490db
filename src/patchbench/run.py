"""From a configuration to a finished run. The one module that builds parts from configuration."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf, open_dict
from pytorch_lightning.callbacks import LambdaCallback
from pytorch_lightning.utilities import rank_zero_only
from scipy.stats import binomtest
from torch import nn

from patchbench import interop, schema
from patchbench.budget import MicroBatches, accumulation, refuse_what_cannot_fit
from patchbench.checkpoint import Origin, StopOnSignal, keep_checkpoints, read_checkpoint
from patchbench.cost import Cost, Memory, cost, memory
from patchbench.data.batches import Batches
from patchbench.data.source import Source
from patchbench.errors import refusing
from patchbench.task import Classify
from patchbench.track.device import GIB, free_memory
from patchbench.track.meter import Meter
from patchbench.track.metrics_csv import MetricsCsv
from patchbench.track.progress import ProgressBar
from patchbench.track.record import environment, write_record
from patchbench.track.table import print_result
from patchbench.track.wandb_run import ID_FILE

FILES = ("run.json", "metrics.csv", "last.ckpt", "best.ckpt", ID_FILE)


def train(cfg: DictConfig, choices: Mapping[str, str], out_dir: Path, *, in_sweep: bool = False) -> float:
    """Train, test the best checkpoint, and leave the record, the checkpoints and the metrics in `out_dir`.

    choices: the option taken in each group, for names. Returns the best validation accuracy, for sweepers.
    A run that has its record is not repeated, one that was cut off goes on from its last checkpoint. Refused before
    anything is trained or written where the configuration cannot run.
    """
    record = out_dir / "run.json"
    if cfg.rerun:
        clear(out_dir)
    if record.exists():
        done = json.loads(record.read_text())
        print_result(schema.name(done["factors"]), done["result"], out_dir)
        say("This run was done before; rerun=true trains it again.")
        return done["result"]["val/acc_best"]

    levels = schema.factors(cfg, choices)
    origin = {
        "identity": schema.identity(cfg),
        "factors": levels,
        "compared": schema.compared(cfg),
        "config": OmegaConf.to_container(cfg, resolve=True),
    }
    with refusing(), kept_only_if_good(out_dir):
        check_options(cfg)
        source: Source = instantiate(cfg.data)
        costs = network_cost(cfg, source)
        ckpt = checkpoint_to_resume(cfg, origin, out_dir)
        meter = Meter(cfg.log_every, costs)
        stop = StopOnSignal(out_dir / "last.ckpt", cfg.log_every)
        fit = LambdaCallback(setup=fit_embedding)
        callbacks = [meter, ProgressBar(meter), Origin(origin), keep_checkpoints(out_dir), stop, fit]
        trainer = instantiate(cfg.trainer)(max_epochs=cfg.epochs, out_dir=out_dir, callbacks=callbacks)
        if in_sweep and trainer.world_size > 1:
            raise ValueError(
                f"trainer.devices={cfg.trainer.devices} in a sweep: the cells share one process, which can start its "
                "ranks once only; run each cell by a command of its own, or use trainer.devices=1"
            )
        trainer.accumulate_grad_batches = accumulation(
            accumulate=cfg.trainer.accumulate,
            micro_batch=cfg.trainer.micro_batch,
            batch_size=cfg.batch_size,
            world_size=trainer.world_size,
        )
        auto = cfg.trainer.micro_batch == "auto"
        if ckpt:  # its place in the data is counted in its own micro-batches
            kept = read_checkpoint(ckpt)["callbacks"][MicroBatches.__name__]
            auto, trainer.accumulate_grad_batches = False, kept["accumulate"]
        held = network_memory(cfg, source, trainer)
        each = max(1, cfg.batch_size // (trainer.world_size * trainer.accumulate_grad_batches))
        if not cfg.allow_cost:
            device = trainer.strategy.root_device
            refuse_what_cannot_fit(
                costs,
                held,
                images=1 if auto else each,
                free=free_memory(device, trainer.num_devices),
                device=device.type.upper(),
                max_gmacs=cfg.max_gmacs,
                img_size=source.img_size,
                reads_patch=schema.reads_patch(cfg),
            )
        split = MicroBatches(auto, held, batch_size=cfg.batch_size, in_chans=source.in_chans, img_size=source.img_size)
        trainer.callbacks.insert(0, split)
        torch.manual_seed(cfg.seed)
        net = build_net(cfg, source)
        adapted = interop.load(net, cfg.model.init_from) if cfg.model.init_from and not ckpt else None
        data = prepare_data(cfg, source, trainer)
        task = build_task(cfg, net, data)
        if cfg.compile is True or (cfg.compile == "auto" and trainer.strategy.root_device.type == "cuda"):
            compile_blocks(task.net)
    rows, cols = costs.grid_size
    say(
        f"{schema.name(levels)}: {source.img_size[0]}x{source.img_size[1]} pixels, {rows}x{cols} patches; "
        f"{levels['model']} with {costs.params:,} parameters, {costs.num_tokens:,} tokens "
        f"and {costs.macs / 1e9:.3g} GMACs an image; "
        f"about {held.step(each) / GIB:.2g} GiB for {each} images at a time"
    )
    if adapted:
        say(adapted)
    if ckpt:
        say(f"resuming from {ckpt} (rerun=true starts afresh)")

    with ExitStack() as stack:
        loggers: list = [MetricsCsv(out_dir / "metrics.csv")] if cfg.logger.csv else []
        if cfg.logger.wandb:
            start = instantiate(cfg.logger.wandb)
            run = start(
                name=schema.name(levels),
                tags=[f"{factor}={level}" for factor, level in levels.items() if level is not None],
                config=levels | costs.facts() | {"identity": origin["identity"], "config": origin["config"]},
                out_dir=out_dir,
                runs_dir=Path(cfg.runs_dir),
                resume=ckpt is not None,
            )
            with refusing():
                loggers.append(stack.enter_context(run))
        trainer.loggers = loggers
        trainer.fit(task, data, ckpt_path=ckpt)
        validated = {name: float(value) for name, value in trainer.callback_metrics.items()}
        tested = test(trainer, task, data, out_dir / "best.ckpt")
        result = validated | tested | meter.summary() | costs.facts()
        meter.write(trainer, {name: value for name, value in result.items() if isinstance(value, int | float)})
    write_record(record, origin | {"result": result, "environment": environment()})
    print_result(schema.name(levels), result, out_dir)
    return result["val/acc_best"]


def evaluate(ckpt: Path, trainer_cfg: DictConfig, *, workers: int | str, data_root: str | None) -> dict[str, Any]:
    """The figures of the test split, from the checkpoint alone. Refused where it or its data cannot be read."""
    with refusing():
        origin, cfg, source = restore(ckpt, data_root)
        cfg.workers = workers
        trainer = instantiate(trainer_cfg)(max_epochs=0, out_dir=ckpt.parent, callbacks=[])
        data = prepare_data(cfg, source, trainer)
        task = build_task(cfg, build_net(cfg, source), data)
    result = test(trainer, task, data, ckpt) | network_cost(cfg, source).facts()
    print_result(schema.name(origin["factors"]), result)
    return origin | {"result": result}


def export(ckpt: Path, out: Path, *, data_root: str | None) -> None:
    """Write the trained network for timm. Refused where timm has none that computes the same."""
    with refusing():
        if out.suffix != ".safetensors":
            raise ValueError(f"out={out} must end in .safetensors: use out={out.with_suffix('.safetensors')}")
        _, cfg, source = restore(ckpt, data_root)
        net = build_net(cfg, source).eval()
        state = read_checkpoint(ckpt)["state_dict"]
        net.load_state_dict({n.removeprefix("net."): w for n, w in state.items() if n.startswith("net.")})
        call = interop.export(net, out, img_size=source.img_size, num_classes=source.num_classes)
    say(f"wrote {out}, for images of mean {spell_list(source.mean)} and standard deviation {spell_list(source.std)}:")
    say(call)


def spell_list(values: Sequence[float]) -> str:
    return f"({', '.join(f'{value:.4g}' for value in values)})"


def restore(ckpt: Path, data_root: str | None) -> tuple[dict[str, Any], DictConfig, Source]:
    """What a checkpoint came from, its configuration, and its data where they lie now."""
    origin = read_checkpoint(ckpt)["patchbench"]
    cfg = OmegaConf.create(origin["config"])
    if data_root is not None:
        cfg.data.root = data_root
    if "pretrained" in cfg.model.embed:
        cfg.model.embed.pretrained = False  # the checkpoint holds what training made of those weights
    return origin, cfg, instantiate(cfg.data)


@contextmanager
def kept_only_if_good(folder: Path) -> Iterator[None]:
    """Hydra makes a run's directory before anything is known of the run: take it away again if it stays empty."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        if not any(folder.iterdir()):
            folder.rmdir()
        raise


def check_options(cfg: DictConfig) -> None:
    """The options outside the groups. ValueError names the first that cannot be."""
    for name in ("epochs", "batch_size", "log_every"):
        if cfg[name] < 1:
            raise ValueError(f"{name}={cfg[name]} must be at least 1")
    if cfg.seed < 0:
        raise ValueError(f"seed={cfg.seed} must not be negative")
    if cfg.limit_batches is not None and cfg.limit_batches < 1:
        raise ValueError(f"limit_batches={cfg.limit_batches} must be at least 1, or null for all")
    if cfg.workers != "auto" and not (isinstance(cfg.workers, int) and cfg.workers >= 0):
        raise ValueError(f"workers={cfg.workers} must be auto or a number of processes, 0 for none")
    if cfg.compile not in ("auto", True, False):
        raise ValueError(f"compile={cfg.compile} must be auto, true or false")
    # An optimizer is built by Lightning when training starts; its options are tried now.
    parameter = torch.zeros(1, requires_grad=True)
    instantiate(cfg.optim.schedule)(instantiate(cfg.optim.optimizer)([parameter]), 1)


def build_net(cfg: DictConfig, source: Source) -> Any:
    """The network that fits the images and classes of the source, freshly initialised."""
    cfg = cfg.copy()
    with open_dict(cfg):
        cfg.model.pop("init_from", None)  # for whoever trains it, see interop.load
    build = instantiate(cfg.model)
    return build(img_size=source.img_size, in_chans=source.in_chans, num_classes=source.num_classes)


def network_cost(cfg: DictConfig, source: Source) -> Cost:
    """Counted on the meta device: no memory, no time, and every check of the parts."""
    with torch.device("meta"):
        net = build_net(cfg, source)
    return cost(net, net.layout, source.in_chans, source.img_size)


def network_memory(cfg: DictConfig, source: Source, trainer: pl.Trainer) -> Memory:
    """Estimated for the precision of the trainer, without computing anything."""
    with torch.device("meta"):
        net = build_net(cfg, source)
    return memory(net, net.layout, source.in_chans, source.img_size, bf16="bf16" in str(trainer.precision))


def build_task(cfg: DictConfig, net: nn.Module, data: Batches) -> Classify:
    return Classify(
        net,
        instantiate(cfg.optim.optimizer),
        instantiate(cfg.optim.schedule),
        num_classes=data.source.num_classes,
        label_smoothing=cfg.optim.label_smoothing,
        clip_grad=cfg.optim.clip_grad,
        seed=cfg.seed,
        total_steps=lambda: cfg.epochs * data.steps_per_epoch(),
    )


def prepare_data(cfg: DictConfig, source: Source, trainer: pl.Trainer) -> Batches:
    """Read the data now, on the first process of the node, so that what is wrong with it is said before training."""
    data = Batches(source, batch_size=cfg.batch_size, seed=cfg.seed, workers=cfg.workers, limit=cfg.limit_batches)
    if trainer.local_rank == 0:
        data.trainer = trainer
        data.prepare_data()
        for split in (data.train_dataloader, data.val_dataloader, data.test_dataloader):
            split()
    return data


def fit_embedding(trainer: pl.Trainer, task: Any, stage: str) -> None:
    """Let an embedding that asks for `fit_images` see some before training.

    Called when the data are there, on every rank: all see the same images, so all fit the same.
    """
    data: Any = trainer
    if stage == "fit" and (count := getattr(task.net.embed, "fit_images", 0)):
        task.net.embed.fit(data.datamodule.sample(count))


def checkpoint_to_resume(cfg: DictConfig, origin: dict[str, Any], out_dir: Path) -> Path | None:
    """The checkpoint asked for, or the run's own if it was cut off. ValueError if it belongs to another comparison."""
    own = out_dir / "last.ckpt"
    path = Path(cfg.ckpt) if cfg.ckpt else own if own.exists() else None
    if path is None:
        return None
    there = read_checkpoint(path)["patchbench"]
    if there["identity"] != origin["identity"]:
        here, there = flat(origin["compared"]), flat(there["compared"])
        odd = [k for k in {**there, **here} if here.get(k) != there.get(k)]
        changes = ", ".join(f"{k}={there.get(k)} there, {here.get(k)} here" for k in odd[:4])
        raise ValueError(
            f"ckpt={path} is of another run ({changes}{', ...' if len(odd) > 4 else ''}): give the options it was "
            "trained with, or leave ckpt out to train anew"
        )
    return path


def flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested keys joined by dots."""
    leaves: dict[str, Any] = {}
    for key, value in tree.items():
        leaves |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return leaves


def compile_blocks(net: Any) -> None:
    """Each block by itself: as fast as the whole, and compiled once for all of them."""
    for block in net.blocks:
        block.compile()


def test(trainer: pl.Trainer, task: Classify, data: Batches, ckpt: Path) -> dict[str, Any]:
    """The figures of the test split at `ckpt`, with the 95 % Wilson interval of the accuracy."""
    task.load_state_dict(read_checkpoint(ckpt)["state_dict"])
    trainer.test(task, data, verbose=False)
    metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
    images = sum(len(batch) for batch in data.test_dataloader().sampler)
    if trainer.world_size > 1:
        images = int(trainer.strategy.reduce(torch.tensor(images), reduce_op="sum"))
    interval = binomtest(round(metrics["test/acc"] * images), images).proportion_ci(method="wilson")
    return metrics | {"test/images": images, "test/acc_low": float(interval.low), "test/acc_high": float(interval.high)}


@rank_zero_only
def clear(out_dir: Path) -> None:
    """Remove what an earlier run left."""
    for file in FILES:
        (out_dir / file).unlink(missing_ok=True)


@rank_zero_only
def say(line: str) -> None:
    print(line, flush=True)
