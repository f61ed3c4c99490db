"""The interface of a data set of images, and a split in memory.

A new data set is a class with the attributes of `Source`, built from a YAML file in conf/data. Its constructor takes
the knobs of this file:

    img_size   required: a set is also built at other sizes than its default
    others     as the set needs them; the following have a fixed meaning
        root                        folder of the files; commands set it by data_root=...
        crop_pct                    share of the shorter side that the centre crop covers
        val_size, test_size         images held out for validation and test (see `splits.make_splits`)
        train_fraction, train_size  train on a share or a number of the images (see `splits.subsample`)

A set of pictures in files inherits these knobs: see files.py. A set in memory is shortest: see sets/digits.py.
A set that generates its images has `generated = True`: each run may have its own test images.
Errors name a knob as the YAML file does, `val_size=0.9`; the caller that builds the set puts `data.` before the name.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Int, UInt8
from torch import Tensor

from patchbench.checks import Size

Crop = Callable[[Int[Tensor, " b"], Int[Tensor, "b 2"]], Int[Tensor, "b 4"]]
"""Function from draws and image sizes (h, w) to the training crops, as boxes (top, left, height, width)."""


@runtime_checkable
class Split(Protocol):
    """Numbered images and labels, read one batch at a time.

    slow: reading is slow enough to need worker processes.
    crops: `read` makes the training crop itself, because the stored images are larger than `img_size`; otherwise the
    augmentation crops the images that `read` returns.
    """

    slow: bool
    crops: bool

    def __len__(self) -> int: ...

    def read(
        self, indices: Sequence[int], draws: Int[Tensor, " b"] | None = None, crop: Crop | None = None
    ) -> tuple[UInt8[Tensor, "b c H W"], Int[Tensor, " b"]]:
        """Read images and their labels.

        draws, crop: given in training, see draws.py. Without draws each image is the same at every reading.
        """
        ...


@runtime_checkable
class Source(Protocol):
    """A data set. The constructor may download files; it reads labels, but no pixels of image files."""

    img_size: Size
    in_chans: int
    num_classes: int
    mirrors: bool  # an image and its mirror image have the same label
    mean: Sequence[float]  # per channel, of pixels in 0 ... 1; `splits` may measure it
    std: Sequence[float]

    def splits(self) -> dict[str, Split]:
        """Return the splits `train`, `val` and `test`: disjoint, and the same at every call."""
        ...


@runtime_checkable
class TensorSplit(Protocol):
    """A split that consists of two tensors, so it can be stored on the device."""

    images: Tensor
    labels: Tensor


@runtime_checkable
class Checkable(Protocol):
    """A split that checks images in `read`. Code that takes `images` directly must call `check_all` first."""

    def check_all(self) -> None: ...


Groups = Callable[[Size], dict[str, Bool[Tensor, " n"]]]
"""Function from a patch size to named masks over the images of a split; each mask gets its own metrics."""


class InMemory:
    """A split as two tensors."""

    slow = False
    crops = False

    def __init__(
        self, images: UInt8[Tensor, "n c H W"], labels: Int[Tensor, " n"], groups: Groups | None = None
    ) -> None:
        self.images, self.labels, self.groups = images, labels, groups

    def __len__(self) -> int:
        return len(self.labels)

    def read(
        self,
        indices: Sequence[int] | Int[Tensor, " b"],
        draws: Int[Tensor, " b"] | None = None,
        crop: Crop | None = None,
    ) -> tuple[UInt8[Tensor, "b c H W"], Int[Tensor, " b"]]:
        chosen = torch.as_tensor(indices)  # indexing a GPU tensor with a list would wait for the copy
        return self.images.index_select(0, chosen), self.labels[chosen]  # for whole images 17 times as fast as [chosen]


def unreadable(split: Split) -> Bool[Tensor, " n"]:
    """Return the mask of the images that did not decode, in this process or in its worker processes."""
    bad = getattr(split, "bad", None)
    return torch.zeros(len(split), dtype=torch.bool) if bad is None else bad


def resize(images: UInt8[Tensor, "n c h w"], img_size: Size) -> UInt8[Tensor, "n c H W"]:
    """Scale images to `img_size`, bicubic with antialiasing; return them unchanged if they have this size."""
    if images.shape[2:] == img_size:
        return images
    scaled = torch.empty(*images.shape[:2], *img_size, dtype=torch.uint8)
    for batch, out in zip(images.split(1024), scaled.split(1024), strict=True):  # all images as floats need much memory
        out[:] = F.interpolate(batch.float(), img_size, mode="bicubic", antialias=True).round_().clamp_(0, 255)
    return scaled


def split_stratified(
    labels: Sequence[int], count: int | float, option: str, names: Sequence[object] | None = None
) -> tuple[list[int], list[int]]:
    """Divide the image numbers 0 ... n-1 into the remaining and the held-out ones, with all classes in proportion.

    The division is the same at every call. count: number of images to hold out, or their share. names: class names.
    ValueError names `option` if `count` images cannot be held out.
    """
    from sklearn.model_selection import train_test_split

    try:
        remaining, out = train_test_split(range(len(labels)), test_size=count, stratify=labels, random_state=0)
    except ValueError as error:
        classes = len(set(labels))
        if single := [label for label, images in sorted(Counter(labels).items()) if images == 1]:
            listed = ", ".join(str(names[label] if names else label) for label in single[:5])
            raise ValueError(
                f"{option}={count} is held out of every class, and {len(single)} of {classes} classes have one image "
                f"only: {listed}{', ...' * (len(single) > 5)}: add images to them or remove them, or give the set "
                f"{'val/ and test/' if option == 'val_size' else 'a split'} of its own"
            ) from error
        raise ValueError(
            f"{option}={count} cannot be held out of {len(labels)} images in {classes} classes: use a share between 0 "
            f"and 1, or {classes} to {len(labels) - classes} images, with two images or more in each class"
        ) from error
    return sorted(remaining), sorted(out)


Batch = Sequence[Tensor]  # images b c H W, labels b; in training labels may be soft, b classes
