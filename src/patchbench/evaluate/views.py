"""The test images seen otherwise: on a larger canvas, shuffled, moved. Each view is a split of its own."""

from collections.abc import Callable, Sequence

import torch
from einops import rearrange
from jaxtyping import Bool, Int, UInt8
from torch import Tensor

from patchbench.checks import Size, spell
from patchbench.data.draws import Images, Purpose, eval_draws, uniform
from patchbench.data.source import Crop, Split, unreadable
from patchbench.layout import cover

Change = Callable[[UInt8[Tensor, "b c H W"], Int[Tensor, " b"]], UInt8[Tensor, "b c h w"]]
"""From images and their numbers in the split to images."""


class Changed:
    """A split whose images are changed after reading. Whatever is random about it follows from an image's number."""

    def __init__(self, split: Split, change: Change) -> None:
        self.split, self.change = split, change
        self.slow, self.crops, self.bad = split.slow, split.crops, unreadable(split)

    def __len__(self) -> int:
        return len(self.split)

    def read(
        self, indices: Sequence[int], draws: Int[Tensor, " b"] | None = None, crop: Crop | None = None
    ) -> tuple[UInt8[Tensor, "b c H W"], Int[Tensor, " b"]]:
        images, labels = self.split.read(indices, draws, crop)
        return self.change(images, torch.tensor([i for i in indices if not self.bad[i]], dtype=torch.long)), labels


class Some:
    """Some images of a split, evenly spaced: a split may be sorted by class."""

    def __init__(self, split: Split, most: int) -> None:
        self.split, self.slow, self.crops = split, split.slow, split.crops
        count = min(most, len(split))
        self.numbers = [i * len(split) // count for i in range(count)]

    @property
    def bad(self) -> Bool[Tensor, " n"]:
        return unreadable(self.split)[self.numbers]

    def __len__(self) -> int:
        return len(self.numbers)

    def read(
        self, indices: Sequence[int], draws: Int[Tensor, " b"] | None = None, crop: Crop | None = None
    ) -> tuple[UInt8[Tensor, "b c H W"], Int[Tensor, " b"]]:
        return self.split.read([self.numbers[i] for i in indices], draws, crop)


def on_canvas(img_size: Size) -> Change:
    """Each image at a random place of a larger one, whose ground is the median colour of the image's border."""

    def change(images: UInt8[Tensor, "b c H W"], numbers: Int[Tensor, " b"]) -> UInt8[Tensor, "b c h w"]:
        b, c, *old = images.shape
        room = torch.tensor([new - n for new, n in zip(img_size, old, strict=True)])
        if (room < 0).any():
            raise ValueError(
                f"eval.img_size={spell(img_size)} is a smaller canvas than the {old[0]}x{old[1]} pixels of the images: "
                "use larger sizes, or eval.shift=scale"
            )
        rim = torch.cat([images[:, :, [0, -1]].flatten(2), images[:, :, :, [0, -1]].flatten(2)], 2)
        canvas = rim.median(2).values[..., None, None].expand(b, c, *img_size).clone()
        place = (uniform(eval_draws(Images.CANVAS, numbers), 2, Purpose.VIEW) * (room + 1)).long()
        rows, cols = (place[:, i, None] + torch.arange(old[i]) for i in (0, 1))
        canvas[torch.arange(b)[:, None, None], :, rows[:, :, None], cols[:, None]] = images.permute(0, 2, 3, 1)
        return canvas

    return change


def shuffled(patch_size: Size) -> Change:
    """The patches of each image in a random order, another for each image. Patches of one pixel shuffle the pixels."""

    def change(images: UInt8[Tensor, "b c H W"], numbers: Int[Tensor, " b"]) -> UInt8[Tensor, "b c h w"]:
        (h, w), _ = cover(images.shape[2:], patch_size, pad=False)
        patches = rearrange(images, "b c (h p) (w q) -> b (h w) c p q", h=h, w=w)
        order = uniform(eval_draws(Images.SHUFFLE, numbers), h * w, Purpose.VIEW).argsort(1)
        patches = patches[torch.arange(len(images))[:, None], order]
        return rearrange(patches, "b (h w) c p q -> b c (h p) (w q)", h=h)

    return change


def moved(pixels: int) -> Change:
    """Down and right, what leaves coming in again at the other side."""
    return lambda images, _: images.roll((pixels, pixels), (2, 3))
