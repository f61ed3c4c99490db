"""Division of a data set into the images that train, choose and judge a network: the same for every seed."""

from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import torch

from patchbench.data.source import held_out

Chosen = dict[str, tuple[str, list[int]]]
"""For `train`, `val` and `test`: the split of the data set to take it from, and the numbers of its images there."""


def make_splits(
    labels: Mapping[str, Sequence[int]],
    *,
    val_size: int | float,
    test_size: int | float | None,
    train_fraction: float | None,
    train_size: int | None,
    classes: Sequence[object] | None = None,
) -> Chosen:
    """Choose the images of each split.

    labels: of the splits that the set has, `train` and perhaps `val` and `test`. If it has `val` and `test`, these are
    taken. If it has one of them, that one is the test split, and `val_size` images of `train` (or their share) are held
    out for validation. If it has neither, `test_size` images of `train` are held out first. The rest of `train` may be
    thinned: see `subsample`. classes: their names, for refusals.
    """
    train = list(range(len(labels["train"])))

    def hold_out(size: int | float | None, option: str) -> tuple[str, list[int]]:
        nonlocal train
        assert size is not None, f"a set without a test split needs the knob {option}"
        stay, out = held_out([labels["train"][i] for i in train], size, option, classes)
        chosen, train = [train[i] for i in out], [train[i] for i in stay]
        return "train", chosen

    def whole(name: str) -> tuple[str, list[int]]:
        return name, list(range(len(labels[name])))

    judges = next((name for name in ("test", "val") if name in labels), None)
    test = whole(judges) if judges else hold_out(test_size, "test_size")
    val = whole("val") if judges == "test" and "val" in labels else hold_out(val_size, "val_size")
    rest = subsample([labels["train"][i] for i in train], train_fraction, train_size)
    return {"train": ("train", [train[i] for i in rest]), "val": val, "test": test}


def subsample(labels: Sequence[int], fraction: float | None, size: int | None) -> list[int]:
    """Numbers of `size` images, or of a share of them: all classes in proportion, a smaller choice within a larger one.

    The images of each class stand in a fixed random order. The r-th image of a class of n is taken at r / n, so that
    each class has its share, rounded up or down, and one image at least.
    ValueError: both are given, or that number of images cannot be taken.
    """
    count = len(labels)
    if fraction is None and size is None:
        return list(range(count))
    if fraction is not None and size is not None:
        raise ValueError(f"train_fraction={fraction} and train_size={size} mean the same: give one of them")
    option, value = ("train_fraction", fraction) if size is None else ("train_size", size)
    if fraction is not None and not 0 < fraction <= 1:
        raise ValueError(f"{option}={value} must be above 0 and at most 1")
    wanted = round(fraction * count) if fraction is not None else size
    sizes = Counter(labels)
    if not isinstance(wanted, int) or not len(sizes) <= wanted <= count:
        raise ValueError(
            f"{option}={value} cannot be taken of {count} training images in {len(sizes)} classes: "
            f"take {len(sizes)} to {count} images, so that no class is without"
        )
    shuffled = torch.randperm(count, generator=torch.Generator().manual_seed(0)).tolist()
    seen, place = Counter[int](), {}
    for i in shuffled:
        place[i] = seen[labels[i]] / sizes[labels[i]]
        seen[labels[i]] += 1
    return sorted(sorted(shuffled, key=lambda i: place[i])[:wanted])


def numbered(
    labels: Mapping[str, Sequence[Any]], classes: Sequence[Any] | None, where: Callable[[str, int], str]
) -> tuple[list[Any], dict[str, list[int]]]:
    """Classes, and the labels of each split as numbers of classes.

    classes: None takes those of the training images, sorted. A split without any label, such as the test split of a
    contest, is left out. Where some classes are words, numbers are too. where: names an image by split and number,
    for the ValueError at any other label that is no class.
    """
    if any(isinstance(name, str) for name in (labels["train"] if classes is None else classes)):
        labels = {split: [str(n) if is_class(n) else n for n in given] for split, given in labels.items()}
    known = sorted({label for label in labels["train"] if is_class(label)}) if classes is None else list(classes)
    numbers = {label: number for number, label in enumerate(known)}
    unlabelled = {split for split, given in labels.items() if all(label in (None, -1) for label in given)} - {"train"}
    labelled = {split: given for split, given in labels.items() if split not in unlabelled}
    for split, given in labelled.items():
        for i, label in enumerate(given):
            if not isinstance(label, Hashable) or label not in numbers:  # the former: of several classes, a list
                raise ValueError(
                    f"{where(split, i)} has the label {label!r}, which is none of the {len(known)} classes"
                    f"{' of the training images' if classes is None else ''}: mend or remove it"
                )
    return known, {split: [numbers[label] for label in given] for split, given in labelled.items()}


def is_class(label: object) -> bool:
    return isinstance(label, str) or (isinstance(label, int) and label >= 0)
