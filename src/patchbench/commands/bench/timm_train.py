"""Cost of an epoch of our train.py and of timm's train.py, with the same network, folder of images and recipe.

Both run as processes of their own. The flags are those of timm 1.0.8 to 1.0.28 (Wightman, 2019).
"""

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
from omegaconf import DictConfig, OmegaConf

from patchbench.commands.bench.rounds import Figures
from patchbench.commands.build import build_net, build_source, build_trainer, compiles
from patchbench.config.compose import composed
from patchbench.config.options import CONF
from patchbench.data.source import Source
from patchbench.machine import cores
from patchbench.nets.timm import TimmNet
from patchbench.nets.vit import ViT
from patchbench.weights.export import to_timm

CLONE = "git clone --branch v1.0.26 https://github.com/huggingface/pytorch-image-models"
# Arguments of networks that have flags of their own; all others go to --model-kwargs.
OWN_FLAGS = {"in_chans": "--in-chans", "num_classes": "--num-classes", "global_pool": "--gp"}
OWN_FLAGS |= {"drop_path_rate": "--drop-path", "drop_rate": "--drop"}
EVALUATED = ("val", "valid", "validation", "test")  # folders of validation images; the first that exists is used


@dataclass(frozen=True)
class Checkout:
    """A checkout of pytorch-image-models."""

    folder: Path
    version: str


def checkout(folder: str | None) -> Checkout:
    """Return the checkout in a folder. ValueError names what is missing, and the command that makes a checkout."""
    if folder is None:
        raise ValueError(f"peer=timm needs timm=<folder>, a checkout of pytorch-image-models: {CLONE}")
    root = Path(folder).expanduser().resolve()
    for name in ("train.py", "timm/version.py"):
        if not (root / name).is_file():
            raise ValueError(f"timm={folder} holds no {name}, so it is no checkout of pytorch-image-models: {CLONE}")
    text = (root / "timm/version.py").read_text(encoding="utf-8")
    version_line = re.search(r"__version__\s*=\s*['\"](.+?)['\"]", text)
    if version_line is None or not version_line[1].startswith("1."):
        version = version_line[1] if version_line else "unknown"
        raise ValueError(f"timm={folder} is version {version}, but peer=timm uses the flags of version 1.0: {CLONE}")
    return Checkout(root, version_line[1])


@dataclass(frozen=True)
class Epochs:
    """Trainings whose difference measures the cost of an epoch, so that start and end of a training do not count.

    line: function from a number of epochs and a folder to the command of a training that writes its files there. cwd:
    folder in which the command runs. images, val_images: number of images per epoch of training and of validation.
    epochs: number of epochs by which the trainings differ.
    """

    line: Callable[[int, Path], list[str]]
    cwd: Path
    images: int
    val_images: int
    epochs: int

    def measure(self) -> Figures:
        """Train once for 1 epoch and once for 1 + `epochs` epochs; return the difference, per epoch and per image.

        ValueError if a training fails, or if the difference is not above 0.
        """
        (cpu, wall), (cpu_more, wall_more) = (self.run(count) for count in (1, 1 + self.epochs))
        cpu_s, wall_s = (cpu_more - cpu) / self.epochs, (wall_more - wall) / self.epochs
        if min(cpu_s, wall_s) <= 0:
            raise ValueError(
                f"epochs={self.epochs} are too few: the training of more epochs took no longer than that of one "
                "epoch: use more epochs"
            )
        figures: Figures = {"epoch_cpu_s": cpu_s, "epoch_wall_s": wall_s, "images_per_s": self.images / wall_s}
        return figures | {
            "image_cpu_ms": 1000 * cpu_s / self.images,
            "image_ms_wall": 1000 * wall_s / self.images,
            "start_cpu_s": cpu - cpu_s,
        }

    def run(self, epochs: int) -> tuple[float, float]:
        """Train for some epochs; return CPU seconds, with those of its child processes, and wall seconds.

        ValueError if the training fails.
        """
        with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile("w+") as output:
            line, began = self.line(epochs, Path(folder)), time.perf_counter()
            process = subprocess.Popen(line, cwd=self.cwd, stdout=output, stderr=output)
            try:
                _, status, usage = os.wait4(process.pid, 0)
                process.returncode = os.waitstatus_to_exitcode(status)
            finally:
                if process.returncode is None:
                    process.kill()
            wall_s = time.perf_counter() - began
            if process.returncode:
                output.seek(0)
                last = [text for text in output.read().splitlines() if text.strip()][-1:]
                failure = f"ends with code {process.returncode}: {''.join(last)[:300]}"
                raise ValueError(f"{line[1]} {failure}")
        return usage.ru_utime + usage.ru_stime, wall_s


def both(overrides: Sequence[str], peer: Checkout, epochs: int, scratch: Path) -> tuple[Epochs, Epochs]:
    """Return the trainings by our train.py and by timm's train.py on the same folder.

    scratch: an empty folder for links to the data; it must exist as long as the trainings run. ValueError for an option
    that timm's train.py does not support.
    """
    cfg = composed(["logger=csv", *overrides])
    if cfg.hydra.runtime.choices.data != "imagefolder":
        raise ValueError(
            f"peer=timm: data={cfg.hydra.runtime.choices.data} is no folder that timm's train.py reads: use "
            "data=imagefolder data.root=<folder>"
        )
    if cfg.limit_batches is not None:
        raise ValueError(f"limit_batches={cfg.limit_batches}: timm's train.py has no limit: leave it out")
    root = Path(cfg.data.root).expanduser().resolve()
    evaluated = [name for name in EVALUATED if (root / name).is_dir()]
    given = list(overrides)
    if len(evaluated) == 1:  # else our train.py would take validation images from train/ and test on this folder
        for name, target in {"train": "train", "val": evaluated[0], "test": evaluated[0]}.items():
            (scratch / name).symlink_to(root / target)
        given.append(f"data.root={scratch}")
        cfg = composed(["logger=csv", *given])
    source = build_source(cfg)
    splits = source.splits()
    workers = cfg.workers if isinstance(cfg.workers, int) else min(8, cores())
    flags = flags_of(cfg, source, workers)

    def ours(epochs: int, folder: Path) -> list[str]:
        options = ["logger=csv", *given, "budget=epochs", f"epochs={epochs}", f"workers={workers}"]
        return [sys.executable, str(CONF.parent / "train.py"), *options, f"runs_dir={folder}"]

    def theirs(epochs: int, folder: Path) -> list[str]:
        options = ["--data-dir", str(root), "--train-split", "train", "--val-split", evaluated[0], *flags]
        return [sys.executable, "train.py", *options, "--epochs", str(epochs), "--output", str(folder)]

    images = len(splits["train"]) // cfg.batch_size * cfg.batch_size
    alike: Any = {"images": images, "val_images": len(splits["val"]), "epochs": epochs}
    return Epochs(ours, Path.cwd(), **alike), Epochs(theirs, peer.folder, **alike)


def flags_of(cfg: DictConfig, source: Source, workers: int) -> list[str]:
    """Return the flags of timm's train.py for the network and the recipe of a configuration.

    source: the data of the configuration, whose splits were read. ValueError if timm's train.py does not have the
    network, the optimizer or the augmentation.
    """
    trainer = build_trainer(cfg, Path(), [], epochs=1)
    flags = [*network(cfg, source), *optimizer(cfg), *augmentation(cfg)]
    flags += ["--input-size", *map(str, (source.in_chans, *source.img_size)), "--crop-pct", str(cfg.data.crop_pct)]
    flags += ["--interpolation", "bicubic", "--mean", *map(str, source.mean), "--std", *map(str, source.std)]
    flags += ["--batch-size", str(cfg.batch_size), "--workers", str(workers), "--seed", str(cfg.seed % 2**32)]
    flags += ["--device", trainer.strategy.root_device.type, "--log-interval", str(cfg.log_every)]
    flags += ["--checkpoint-hist", "1", "--smoothing", str(cfg.optim.label_smoothing)]
    if "bf16" in str(trainer.precision):
        flags += ["--amp", "--amp-dtype", "bfloat16"]
    if compiles(cfg, trainer):
        flags += ["--torchcompile"]
    if trainer.strategy.root_device.type == "cuda":
        flags += ["--pin-mem"]
    return flags


def network(cfg: DictConfig, source: Source) -> list[str]:
    """Return the flags of the network: its name in timm, or the arguments that export.py writes.

    ValueError if timm does not have this network.
    """
    net = build_net(cfg, source)
    arguments: dict[str, Any]
    if isinstance(net, TimmNet):
        if cfg.model.small:
            raise ValueError("peer=timm: timm's train.py cannot change a stem as model.small=true does")
        options = OmegaConf.to_container(cfg.model.options, resolve=True) if cfg.model.options else {}
        fixed = getattr(timm.models.get_pretrained_cfg(cfg.model.name), "fixed_input_size", False)
        arguments = {"img_size": source.img_size} if fixed else {}
        arguments |= {"model_name": cfg.model.name, **options}  # type: ignore[dict-item]
    elif isinstance(net, ViT):
        try:
            arguments, _ = to_timm(net, img_size=source.img_size, num_classes=source.num_classes)
        except ValueError as error:
            raise ValueError(f"peer=timm needs a network that scripts/export.py can write: {error}") from error
        if cfg.model.drop_path:
            arguments["drop_path_rate"] = cfg.model.drop_path
    else:
        raise ValueError(
            f"peer=timm: timm's train.py has no model={cfg.hydra.runtime.choices.model}: use model=tiny or another "
            "Vision Transformer, or model=timm"
        )
    arguments |= {"in_chans": source.in_chans, "num_classes": source.num_classes}
    flags = ["--model", arguments.pop("model_name")]
    for name, flag in OWN_FLAGS.items():
        if name in arguments:
            flags += [flag, str(arguments.pop(name))]
    written = [f"{name}={str(value).replace(' ', '')}" for name, value in arguments.items()]
    return [*flags, *(["--model-kwargs", *written] if written else [])]


def optimizer(cfg: DictConfig) -> list[str]:
    """Return the flags of optimizer and schedule. The warm-up of the learning rate costs no time, and is left out.

    ValueError unless the optimizer is AdamW or SGD.
    """
    optim = cfg.optim
    target = optim.optimizer._target_
    if target == "torch.optim.AdamW":
        flags = ["--opt", "adamw", "--opt-betas", *map(str, optim.betas)]
    elif target == "torch.optim.SGD":
        flags = ["--opt", "sgd" if optim.nesterov else "momentum", "--momentum", str(optim.momentum)]
    else:
        raise ValueError(f"peer=timm: optim.optimizer._target_={target} is not known in timm: use optim=adamw or sgd")
    flags += ["--opt-kwargs", "fused=True"] if optim.optimizer.get("fused") else []
    flags += ["--lr", str(optim.lr), "--weight-decay", str(optim.weight_decay)]
    flags += [] if optim.clip_grad is None else ["--clip-grad", str(optim.clip_grad)]
    return [*flags, "--sched", "cosine", "--sched-on-updates", "--warmup-epochs", "0"]


def augmentation(cfg: DictConfig) -> list[str]:
    """Return the flags of augment=none or augment=deit. ValueError for another augmentation.

    The repeated augmentation of DeiT is left out, because timm has it only for several devices.
    """
    augment, name = cfg.augment, cfg.hydra.runtime.choices.augment
    if name == "none":
        return ["--no-aug"]
    if name != "deit":
        raise ValueError(f"peer=timm: timm's train.py has no augment={name}: use augment=none or augment=deit")
    scale, ratio = augment.crop.scale, augment.crop.ratio
    flags = ["--scale", *map(str, scale), "--ratio", *map(str, ratio), "--hflip", "0.5" if augment.hflip else "0"]
    flags += ["--aa", "rand-m9-mstd0.5-inc1", "--reprob", str(augment.erase.prob), "--train-interpolation", "bicubic"]
    return [*flags, "--mixup", str(augment.mix.mixup), "--cutmix", str(augment.mix.cutmix)]
