"""What else is asked of a trained network: other image sizes, shuffled and moved images, parts of the test set."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pytorch_lightning as pl
import torch
from jaxtyping import Float, Int
from torch import Tensor

from patchbench.checks import Size, one_of, size, spell
from patchbench.data.batches import Batches
from patchbench.data.source import Source, Split, unreadable
from patchbench.evaluate.views import Changed, Some, moved, on_canvas, shuffled
from patchbench.train.task import Classify

SHIFTS = ("canvas", "scale")
SHUFFLES = ("patches", "pixels")


@dataclass(frozen=True)
class Questions:
    """What to ask, checked. sizes: (shift, image size); moves: pixels; patch_size: of the shuffles and of groups."""

    sizes: tuple[tuple[str, Size], ...]
    shuffles: tuple[str, ...]
    moves: tuple[int, ...]
    patch_size: Size


def questions(
    *,
    img_size: Any,
    shift: str | Sequence[str],
    shuffle: str | Sequence[str],
    move: str | int | Sequence[int],
    patch: int | Sequence[int] | None,
    run_patch: Any,
) -> Questions:
    """From the options `eval.*`. ValueError names the one that cannot be."""
    patch_size = size("eval.patch", run_patch if patch is None else patch)
    listed = [img_size] if isinstance(img_size, int) else img_size
    sizes = [size("eval.img_size", s) for s in listed]
    shifts, shuffles = ([v] if isinstance(v, str) else list(v) for v in (shift, shuffle))
    for value in shifts:
        one_of("eval.shift", value, SHIFTS)
    for value in shuffles:
        one_of("eval.shuffle", value, SHUFFLES)
    steps: Any = range(1, max(patch_size)) if move == "all" else [move] if isinstance(move, int | str) else move
    if not all(isinstance(k, int) and k > 0 for k in steps):
        raise ValueError(f"eval.move={move} must list pixels, each above 0, as in eval.move=[1,2,3], or be all")
    return Questions(tuple((v, s) for v in shifts for s in sizes), tuple(shuffles), tuple(steps), patch_size)


def views(
    asked: Questions, source: Source, test: Split, scaled: Callable[[Size], Split]
) -> Iterator[tuple[str, Split]]:
    """The views of the test split by name: canvas48, scale24x36, shuffled_patches, moved1.

    scaled: the test split of the same source at another image size. A source that knows better what its objects are has
    `test_at(img_size, shift)`.
    """
    for shift, img_size in asked.sizes:
        if hasattr(source, "test_at"):
            split = source.test_at(img_size, shift)
        else:
            split = scaled(img_size) if shift == "scale" else Changed(test, on_canvas(img_size))
        yield f"{shift}{img_size[0]}" + (f"x{img_size[1]}" if img_size[0] != img_size[1] else ""), split
    for what in asked.shuffles:
        yield f"shuffled_{what}", Changed(test, shuffled(asked.patch_size if what == "patches" else (1, 1)))
    for pixels in asked.moves:
        yield f"moved{pixels}", Changed(test, moved(pixels))


def check(asked: Questions, net: Any, source: Source) -> None:
    """ValueError before training if the network, which may be on the meta device, cannot take what will be asked."""
    height, width = source.img_size
    if "patches" in asked.shuffles and (height % asked.patch_size[0] or width % asked.patch_size[1]):
        raise ValueError(
            f"eval.shuffle=patches: eval.patch={spell(asked.patch_size)} does not cover data.img_size="
            f"{spell(source.img_size)} exactly: use an eval.patch that does"
        )
    device = next(net.parameters()).device
    for shift, img_size in asked.sizes:
        if hasattr(source, "test_at"):
            source.test_at(img_size, shift)
        elif shift == "canvas":
            on_canvas(img_size)(torch.zeros(1, 1, height, width, dtype=torch.uint8), torch.zeros(1, dtype=torch.int64))
        try:
            with torch.no_grad():
                net.eval()(torch.empty(1, source.in_chans, *img_size, device=device))
        except (ValueError, AssertionError, RuntimeError) as error:  # the latter two of timm's networks and of torch
            raise ValueError(f"eval.img_size={spell(img_size)} cannot be asked of this network: {error}") from error


@dataclass(frozen=True)
class Answers:
    """What the network said: the class of each image asked for, by its number in the split.

    sure, right: the probability of that class, and of the label.
    """

    indices: Int[Tensor, " n"]
    classes: Int[Tensor, " n"]
    labels: Int[Tensor, " n"]
    sure: Float[Tensor, " n"]
    right: Float[Tensor, " n"]

    def accuracy(self, chosen: Tensor | None = None) -> float:
        hits = (self.classes == self.labels).float()
        return float(hits.mean() if chosen is None else hits[chosen].mean())


def answers(trainer: pl.Trainer, task: Classify, data: Batches, split: Split) -> Answers:
    """Of all ranks together, in the order of the split."""
    data.asked = split
    said: Any = trainer.predict(task, datamodule=data)
    columns = torch.cat([torch.stack([column.cpu().double() for column in batch]) for batch in said], 1)
    order: Any = data.predict_dataloader().sampler
    bad = unreadable(split)  # left out when it was read
    mine = torch.cat([torch.tensor([i for chosen in order for i in chosen.indices if not bad[i]])[None], columns])
    if trainer.world_size > 1:
        shares: list[Any] = [None] * trainer.world_size
        torch.distributed.all_gather_object(shares, mine)
        mine = torch.cat(shares, 1)
    indices, classes, labels, sure, right = mine[:, mine[0].argsort()]
    return Answers(indices.long(), classes.long(), labels.long(), sure, right)


def ask(
    trainer: pl.Trainer,
    task: Classify,
    data: Batches,
    asked: Questions,
    scaled: Callable[[Size], Split],
    most: int | None = None,
) -> dict[str, float]:
    """The figures, `test/<view>/acc` of each view and group of images; of `most` images, evenly spaced, or of all.

    test/moved3/same: share of images that are given the same class when moved by 3 pixels (Zhang, 2019).
    A split that has `groups(patch_size)`, masks over its images by name, is told apart by them.
    """
    source, test = data.source, data.splits["test"]
    found = dict(views(asked, source, test, scaled))
    if most is not None:
        test, found = Some(test, most), {name: Some(split, most) for name, split in found.items()}
    figures: dict[str, float] = {}
    plain = None
    if asked.moves or getattr(test, "groups", None):
        plain = answers(trainer, task, data, test)
        figures |= by_group("test", plain, test, asked.patch_size)
    for name, split in found.items():
        said = answers(trainer, task, data, split)
        figures[f"test/{name}/acc"] = said.accuracy()
        figures |= by_group(f"test/{name}", said, split, asked.patch_size)
        if plain and name.startswith("moved"):
            figures[f"test/{name}/same"] = float((said.classes == plain.classes).float().mean())
    return figures


def by_group(prefix: str, said: Answers, split: Any, patch_size: Size) -> dict[str, float]:
    tell = getattr(split, "groups", None)
    groups: Mapping[str, Tensor] = tell(patch_size) if tell else {}
    masks = {name: mask[said.indices] for name, mask in groups.items()}
    return {f"{prefix}/{name}/acc": said.accuracy(mask) for name, mask in masks.items() if mask.any()}
