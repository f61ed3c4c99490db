"""Robustness of a trained network: other image sizes, shuffled and moved images, parts of the test set."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pytorch_lightning as pl
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from patchbench.checks import Size, one_of, size, spell
from patchbench.data.batches import Batches, OneSplit
from patchbench.data.source import Source, Split, unreadable
from patchbench.evaluate.views import Changed, Some, moved, on_canvas, shuffled
from patchbench.train.task import Classify

SHIFTS = ("canvas", "scale")
SHUFFLES = ("patches", "pixels")


@dataclass(frozen=True)
class Views:
    """Views of the test images, beside the images as they are.

    sizes: (shift, image size); moves: pixels; patch_size: of the shuffles and of groups.
    """

    sizes: tuple[tuple[str, Size], ...]
    shuffles: tuple[str, ...]
    moves: tuple[int, ...]
    patch_size: Size


def read_views(
    *,
    img_size: int | Sequence[int | Sequence[int]],
    shift: str | Sequence[str],
    shuffle: str | Sequence[str],
    move: str | int | Sequence[int],
    patch: int | Sequence[int] | None,
    run_patch: Any,
) -> Views:
    """Read the options `eval.*`. ValueError names the one that cannot be."""
    patch_size = size("patch", run_patch) if patch is None else size("eval.patch", patch)
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
    return Views(tuple((v, s) for v in shifts for s in sizes), tuple(shuffles), tuple(steps), patch_size)


def splits_of(
    views: Views, source: Source, test: Split, test_at: Callable[[Size], Split]
) -> Iterator[tuple[str, Split]]:
    """The test split in each view, by name: canvas48, scale24x36, shuffled_patches, moved1.

    test_at: the test split of the same source at another image size. A source that knows better what its objects are
    has `test_at(img_size, shift)`.
    """
    for shift, img_size in views.sizes:
        if hasattr(source, "test_at"):
            split = source.test_at(img_size, shift)
        else:
            split = test_at(img_size) if shift == "scale" else Changed(test, on_canvas(img_size))
        yield f"{shift}{img_size[0]}" + (f"x{img_size[1]}" if img_size[0] != img_size[1] else ""), split
    for parts in views.shuffles:
        yield f"shuffled_{parts}", Changed(test, shuffled(views.patch_size if parts == "patches" else (1, 1)))
    for pixels in views.moves:
        yield f"moved{pixels}", Changed(test, moved(pixels))


def check_views(views: Views, net: Any, source: Source) -> None:
    """ValueError before training if the network, which may be on the meta device, cannot take these views."""
    height, width = source.img_size
    if "patches" in views.shuffles and (height % views.patch_size[0] or width % views.patch_size[1]):
        raise ValueError(
            f"eval.shuffle=patches: eval.patch={spell(views.patch_size)} does not cover data.img_size="
            f"{spell(source.img_size)} exactly: use an eval.patch that does"
        )
    device = next(net.parameters()).device
    for shift, img_size in views.sizes:
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
class Predictions:
    """The class that a network gives to each image of a split.

    indices: numbers of the images in the split. confidence, label_probability: probability of the class given, and of
    the label.
    """

    indices: Int[Tensor, " n"]
    classes: Int[Tensor, " n"]
    labels: Int[Tensor, " n"]
    confidence: Float[Tensor, " n"]
    label_probability: Float[Tensor, " n"]

    @property
    def hits(self) -> Bool[Tensor, " n"]:
        """Mask of the images that are given their own class."""
        return self.classes == self.labels

    def accuracy(self, chosen: Tensor | None = None) -> float:
        """Share of right classes among all images, or among those of a mask."""
        hits = self.hits.float()
        return float(hits.mean() if chosen is None else hits[chosen].mean())


def predict(trainer: pl.Trainer, task: Classify, data: Batches, split: Split) -> Predictions:
    """Predictions of all ranks together, in the order of the split."""
    batches: Any = trainer.predict(task, datamodule=OneSplit(data, split))
    columns = torch.cat([torch.stack([column.cpu().double() for column in batch]) for batch in batches], 1)
    order: Any = data.eval_dataloader(split).sampler
    bad = unreadable(split)  # left out when it was read
    mine = torch.cat([torch.tensor([i for chosen in order for i in chosen.indices if not bad[i]])[None], columns])
    if trainer.world_size > 1:
        shares: list[Any] = [None] * trainer.world_size
        torch.distributed.all_gather_object(shares, mine)
        mine = torch.cat(shares, 1)
    indices, classes, labels, confidence, label_probability = mine[:, mine[0].argsort()]
    return Predictions(indices.long(), classes.long(), labels.long(), confidence, label_probability)


def evaluate_views(
    trainer: pl.Trainer,
    task: Classify,
    data: Batches,
    views: Views,
    test_at: Callable[[Size], Split],
    most: int | None = None,
) -> dict[str, float]:
    """Accuracies `test/<view>/acc` of each view and group of images; of `most` images, evenly spaced, or of all.

    test/moved3/same: share of images that are given the same class when moved by 3 pixels (Zhang, 2019);
    test/shuffled_patches/same: when their patches lie in another order. test/shuffled_patches/lost: share of images
    that are classified rightly as they are, and wrongly in that order.
    A split that has `groups(patch_size)`, masks over its images by name, is told apart by them.
    """
    source, test = data.source, data.splits["test"]
    splits = dict(splits_of(views, source, test, test_at))
    if most is not None:
        test, splits = Some(test, most), {name: Some(split, most) for name, split in splits.items()}
    figures: dict[str, float] = {}
    plain = None
    if views.moves or views.shuffles or getattr(test, "groups", None):
        plain = predict(trainer, task, data, test)
        figures |= by_group("test", plain, test, views.patch_size)
    for name, split in splits.items():
        seen = predict(trainer, task, data, split)
        figures[f"test/{name}/acc"] = seen.accuracy()
        figures |= by_group(f"test/{name}", seen, split, views.patch_size)
        if plain and name.startswith(("moved", "shuffled")):
            figures[f"test/{name}/same"] = float((seen.classes == plain.classes).float().mean())
        if plain and name.startswith("shuffled"):
            figures[f"test/{name}/lost"] = float((plain.hits & ~seen.hits).float().mean())
    return figures


def by_group(prefix: str, seen: Predictions, split: Any, patch_size: Size) -> dict[str, float]:
    """Accuracy of each group of a split, by name; none where the split has no groups."""
    groups_of = getattr(split, "groups", None)
    groups: Mapping[str, Tensor] = groups_of(patch_size) if groups_of else {}
    masks = {name: mask[seen.indices] for name, mask in groups.items()}
    return {f"{prefix}/{name}/acc": seen.accuracy(mask) for name, mask in masks.items() if mask.any()}
