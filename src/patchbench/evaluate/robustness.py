"""Robustness of a trained network: other image sizes, shuffled and shifted images, groups of test images."""

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
from patchbench.evaluate.views import ChangedSplit, Subset, place_on_canvas, shift_images, shuffle_patches
from patchbench.train.task import Classify

SHIFTS = ("canvas", "scale")
SHUFFLES = ("patches", "pixels")


@dataclass(frozen=True)
class Views:
    """Changes of the test images to evaluate, in addition to the unchanged images.

    sizes: pairs (shift, image size). shuffles: `patches`, `pixels`. moves: shifts in pixels. patch_size: patches for
    the shuffles and for groups of images.
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
    """Read the options `eval.*`. ValueError names an option with an impossible value.

    run_patch: the option `patch` of the run, which is used if `patch` is None.
    """
    patch_size = size("patch", run_patch) if patch is None else size("eval.patch", patch)
    given_sizes = [img_size] if isinstance(img_size, int) else img_size
    sizes = [size("eval.img_size", s) for s in given_sizes]
    shifts, shuffles = ([v] if isinstance(v, str) else list(v) for v in (shift, shuffle))
    for value in shifts:
        one_of("eval.shift", value, SHIFTS)
    for value in shuffles:
        one_of("eval.shuffle", value, SHUFFLES)
    steps: Any = range(1, max(patch_size)) if move == "all" else [move] if isinstance(move, int | str) else move
    if not all(isinstance(k, int) and k > 0 for k in steps):
        raise ValueError(f"eval.move={move} must list pixels, each above 0, as in eval.move=[1,2,3], or be all")
    return Views(tuple((v, s) for v in shifts for s in sizes), tuple(shuffles), tuple(steps), patch_size)


def view_splits(
    views: Views, source: Source, test: Split, test_at: Callable[[Size], Split]
) -> Iterator[tuple[str, Split]]:
    """Make the test split in each view, with its name: canvas48, scale24x36, shuffled_patches, moved1.

    test_at: returns the test split of the same source at another image size. It is not used if the source has its own
    method `test_at(img_size, shift)`, which knows the objects in its images.
    """
    for shift, img_size in views.sizes:
        if hasattr(source, "test_at"):
            split = source.test_at(img_size, shift)
        else:
            split = test_at(img_size) if shift == "scale" else ChangedSplit(test, place_on_canvas(img_size))
        yield f"{shift}{img_size[0]}" + (f"x{img_size[1]}" if img_size[0] != img_size[1] else ""), split
    for parts in views.shuffles:
        yield (
            f"shuffled_{parts}",
            ChangedSplit(test, shuffle_patches(views.patch_size if parts == "patches" else (1, 1))),
        )
    for pixels in views.moves:
        yield f"moved{pixels}", ChangedSplit(test, shift_images(pixels))


def check_views(views: Views, net: Any, source: Source) -> None:
    """Raise ValueError before training if the network cannot process these views. net: may be on the meta device."""
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
            place_on_canvas(img_size)(
                torch.zeros(1, 1, height, width, dtype=torch.uint8), torch.zeros(1, dtype=torch.int64)
            )
        try:
            with torch.no_grad():
                net.eval()(torch.empty(1, source.in_chans, *img_size, device=device))
        except (ValueError, AssertionError, RuntimeError) as error:  # timm raises AssertionError, torch RuntimeError
            raise ValueError(f"eval.img_size={spell(img_size)} does not fit this network: {error}") from error


@dataclass(frozen=True)
class Predictions:
    """Classes that a network predicts for the images of a split.

    indices: numbers of the images in the split. confidence: probability of the predicted class. label_probability:
    probability of the label.
    """

    indices: Int[Tensor, " n"]
    classes: Int[Tensor, " n"]
    labels: Int[Tensor, " n"]
    confidence: Float[Tensor, " n"]
    label_probability: Float[Tensor, " n"]

    @property
    def hits(self) -> Bool[Tensor, " n"]:
        """Mask of the images that are classified correctly."""
        return self.classes == self.labels

    def accuracy(self, chosen: Tensor | None = None) -> float:
        """Return the share of correct images, among all images or those of the mask `chosen`."""
        hits = self.hits.float()
        return float(hits.mean() if chosen is None else hits[chosen].mean())


def predict(trainer: pl.Trainer, task: Classify, data: Batches, split: Split) -> Predictions:
    """Predict the classes of a split; return the predictions of all ranks, in the order of the split."""
    batches: Any = trainer.predict(task, datamodule=OneSplit(data, split))
    columns = torch.cat([torch.stack([column.cpu().double() for column in batch]) for batch in batches], 1)
    order: Any = data.eval_dataloader(split).sampler
    bad = unreadable(split)  # reading has left these images out
    rows = torch.cat([torch.tensor([i for batch in order for i in batch.indices if not bad[i]])[None], columns])
    if trainer.world_size > 1:
        shares: list[Any] = [None] * trainer.world_size
        torch.distributed.all_gather_object(shares, rows)
        rows = torch.cat(shares, 1)
    indices, classes, labels, confidence, label_probability = rows[:, rows[0].argsort()]
    return Predictions(indices.long(), classes.long(), labels.long(), confidence, label_probability)


def evaluate_views(
    trainer: pl.Trainer,
    task: Classify,
    data: Batches,
    views: Views,
    test_at: Callable[[Size], Split],
    most: int | None = None,
) -> dict[str, float]:
    """Evaluate each view; return accuracies `test/<view>/acc`, and shares of images that change, by metric name.

    most: number of evenly spaced images, None for all. test/moved3/same: share of images that get the same class when
    they are shifted by 3 pixels (Zhang, 2019); test/shuffled_patches/same: the same with shuffled patches.
    test/shuffled_patches/lost: share of images that are correct unchanged, and wrong with shuffled patches. If a split
    has `groups(patch_size)`, named masks over its images, each group gets its own accuracy.
    """
    source, test = data.source, data.splits["test"]
    splits = dict(view_splits(views, source, test, test_at))
    if most is not None:
        test, splits = Subset(test, most), {name: Subset(split, most) for name, split in splits.items()}
    figures: dict[str, float] = {}
    plain = None
    if views.moves or views.shuffles or getattr(test, "groups", None):
        plain = predict(trainer, task, data, test)
        figures |= group_accuracies("test", plain, test, views.patch_size)
    for name, split in splits.items():
        changed = predict(trainer, task, data, split)
        figures[f"test/{name}/acc"] = changed.accuracy()
        figures |= group_accuracies(f"test/{name}", changed, split, views.patch_size)
        if plain and name.startswith(("moved", "shuffled")):
            figures[f"test/{name}/same"] = float((changed.classes == plain.classes).float().mean())
        if plain and name.startswith("shuffled"):
            figures[f"test/{name}/lost"] = float((plain.hits & ~changed.hits).float().mean())
    return figures


def group_accuracies(prefix: str, predictions: Predictions, split: Any, patch_size: Size) -> dict[str, float]:
    """Return the accuracy of each group of a split, by metric name; empty if the split has no groups."""
    groups_of = getattr(split, "groups", None)
    groups: Mapping[str, Tensor] = groups_of(patch_size) if groups_of else {}
    masks = {name: mask[predictions.indices] for name, mask in groups.items()}
    return {f"{prefix}/{name}/acc": predictions.accuracy(mask) for name, mask in masks.items() if mask.any()}
