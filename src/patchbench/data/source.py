"""What a set of images must offer, and how one split of it is held in memory."""

from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Int, UInt8
from torch import Tensor

from patchbench.checks import Size

Crop = Callable[[Int[Tensor, " b"], Int[Tensor, "b 2"]], Int[Tensor, "b 4"]]
"""From draws and image sizes (h, w) to boxes (top, left, height, width): which part of an image training sees."""


@runtime_checkable
class Split(Protocol):
    """Images and labels by number. Asked for a whole batch at once, a set in memory is gathered and not looped over.

    slow: reading takes long enough for processes of its own.
    crops: `read` cuts the training crop itself, since it holds images that are larger than what it gives; elsewhere the
    crop is cut out of what it gives.
    """

    slow: bool
    crops: bool

    def __len__(self) -> int: ...

    def read(
        self, indices: Sequence[int], draws: Int[Tensor, " b"] | None = None, crop: Crop | None = None
    ) -> tuple[UInt8[Tensor, "b c H W"], Int[Tensor, " b"]]:
        """draws, crop: of a training batch (see draws.py); without, each image is the same whenever it is read."""
        ...


@runtime_checkable
class Source(Protocol):
    """A data set. Building one reads no image: the facts below are known, or refused, before training."""

    img_size: Size
    in_chans: int
    num_classes: int
    mirrors: bool  # an image and its mirror image have the same label
    mean: Sequence[float]  # per channel, of pixels in 0 ... 1; known once `splits` was called
    std: Sequence[float]

    def splits(self) -> dict[str, Split]:
        """Read `train`, `val` and `test`: disjoint, and the same for every seed. May download."""
        ...


@runtime_checkable
class Whole(Protocol):
    """A split that is two tensors and no more, wherever they are, so that it may as well live on the device."""

    images: Tensor
    labels: Tensor


Groups = Callable[[Size], dict[str, Bool[Tensor, " n"]]]
"""From a patch size to parts of a split, by name, whose figures are worth telling apart."""


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
        chosen = torch.as_tensor(indices)  # no list, where the images are on a GPU: to copy one makes it wait
        return self.images.index_select(0, chosen), self.labels[chosen]  # whole images: 17 times as fast as [chosen]


def unreadable(split: Split) -> Bool[Tensor, " n"]:
    """Which of its images this process and its loaders found not to decode."""
    bad = getattr(split, "bad", None)
    return torch.zeros(len(split), dtype=torch.bool) if bad is None else bad


def resize(images: UInt8[Tensor, "n c h w"], img_size: Size) -> UInt8[Tensor, "n c H W"]:
    """Bicubic, antialiased where it shrinks; nothing is done to images that have the size."""
    if images.shape[2:] == img_size:
        return images
    scaled = torch.empty(*images.shape[:2], *img_size, dtype=torch.uint8)
    for few, out in zip(images.split(1024), scaled.split(1024), strict=True):  # as floats, all would not fit
        out[:] = F.interpolate(few.float(), img_size, mode="bicubic", antialias=True).round_().clamp_(0, 255)
    return scaled


def held_out(labels: Sequence[int], count: int | float, option: str) -> tuple[list[int], list[int]]:
    """Split 0 ... n-1 into what stays and what is held out, every class in proportion; the same split each time.

    count: images, or their share. ValueError names `option` where the classes cannot be served.
    """
    from sklearn.model_selection import train_test_split

    try:
        stay, out = train_test_split(range(len(labels)), test_size=count, stratify=labels, random_state=0)
    except ValueError as error:
        raise ValueError(f"{option}={count} cannot be held out of {len(labels)} images: {error}") from error
    return sorted(stay), sorted(out)


Batch = Sequence[Tensor]  # images b c H W, labels b; in training labels may be shares, b classes
