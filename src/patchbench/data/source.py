"""The interface of a set of images, and a split in memory.

A new set is a class that offers `Source`, built by a YAML in conf/data. Its constructor takes the knobs of that YAML:

    img_size   required: a set is also built at other sizes than its own
    others     as the set needs them; these have a fixed meaning if a set has them
        root                        where the files lie; a command that says data_root=... sets it
        crop_pct                    share of the shorter side that the centre crop covers
        val_size, test_size         images held out for validation and test (see `splits.make_splits`)
        train_fraction, train_size  train on fewer images: their share or their number (see `splits.subsample`)

A set made of pictures in files inherits these knobs: see files.py. A set in memory is shortest: see sets/digits.py.
A set that makes its images says `generated = True`: runs may be tested on images of their own.
Refusals name a knob as the YAML does, `val_size=0.9`; whoever builds the set puts `data.` before it.
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
"""Boxes (top, left, height, width) of the parts that training sees, from draws and image sizes (h, w)."""


@runtime_checkable
class Split(Protocol):
    """Images and labels by number, read a whole batch at once.

    slow: reading takes long enough to need processes of its own.
    crops: `read` makes the training crop itself, because its images are larger than `img_size`; else the crop is made
    of the images that `read` returns.
    """

    slow: bool
    crops: bool

    def __len__(self) -> int: ...

    def read(
        self, indices: Sequence[int], draws: Int[Tensor, " b"] | None = None, crop: Crop | None = None
    ) -> tuple[UInt8[Tensor, "b c H W"], Int[Tensor, " b"]]:
        """Read images and their labels.

        draws, crop: in training, see draws.py. Without them each image is the same whenever it is read.
        """
        ...


@runtime_checkable
class Source(Protocol):
    """A data set. Its constructor may download; it reads labels, and no pixels of files."""

    img_size: Size
    in_chans: int
    num_classes: int
    mirrors: bool  # an image and its mirror image have the same label
    mean: Sequence[float]  # per channel, of pixels in 0 ... 1; may be measured by `splits`
    std: Sequence[float]

    def splits(self) -> dict[str, Split]:
        """`train`, `val` and `test`: disjoint, and the same whenever they are asked for."""
        ...


@runtime_checkable
class Whole(Protocol):
    """A split that is two tensors and no more, so that it may live on the device."""

    images: Tensor
    labels: Tensor


@runtime_checkable
class Checkable(Protocol):
    """A split that checks images when `read` reads them; whoever takes them in another way asks for it."""

    def check_all(self) -> None: ...


Groups = Callable[[Size], dict[str, Bool[Tensor, " n"]]]
"""Parts of a split, by name, from a patch size: each part gets metrics of its own."""


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
        chosen = torch.as_tensor(indices)  # no list: to copy one to a GPU makes it wait
        return self.images.index_select(0, chosen), self.labels[chosen]  # whole images: 17 times as fast as [chosen]


def unreadable(split: Split) -> Bool[Tensor, " n"]:
    """Mask of the images that turned out not to decode, in this process or its loaders."""
    bad = getattr(split, "bad", None)
    return torch.zeros(len(split), dtype=torch.bool) if bad is None else bad


def resize(images: UInt8[Tensor, "n c h w"], img_size: Size) -> UInt8[Tensor, "n c H W"]:
    """Images scaled to `img_size`: bicubic, antialiased if they shrink; unchanged if they have the size."""
    if images.shape[2:] == img_size:
        return images
    scaled = torch.empty(*images.shape[:2], *img_size, dtype=torch.uint8)
    for some, out in zip(images.split(1024), scaled.split(1024), strict=True):  # as floats, all would not fit
        out[:] = F.interpolate(some.float(), img_size, mode="bicubic", antialias=True).round_().clamp_(0, 255)
    return scaled


def held_out(
    labels: Sequence[int], count: int | float, option: str, names: Sequence[object] | None = None
) -> tuple[list[int], list[int]]:
    """Divide 0 ... n-1 into those that stay and those held out, every class in proportion; the same each time.

    count: images, or their share. names: of the classes. ValueError names `option` if that cannot be done.
    """
    from sklearn.model_selection import train_test_split

    try:
        stay, out = train_test_split(range(len(labels)), test_size=count, stratify=labels, random_state=0)
    except ValueError as error:
        classes = len(set(labels))
        if alone := [label for label, images in sorted(Counter(labels).items()) if images == 1]:
            called = ", ".join(str(names[label] if names else label) for label in alone[:5])
            raise ValueError(
                f"{option}={count} is held out of every class, and {len(alone)} of {classes} classes have one image "
                f"only: {called}{', ...' * (len(alone) > 5)}: add images to them or remove them, or give the set "
                f"{'val/ and test/' if option == 'val_size' else 'a split'} of its own"
            ) from error
        raise ValueError(
            f"{option}={count} cannot be held out of {len(labels)} images in {classes} classes: use a share between 0 "
            f"and 1, or {classes} to {len(labels) - classes} images, with two images or more in each class"
        ) from error
    return sorted(stay), sorted(out)


Batch = Sequence[Tensor]  # images b c H W, labels b; in training labels may be shares, b classes
