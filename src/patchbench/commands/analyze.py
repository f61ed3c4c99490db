"""Analysis of the input stage of a trained network: pictures, a page and numbers."""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pytorch_lightning as pl
import torch
from omegaconf import DictConfig

from patchbench.checks import Size, size
from patchbench.commands.build import build_net
from patchbench.commands.draft import Draft
from patchbench.commands.loading import loading
from patchbench.commands.reopen import Machine, reopen
from patchbench.commands.starts import build_starts, starts_elsewhere
from patchbench.config.errors import refusing
from patchbench.config.identity import reads, to_plain
from patchbench.config.names import command_line, title
from patchbench.config.origin import restored
from patchbench.data.batches import Batches
from patchbench.data.source import Source
from patchbench.evaluate.robustness import Views, check_views, evaluate_views
from patchbench.evaluate.views import Subset
from patchbench.html import png
from patchbench.machine import write_whole
from patchbench.measure.network import MOST_BYTES, measure
from patchbench.measure.places import evenly_spaced
from patchbench.measure.readings import readings, summary
from patchbench.pages.analyze.figures import pictures
from patchbench.pages.analyze.page import page
from patchbench.pages.plots import LOOK
from patchbench.runs.record import write_record
from patchbench.train.checkpoint import read_checkpoint
from patchbench.train.task import Classify
from patchbench.weights.read import net_state

SIZES = (0.75, 1.25)  # factors of the image size; the sizes are rounded to whole patches
MOVES = 3  # number of shifts of up to a patch, in addition to no shift
WORK = {"cpu": 6e11, "cuda": 2e14}  # multiply-accumulates for robustness: about 20 seconds
HOW = "scripts/analyze.py with images=<number>"
FEWEST, LOOKED_AT = 16, 512  # test images: at least for robustness, at most for everything else


@dataclass(frozen=True)
class Analysis:
    """Result of an analysis. numbers: by their names in the record, `analysis/...`. pictures: paths by name.

    On ranks other than the first, numbers, pictures and left_out are empty.
    """

    numbers: dict[str, float]
    pictures: dict[str, Path]
    left_out: list[str]
    page: Path


def analyze(
    ckpt: Path, out: Path, machine: Machine, *, images: int | None, of: dict[str, Any] | None = None
) -> Analysis:
    """Analyse the network of a checkpoint, see `analysis`. Refused if the checkpoint or its data cannot be read.

    of: record of the run to which the checkpoint must belong; None: any run.
    """
    with refusing():
        if images is not None and images < FEWEST:
            raise ValueError(f"images={images} are too few to measure an accuracy: use {FEWEST} or more, or null")
        run = reopen(ckpt, machine, of=of)
    with loading():
        return analysis(run.draft, run.trainer, run.task, run.data, ckpt, out, images=images)


def analyze_again(cfg: DictConfig, done: dict[str, Any], out_dir: Path) -> dict[str, Any]:
    """Add the analysis to the record of a finished run that was trained without it, and return the record."""
    machine = Machine(cfg.trainer, cfg.workers, cfg.resident, cfg.data.get("root"), cfg.data.get("max_skipped"))
    result = analyze(out_dir / f"{cfg.tested}.ckpt", out_dir, machine, images=None, of=done)
    done |= {"result": done["result"] | result.numbers}
    write_record(out_dir / "run.json", done)
    return done


def analysis(
    draft: Draft,
    trainer: pl.Trainer,
    task: Classify,
    data: Batches,
    ckpt: Path,
    out: Path,
    *,
    images: int | None = None,
) -> Analysis:
    """Write analysis.html, and the folder analysis/ with each picture and the numbers, into `out`.

    task: with the weights of `ckpt`, for robustness, which all ranks measure together; the first rank measures the
    rest. images: number of test images for robustness; None: as many as take about 20 seconds.
    """
    if not data.splits:
        data.setup("")
    robust, left_out = robustness(draft, trainer, task, data, images)
    result = Analysis({}, {}, [], out / "analysis.html")
    if trainer.is_global_zero:
        result = look(draft, ckpt, data, out, robust, left_out, trainer.strategy.root_device)
    trainer.strategy.barrier()
    return result


def look(
    draft: Draft,
    ckpt: Path,
    data: Batches,
    out: Path,
    robust: dict[str, float],
    left_out: list[str],
    device: torch.device,
) -> Analysis:
    """Measure the network of a checkpoint, write its pictures, numbers and page into `out`, and print a summary."""
    checkpoint, source = read_checkpoint(ckpt), data.source
    origin = checkpoint["patchbench"]
    cfg = restored(origin)
    net = build_net(cfg, source)
    net.load_state_dict(net_state(checkpoint))
    known = net.layout is not None and not starts_elsewhere(origin["config"])
    starts = build_starts(cfg, source, data) if known else None
    test = Subset(data.splits["test"], LOOKED_AT)
    raw, _ = test.read(range(len(test)))
    scaled = data.normalised(raw)
    measures = measure(net, raw, scaled, macs=draft.cost.macs, device=device, starts=starts)
    left_out = [*measures.left_out, *left_out]
    numbers = measures.numbers() | {f"analysis/robust/{name}": value for name, value in robust.items()}
    folder, paths = out / "analysis", {}
    folder.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context(LOOK):
        drawn = {name: png(figure) for name, figure in pictures(measures, robust).items()}
    for name, picture in drawn.items():
        paths[name] = folder / f"{name}.png"
        paths[name].write_bytes(picture)
    findings = readings(measures, robust, source.num_classes)
    levels = origin["factors"]
    short = summary(measures, robust, findings)
    text = page(title(levels), command_line(levels), measures, numbers, drawn, findings, short, left_out)
    result = Analysis(numbers, paths, left_out, out / "analysis.html")
    for path, content in ((folder / "numbers.json", json.dumps(numbers, indent=2) + "\n"), (result.page, text)):
        write_whole(path, content)
    for line in short:
        print(f"  {line}", flush=True)
    print(f"{len(paths)} pictures and {len(numbers)} numbers of the input stage: {result.page}", flush=True)
    for line in left_out:
        print(f"  left out: {line}", flush=True)
    return result


def robustness(
    draft: Draft, trainer: pl.Trainer, task: Classify, data: Batches, images: int | None
) -> tuple[dict[str, float], list[str]]:
    """Return the robustness by name, and what was left out, in words.

    Names: <view>/acc of each view; <view>/same of shuffles and shifts; <view>/lost of shuffles; the accuracy of each
    group of images, if the split has groups; `images`, the number of test images. See `evaluate_views`.
    images: see `analysis`.
    """
    left_out: list[str] = []
    views = views_of(draft, left_out)
    work = draft.cost.macs * (len(views.shuffles) + len(views.moves) + 1)
    work += sum(draft.macs_at(img_size) for _, img_size in views.sizes)
    if images is None:
        images = max(FEWEST, int(WORK[trainer.strategy.root_device.type] / work))
    available = len(data.splits["test"])
    if data.limit is not None:
        available = min(available, data.limit * data.batch_size)
    images = min(images, available)
    if images < available:
        left_out.append(f"robustness: {available - images:,} of {available:,} test images; {HOW} measures more")
    figures = evaluate_views(trainer, task, data, views, draft.test_at, most=images)
    return {name.removeprefix("test/"): value for name, value in figures.items()} | {"images": images}, left_out


def views_of(draft: Draft, left_out: list[str]) -> Views:
    """Return the views to measure: other sizes, shuffled patches and pixels, and shifts of up to a patch.

    The reasons against views that the network or the images do not allow are appended to `left_out`.
    """
    net, source = draft.net, draft.source
    patch_size = size("patch", to_plain(draft.cfg.patch))
    sizes, shuffles = [], []
    for img_size in sorted(set(other_sizes(source.img_size, patch_size if reads(draft.cfg, "patch") else (1, 1)))):
        try:
            check_views(Views((("scale", img_size),), (), (), patch_size), net, source)
            refuse_long(net, source, img_size)
            sizes.append(("scale", img_size))
        except ValueError as error:
            left_out.append(f"robustness at {img_size[0]}×{img_size[1]} pixels: {error}")
    for shuffle in ("patches", "pixels"):
        try:
            check_views(Views((), (shuffle,), (), patch_size), net, source)
            shuffles.append(shuffle)
        except ValueError as error:
            left_out.append(f"robustness: {error}")
    moves = (0, *(1 + i for i in evenly_spaced(max(patch_size), MOVES)))
    return Views(tuple(sizes), tuple(shuffles), moves, patch_size)


def other_sizes(img_size: Size, step: Size) -> Iterator[Size]:
    """Yield image sizes that are smaller and larger than that of the images, as multiples of `step`."""
    for factor in SIZES:
        height, width = (max(1, round(factor * n / s)) * s for n, s in zip(img_size, step, strict=True))
        if (height, width) != img_size:
            yield height, width


def refuse_long(net: Any, source: Source, img_size: Size) -> None:
    """Raise ValueError if the attention weights of a block, were they stored, would take more than MOST_BYTES."""
    if net.layout is not None:
        with torch.no_grad():
            shape = net.embed(torch.empty(1, source.in_chans, *img_size, device="meta")).shape
        if 4 * net.layout.num_heads * math.prod(shape[1:3]) ** 2 > MOST_BYTES:
            raise ValueError(f"{math.prod(shape[1:3]):,} tokens are too many to try")
