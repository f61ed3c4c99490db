"""Explanation of an input stage with one image: a table in the terminal, and a page."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from patchbench.commands.build import build_augment, build_net
from patchbench.commands.draft import Draft, draft
from patchbench.commands.reopen import naming_own_options
from patchbench.commands.starts import build_starts, starts_elsewhere
from patchbench.commands.values import check_values
from patchbench.config.errors import refusing
from patchbench.config.names import command_line, embedding_name, title
from patchbench.config.options import CONF
from patchbench.config.origin import origin_of, restored
from patchbench.data.batches import Batches, Reader
from patchbench.data.draws import train_draws
from patchbench.data.order import BatchIndices
from patchbench.data.photographs import is_grey, photograph
from patchbench.data.source import Source
from patchbench.layout import PLACES
from patchbench.machine import printable, write_whole
from patchbench.measure import places
from patchbench.nets.memory import memory
from patchbench.pages.explain.augmented import AugmentedSamples
from patchbench.pages.explain.breakdown import CostBreakdown, break_down
from patchbench.pages.explain.explanation import Explanation
from patchbench.pages.explain.page import page
from patchbench.pages.explain.terminal import print_walk
from patchbench.pages.explain.walk import steps, walk
from patchbench.track.terminal import say
from patchbench.train.checkpoint import read_checkpoint
from patchbench.weights.read import net_state

BESIDE_CKPT = ("ckpt", "image", "data_root", "runs_dir")  # options that may be given with a checkpoint
IMAGES, SHOWINGS = 6, 7  # training images that the page shows, and augmented versions of each image
HEAVY = 2**31  # bytes; a positional scheme with larger tables is counted, but not built


def explain(cfg: DictConfig, choices: Mapping[str, str], given: Sequence[str]) -> Path:
    """Print the way of one image through the input stage, write the page, and return its path.

    choices: the option chosen in each group. given: the arguments of the command. Refused, before anything is written,
    if the configuration is impossible or the image does not exist.
    """
    with refusing():
        image, runs_dir, state = cfg.image, Path(cfg.runs_dir), None
        if cfg.ckpt:
            checkpoint = checkpoint_alone(cfg.ckpt, given)
            origin, state = checkpoint["patchbench"], net_state(checkpoint)
            cfg = restored(origin, cfg.data_root)
        else:
            if cfg.data_root:
                raise ValueError(f"data_root={cfg.data_root} needs ckpt; without ckpt, use data.root={cfg.data_root}")
            check_values(cfg)
            origin = origin_of(cfg, choices)
        levels = origin["factors"]
        with nullcontext() if state is None else naming_own_options():
            plan = draft(cfg)
        if levels["pos"] is None:
            raise ValueError(
                f"model={levels['model']} reads no position, and this page explains a Vision Transformer: use "
                "model=tiny, or another model that reads positions"
            )
        source, schemes = plan.source, scheme_of_places(cfg)
        this = cost_of(embedding_name(levels), plan)
        breakdowns = [this, *standard(plan, this)]
        shapes = places.shapes(plan.net)
        weight = sum(tensor.nbytes for tensor in position(plan.net))
        image, pixels, subject = one_image(source, image, colour=state is None)
        torch.manual_seed(cfg.seed)
        net = build_net(cfg if weight <= HEAVY else with_model(cfg, "pos", {}), source)
        if state is not None:
            net.load_state_dict(state, strict=weight <= HEAVY)
        data: Any = Batches(
            source,
            build_augment(cfg, source),
            batch_size=cfg.batch_size,
            seed=cfg.seed,
            workers=0,
            limit=None,
            resident_bytes=0,
        )
        data.setup("fit")
        if state is None and (images := getattr(net.embed, "fit_images", 0)):
            net.embed.fit(data.sample(images))  # as training does before its first step
        augmented = augmented_samples(data) if data.augment.active else None
        mean, std = (torch.tensor(v, dtype=torch.float32).view(-1, 1, 1) for v in (source.mean, source.std))
        known = not starts_elsewhere(origin["config"])
        way = walk(net, pixels, subject, mean, std, build_starts(cfg, source, data) if known else None)

    rows = steps(way, schemes, shapes)
    explanation = Explanation(
        title=title(levels),
        options=command_line(levels),
        weights="The weights are those that the run learnt."
        if state is not None
        else f"Nothing is trained yet: the weights are those from which seed={cfg.seed} starts.",
        trained=state is not None,
        walk=way,
        steps=rows,
        breakdowns=breakdowns,
        schemes={place: schemes[place] for place in places.filled(plan.net)},
        net=net,
        augmented=augmented,
        left_out=""
        if weight <= HEAVY
        else f"<p>Its tables would take {weight / 2**30:.3g} GiB, so they are counted, not drawn.</p>",
    )
    stem = origin["name"].replace("/", "-").replace(" ", "_")
    trained = "_trained" if state is not None else ""
    shown = f"image{image}" if isinstance(image, int) else Path(image).stem
    path = runs_dir / "explain" / f"{stem}_{levels['model']}_{origin['identity']}{trained}_{shown}.html"
    for remark in getattr(source, "remarks", ()):
        say(remark)
    print_walk(explanation.title, rows, breakdowns)  # at once: the figures take seconds
    html = page(explanation)
    with refusing():
        write_whole(path, html)
    print(path)
    return path


def checkpoint_alone(ckpt: str, given: Sequence[str]) -> dict[str, Any]:
    """Read a checkpoint. ValueError if options are given that the checkpoint determines."""
    keys = [argument.lstrip("+~").split("=")[0] for argument in given]
    if surplus := [argument for argument, key in zip(given, keys, strict=True) if key not in BESIDE_CKPT]:
        raise ValueError(
            f"ckpt={ckpt} contains the configuration of its training: leave out {' '.join(surplus)}, or leave out "
            f"ckpt; only {', '.join(BESIDE_CKPT[1:])} can be given with it"
        )
    return read_checkpoint(ckpt)


def one_image(source: Source, image: str | None, *, colour: bool) -> tuple[int | str, torch.Tensor, str]:
    """Read the image of the page; return its number or name, its pixels, and its description in words.

    image: the number of a test image, or a picture, see `photograph`; None: the first test image. colour: replace a
    grey first test image by a photograph, since three equal channels do not show the path of a channel. ValueError if
    the image does not exist or does not decode.
    """
    if image is not None and not image.isdecimal():
        return image, photograph(image, source.img_size, source.in_chans), f"the photograph {image}"
    test, index = source.splits()["test"], int(image or 0)
    if not 0 <= index < len(test):
        raise ValueError(f"image={index} does not exist: the test split has images 0 to {len(test) - 1}")
    images, labels = test.read([index])
    if not len(images):
        raise ValueError(f"image={index} does not decode: use another image")
    if image is None and colour and len(images[0]) == 3 and is_grey(images[0]):
        subject = "the photograph flower, since test image 0 is grey (image=0 shows that one)"
        return "flower", photograph("flower", source.img_size, source.in_chans), subject
    names = getattr(source, "classes", None)
    label = int(labels[0])
    return index, images[0], f"test image {index}, class {names[label] if names else label}"


def augmented_samples(data: Batches) -> AugmentedSamples:
    """Return evenly spaced training images: each without augmentation, and as augmented in SHOWINGS epochs."""
    source, split = data.source, data.splits["train"]
    rows = min(IMAGES, len(split))
    indices = [i * len(split) // rows for i in range(rows)]
    reader, mean, std = (
        Reader(split, data.augment.crop),
        *(torch.tensor(v)[:, None, None] for v in (source.mean, source.std)),
    )
    pixels, labels = [], []
    for showing in range(SHOWINGS + 1):
        draws = train_draws(data.seed, showing, torch.arange(rows)) if showing else None
        images, label = data.on_after_batch_transfer(reader[BatchIndices(indices, draws)], 0)
        pixels.append((images * std + mean).clamp(0, 1))
        labels.append(label if label.ndim == 2 else F.one_hot(label, source.num_classes).float())
    classes = getattr(source, "classes", None) or [f"class {i}" for i in range(source.num_classes)]
    names = [printable(str(name)) for name in classes]
    return AugmentedSamples(torch.stack(pixels, 1), torch.stack(labels, 1), names)


def scheme_of_places(cfg: DictConfig) -> dict[str, str]:
    """Return the name of the scheme in each place that is filled, by place."""
    return {
        place: name
        for name, scheme in instantiate(cfg.pos, _convert_="all").items()
        for place, build in vars(scheme).items()
        if build is not None and place in PLACES
    }


def cost_of(name: str, plan: Draft) -> CostBreakdown:
    """Break down the cost of a network by its parts. name: name of its embedding, for the page."""
    net, source = plan.net.eval(), plan.source
    needed = memory(net, net.layout, source.in_chans, source.img_size, bf16=False)
    return break_down(name, net, plan.cost, needed, (source.in_chans, *source.img_size))


def standard(plan: Draft, this: CostBreakdown) -> list[CostBreakdown]:
    """Return the cost with the standard embedding, a convolution with patches of 16.

    The list is empty if the network cannot have this embedding, or has it already.
    """
    conv = OmegaConf.merge(OmegaConf.load(CONF / "embed" / "conv.yaml"), {"patch_size": 16, "pad": True})
    try:
        other = cost_of("conv/16", draft(with_model(plan.cfg, "embed", conv), plan.source))
    except ValueError:  # the scheme does not fit that grid
        return []
    return [] if this.name == other.name and this.cost == other.cost else [other]


def with_model(cfg: DictConfig, part: str, value: Any) -> DictConfig:
    """Return a copy of the configuration with another part of the network. part: name of a knob of `model`."""
    copy: Any = OmegaConf.create(OmegaConf.to_container(cfg, resolve=True))
    copy.model[part] = value
    return copy


def position(net: Any) -> Iterator[torch.Tensor]:
    """Yield the parameters and buffers of the positional schemes of a network."""
    for place in places.filled(net):
        for module in places.modules(net, place):
            yield from (*module.parameters(), *module.buffers())
