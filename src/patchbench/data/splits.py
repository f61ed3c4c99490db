"""Division of a data set into training, validation and test images, the same for every seed."""

from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import torch

from patchbench.data.source import split_stratified

SplitIndices = dict[str, tuple[str, list[int]]]
"""A split that the data set has, and numbers of images in it, for each of `train`, `val` and `test`."""


def make_splits(
    labels: Mapping[str, Sequence[int]],
    *,
    val_size: int | float,
    test_size: int | float | None,
    train_fraction: float | None,
    train_size: int | None,
    classes: Sequence[object] | None = None,
) -> SplitIndices:
    """Choose the images of each split.

    labels: labels of each split that the set has, `train` and perhaps `val` and `test`. If the set has `val` and
    `test`, both are used. If it has one of the two, that one is the test split, and `val_size` images of `train` (a
    number or a share) are held out for validation. If it has neither, `test_size` images of `train` are held out first.
    The rest of `train` may be subsampled, see `subsample`. classes: class names for error messages. ValueError if a
    number of images cannot be held out.
    """
    train = list(range(len(labels["train"])))

    def hold_out(size: int | float | None, option: str) -> tuple[str, list[int]]:
        nonlocal train
        assert size is not None, f"a set without a test split needs the knob {option}"
        remaining, out = split_stratified([labels["train"][i] for i in train], size, option, classes)
        held_out, train = [train[i] for i in out], [train[i] for i in remaining]
        return "train", held_out

    def whole(name: str) -> tuple[str, list[int]]:
        return name, list(range(len(labels[name])))

    test_name = next((name for name in ("test", "val") if name in labels), None)
    test = whole(test_name) if test_name else hold_out(test_size, "test_size")
    val = whole("val") if test_name == "test" and "val" in labels else hold_out(val_size, "val_size")
    sampled = subsample([labels["train"][i] for i in train], train_fraction, train_size)
    return {"train": ("train", [train[i] for i in sampled]), "val": val, "test": test}


def subsample(labels: Sequence[int], fraction: float | None, size: int | None) -> list[int]:
    """Choose `size` images or a fraction of all, with all classes in proportion; return their numbers, sorted.

    A smaller choice is a subset of a larger one. Each class has a fixed random order; the images of all classes are
    sorted by rank / size of their class, and the first ones are chosen. So each class has its share, rounded up or
    down, and at least one image. ValueError if both arguments are given, or there are too few images.
    """
    count = len(labels)
    if fraction is None and size is None:
        return list(range(count))
    if fraction is not None and size is not None:
        raise ValueError(f"train_fraction={fraction} and train_size={size} exclude each other: give one of them")
    option, value = ("train_fraction", fraction) if size is None else ("train_size", size)
    if fraction is not None and not 0 < fraction <= 1:
        raise ValueError(f"{option}={value} must be above 0 and at most 1")
    wanted = round(fraction * count) if fraction is not None else size
    sizes = Counter(labels)
    if not isinstance(wanted, int) or not len(sizes) <= wanted <= count:
        raise ValueError(
            f"{option}={value} cannot be taken of {count} training images in {len(sizes)} classes: "
            f"take {len(sizes)} to {count} images, so that each class has one"
        )
    shuffled = torch.randperm(count, generator=torch.Generator().manual_seed(0)).tolist()
    seen, rank = Counter[int](), {}
    for i in shuffled:
        rank[i] = seen[labels[i]] / sizes[labels[i]]
        seen[labels[i]] += 1
    return sorted(sorted(shuffled, key=lambda i: rank[i])[:wanted])


def number_labels(
    labels: Mapping[str, Sequence[Any]], classes: Sequence[Any] | None, image_name: Callable[[str, int], str]
) -> tuple[list[Any], dict[str, list[int]]]:
    """Return the classes, and the labels of each split as numbers of classes.

    classes: None takes the sorted labels of the training images. If some classes are words, numeric labels become words
    too. A split without any label, such as the test split of a competition, is left out. image_name: names an image,
    given its split and number, in the ValueError for any other label that is not a class.
    """
    if any(isinstance(name, str) for name in (labels["train"] if classes is None else classes)):
        labels = {split: [str(n) if is_class(n) else n for n in given] for split, given in labels.items()}
    known = sorted({label for label in labels["train"] if is_class(label)}) if classes is None else list(classes)
    numbers = {label: number for number, label in enumerate(known)}
    unlabelled = {split for split, given in labels.items() if all(label in (None, -1) for label in given)} - {"train"}
    labelled = {split: given for split, given in labels.items() if split not in unlabelled}
    for split, given in labelled.items():
        for i, label in enumerate(given):
            if not isinstance(label, Hashable) or label not in numbers:  # a list, not hashable, names several classes
                raise ValueError(
                    f"{image_name(split, i)} has the label {label!r}, which is none of the {len(known)} classes"
                    f"{' of the training images' if classes is None else ''}: mend or remove it"
                )
    return known, {split: [numbers[label] for label in given] for split, given in labelled.items()}


def is_class(label: object) -> bool:
    return isinstance(label, str) or (isinstance(label, int) and label >= 0)
