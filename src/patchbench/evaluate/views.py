"""Changed test images: on a larger canvas, with shuffled patches, shifted. Each view is a split."""

from collections.abc import Callable, Sequence

import torch
from einops import rearrange
from jaxtyping import Bool, Int, UInt8
from torch import Tensor

from patchbench.checks import Size, cover, spell
from patchbench.data.draws import Images, Purpose, eval_draws, uniform
from patchbench.data.source import Crop, Split, unreadable

Change = Callable[[UInt8[Tensor, "b c H W"], Int[Tensor, " b"]], UInt8[Tensor, "b c h w"]]
"""Function from images, and their numbers in the split, to changed images."""


class ChangedSplit:
    """Split that changes the images of another split after reading. Random changes depend on the image numbers."""

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


class Subset:
    """Split of at most `most` evenly spaced images of another split, which may be sorted by class."""

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


def place_on_canvas(img_size: Size) -> Change:
    """Return a change that puts each image at a random place of a larger canvas.

    The background is the median colour of the border of the image. ValueError if the canvas is smaller than the image.
    """

    def change(images: UInt8[Tensor, "b c H W"], numbers: Int[Tensor, " b"]) -> UInt8[Tensor, "b c h w"]:
        b, c, *old = images.shape
        free = torch.tensor([new - n for new, n in zip(img_size, old, strict=True)])
        if (free < 0).any():
            raise ValueError(
                f"eval.img_size={spell(img_size)} is a smaller canvas than the {old[0]}x{old[1]} pixels of the images: "
                "use larger sizes, or eval.shift=scale"
            )
        border = torch.cat([images[:, :, [0, -1]].flatten(2), images[:, :, :, [0, -1]].flatten(2)], 2)
        canvas = border.median(2).values[..., None, None].expand(b, c, *img_size).clone()
        place = (uniform(eval_draws(Images.CANVAS, numbers), 2, Purpose.VIEW) * (free + 1)).long()
        rows, cols = (place[:, i, None] + torch.arange(old[i]) for i in (0, 1))
        canvas[torch.arange(b)[:, None, None], :, rows[:, :, None], cols[:, None]] = images.permute(0, 2, 3, 1)
        return canvas

    return change


def shuffle_patches(patch_size: Size) -> Change:
    """Return a change that puts the patches of each image in a random order, different for each image."""

    def change(images: UInt8[Tensor, "b c H W"], numbers: Int[Tensor, " b"]) -> UInt8[Tensor, "b c h w"]:
        (h, w), _ = cover(images.shape[2:], patch_size, pad=False)
        patches = rearrange(images, "b c (h p) (w q) -> b (h w) c p q", h=h, w=w)
        order = uniform(eval_draws(Images.SHUFFLE, numbers), h * w, Purpose.VIEW).argsort(1)
        patches = patches[torch.arange(len(images))[:, None], order]
        return rearrange(patches, "b (h w) c p q -> b c (h p) (w q)", h=h)

    return change


def shift_images(pixels: int) -> Change:
    """Return a change that shifts images cyclically, down and right."""
    return lambda images, _: images.roll((pixels, pixels), (2, 3))
