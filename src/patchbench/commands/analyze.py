"""From a checkpoint to pictures, a page and numbers of what its input stage learned."""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pytorch_lightning as pl
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from patchbench.checks import Size, size
from patchbench.commands.build import (
    build_duration,
    build_net,
    build_task,
    check_workers,
    configuration,
    network_cost,
    prepare_data,
    restore,
    split_at_size,
)
from patchbench.config.errors import refusing
from patchbench.config.identity import command_line, display_name, reads
from patchbench.data.batches import Batches
from patchbench.data.pictures import BadImage
from patchbench.data.source import Source
from patchbench.evaluate.robustness import Questions, ask, check
from patchbench.evaluate.views import Some
from patchbench.html import png
from patchbench.measure.network import MOST_BYTES, measure
from patchbench.measure.places import spread
from patchbench.nets.cost import cost
from patchbench.pages.analyze.figures import pictures
from patchbench.pages.analyze.page import page
from patchbench.pages.plots import LOOK
from patchbench.train.checkpoint import read_checkpoint
from patchbench.train.shard import load_weights
from patchbench.train.task import Classify
from patchbench.weights.read import net_state

SIZES = (0.75, 1.25)  # of the side, in whole patches
MOVES = 3  # up to a patch, beside none
WORK = {"cpu": 6e11, "cuda": 2e14}  # multiply-adds for robustness: some 20 seconds
HOW = "scripts/analyze.py with images=<number>"
FEWEST, LOOKED_AT = 16, 512  # test images: of robustness at least, of everything else at most


@dataclass(frozen=True)
class Found:
    """Numbers by the names of the record, `analysis/...`; on other ranks than the first, nothing."""

    numbers: dict[str, float]
    pictures: dict[str, Path]
    left_out: list[str]
    page: Path


def analyze(
    ckpt: Path,
    out: Path,
    trainer_cfg: DictConfig,
    *,
    workers: int | str,
    resident: float,
    images: int | None,
    data_root: str | None,
) -> Found:
    """Ask the network of a checkpoint, see `analysis`. Refused where it or its data cannot be read."""
    with refusing():
        check_workers(workers)
        if images is not None and images < FEWEST:
            raise ValueError(f"images={images} are too few to tell an accuracy: use {FEWEST} or more, or null")
        cfg, source = restore(read_checkpoint(ckpt), data_root)
        cfg.workers, cfg.resident = workers, resident
        trainer = instantiate(trainer_cfg)(max_epochs=0, out_dir=ckpt.parent, callbacks=[])
        data = prepare_data(cfg, source, trainer)
        duration = build_duration(cfg, data, network_cost(cfg, source))
        task = build_task(cfg, build_net(cfg, source), data, duration)
        load_weights(task, read_checkpoint(ckpt)["state_dict"])
    with refusing(BadImage):
        return analysis(cfg, trainer, task, data, ckpt, out, images=images)


def analysis(
    cfg: DictConfig,
    trainer: pl.Trainer,
    task: Classify,
    data: Batches,
    ckpt: Path,
    out: Path,
    *,
    images: int | None = None,
) -> Found:
    """Write analysis.html and the folder analysis/ with each picture and the numbers into `out`.

    task: with the weights of `ckpt`, for robustness, which all ranks find together; the rest is left to the first.
    images: of the test split, for robustness; None: as many as some seconds suffice for.
    """
    if not data.splits:
        data.setup("")
    robust, left_out = robustness(cfg, trainer, task, data, images)
    found = Found({}, {}, [], out / "analysis.html")
    if trainer.is_global_zero:
        found = look(ckpt, data, out, robust, left_out, trainer.strategy.root_device)
    trainer.strategy.barrier()
    return found


def look(
    ckpt: Path, data: Batches, out: Path, robust: dict[str, float], left_out: list[str], device: torch.device
) -> Found:
    """Measure, draw and write."""
    checkpoint = read_checkpoint(ckpt)
    cfg, source = configuration(checkpoint), data.source
    net = build_net(cfg, source)
    net.load_state_dict(net_state(checkpoint))
    test = Some(data.splits["test"], LOOKED_AT)
    raw, _ = test.read(range(len(test)))
    scaled = data.normalised(raw)
    measures = measure(net, raw, scaled, macs=macs_at(cfg, source, source.img_size), device=device)
    left_out = [*measures.left_out, *left_out]
    numbers = measures.numbers() | {f"analysis/robust/{name}": value for name, value in robust.items()}
    levels = checkpoint["patchbench"]["factors"]
    folder, paths = out / "analysis", {}
    folder.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context(LOOK):
        drawn = {name: png(figure) for name, figure in pictures(measures, robust).items()}
    for name, picture in drawn.items():
        paths[name] = folder / f"{name}.png"
        paths[name].write_bytes(picture)
    title = f"{display_name(levels)}, {levels['model']}"
    text = page(title, command_line(levels), measures, numbers, drawn, left_out)
    found = Found(numbers, paths, left_out, out / "analysis.html")
    (folder / "numbers.json").write_text(json.dumps(numbers, indent=2) + "\n")
    found.page.write_text(text, encoding="utf-8")
    print(f"{len(paths)} pictures and {len(numbers)} numbers of the input stage: {found.page}", flush=True)
    for line in left_out:
        print(f"  left out: {line}", flush=True)
    return found


def robustness(
    cfg: DictConfig, trainer: pl.Trainer, task: Classify, data: Batches, images: int | None
) -> tuple[dict[str, float], list[str]]:
    """`<view>/acc` of each view, `moved<k>/same` as well, and `images`, their number; and what could not be asked."""
    left_out: list[str] = []
    asked = questions(cfg, data.source, left_out)
    plain = macs_at(cfg, data.source, data.source.img_size)
    work = plain * (len(asked.shuffles) + len(asked.moves) + 1)
    work += sum(macs_at(cfg, data.source, img_size) for _, img_size in asked.sizes)
    if images is None:
        images = max(FEWEST, int(WORK[trainer.strategy.root_device.type] / work))
    there = len(data.splits["test"])
    if data.limit is not None:
        there = min(there, data.limit * data.batch_size)
    images = min(images, there)
    if images < there:
        left_out.append(f"robustness: all but {images:,} of {there:,} test images; {HOW} takes more")
    found = ask(trainer, task, data, asked, split_at_size(cfg), most=images)
    return {name.removeprefix("test/"): value for name, value in found.items()} | {"images": images}, left_out


def questions(cfg: DictConfig, source: Source, left_out: list[str]) -> Questions:
    """Shuffles of patches and pixels, moves up to a patch, other sizes; those that cannot be asked go to `left_out`."""
    patch_size = size("patch", OmegaConf.to_object(cfg.patch) if OmegaConf.is_list(cfg.patch) else cfg.patch)
    with torch.device("meta"):
        net = build_net(cfg, source)
    sizes, shuffles = [], []
    for img_size in sorted(set(other_sizes(source.img_size, patch_size if reads(cfg, "patch") else (1, 1)))):
        try:
            check(Questions((("scale", img_size),), (), (), patch_size), net, source)
            refuse_long(net, source, img_size)
            sizes.append(("scale", img_size))
        except ValueError as error:
            left_out.append(f"robustness at {img_size[0]}×{img_size[1]} pixels: {error}")
    for shuffle in ("patches", "pixels"):
        try:
            check(Questions((), (shuffle,), (), patch_size), net, source)
            shuffles.append(shuffle)
        except ValueError as error:
            left_out.append(f"robustness: {error}")
    moves = (0, *(1 + i for i in spread(max(patch_size), MOVES)))
    return Questions(tuple(sizes), tuple(shuffles), moves, patch_size)


def other_sizes(img_size: Size, step: Size) -> Iterator[Size]:
    for factor in SIZES:
        height, width = (max(1, round(factor * n / s)) * s for n, s in zip(img_size, step, strict=True))
        if (height, width) != img_size:
            yield height, width


def refuse_long(net: Any, source: Source, img_size: Size) -> None:
    """ValueError where attention over the image would be too much to hold, were it not fused."""
    if net.layout is not None:
        with torch.no_grad():
            shape = net.embed(torch.empty(1, source.in_chans, *img_size, device="meta")).shape
        if 4 * net.layout.num_heads * math.prod(shape[1:3]) ** 2 > MOST_BYTES:
            raise ValueError(f"{math.prod(shape[1:3]):,} tokens are too many to try")


def macs_at(cfg: DictConfig, source: Source, img_size: Size) -> int:
    """Of one image of this size."""
    with torch.device("meta"):
        net = build_net(cfg, source)
    return cost(net, net.layout, source.in_chans, img_size).macs
