"""Crops of real photographs of which one half has lost its colour: in colour, endless, and without a download."""

from collections.abc import Sequence
from functools import cache

import torch
from jaxtyping import Bool, Int, UInt8
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2

from patchbench.checks import Size, at_least, interval, share, size, spell
from patchbench.data.diagnostics.stream import Stream
from patchbench.data.draws import Images, Purpose, eval_draws, uniform
from patchbench.data.photographs import file
from patchbench.data.source import InMemory, Split

SPLITS = {
    "train": ("astronaut", "chelsea", "flower", "rocket"),
    "val": ("coffee",),
    "test": ("china", "retina"),
}  # photographs, none in two splits
BRIGHTNESS = (0.299, 0.587, 0.114)  # of red, green and blue, ITU-R BT.601
STEP = 2**0.5  # between one scale of a photograph and the next


class FadedPhotos:
    """Which half of a crop has lost its colour: the upper, right, lower or left one?

    A faded half keeps its brightness, to the rounding of a grey level. All channels are normalised alike, so that a
    network that sees brightness alone is left with a guess. A crop is turned by quarters and mirrored at random, so
    that nothing follows from what a photograph has above or below. Where no patch lies in both halves, the mean colours
    of the patches are equally distributed for all labels, as long as their places are not known. Whole patches do say
    a little: where they get brighter upwards and the faded ones are the brighter ones, the upper half is faded.

    Training crops come from their draws, so that none returns: `train_size` of them make an epoch. Photographs that
    train, choose and judge are different ones. A crop is cut from a copy of the photograph that was scaled for it.

    crop: share of the shorter side of a photograph that the side of a crop covers, least and most. kept: share of its
    colour that a faded half keeps. eval_seed: other crops of val and test for each number.
    ValueError: a size or a share that cannot be. OSError: a package that does not bring its photographs.
    """

    in_chans = 3
    mirrors = False
    num_classes = 4
    classes = ("upper", "right", "lower", "left")
    chance = 0.25
    mean = (0.370, 0.370, 0.370)  # of crops of the training photographs, all channels together
    std = (0.226, 0.226, 0.226)

    def __init__(
        self,
        *,
        img_size: int | Sequence[int],
        crop: Sequence[float],
        kept: int | float,
        train_size: int,
        val_size: int,
        test_size: int,
        eval_seed: int,
    ) -> None:
        at_least(1, train_size=train_size, val_size=val_size, test_size=test_size)
        at_least(0, eval_seed=eval_seed)
        self.img_size, self.crop, self.kept = size("img_size", img_size), interval("crop", crop, most=1.0), kept
        share("kept", kept)
        side = self.img_size[0]
        if self.img_size != (side, side) or side % 2:
            raise ValueError(f"img_size={spell(self.img_size)} cannot be turned and halved: use an even number S")
        self.sizes, self.eval_seed = {"train": train_size, "val": val_size, "test": test_size}, eval_seed
        largest = min(int(min(shape(name)) * self.crop[1]) for names in SPLITS.values() for name in names)
        if side > largest:
            raise ValueError(
                f"img_size={side} would enlarge a photograph, of which a crop covers at most {self.crop[1]}: "
                f"use img_size={largest // 2 * 2} or less"
            )

    def splits(self) -> dict[str, Split]:
        train, val, test = (Crops(names, self.img_size[0], self.crop, self.kept) for names in SPLITS.values())
        return {
            "train": Stream(self.sizes["train"], self.num_classes, train.faded, self.eval_seed),
            "val": self.fixed(val, Images.VAL, self.sizes["val"]),
            "test": self.fixed(test, Images.TEST, self.sizes["test"]),
        }

    def fixed(self, crops: "Crops", split: Images, count: int) -> InMemory:
        """Make images that are the same whenever they are read, with each label as often as any other."""
        indices = torch.arange(count)
        labels = indices % self.num_classes
        parts = zip(eval_draws(split, indices, self.eval_seed).split(1024), labels.split(1024), strict=True)
        return InMemory(torch.cat([crops.faded(*part) for part in parts]), labels)


class Crops:
    """Crops of some photographs at the scales of `crop`, as functions of their draws.

    pixels: of all scales of all photographs, one after the other. start, width, room: of each scale, the number of its
    first pixel, its width, and the rows and columns at which a crop may begin. counts: scales of each photograph.
    """

    def __init__(self, names: Sequence[str], side: int, crop: tuple[float, float], kept: int | float) -> None:
        self.kept = kept
        pictures = [picture(name) for name in names]
        scaled = [
            v2.functional.resize(whole, list(new), antialias=True)
            for name, whole in zip(names, pictures, strict=True)
            for new in scales(name, side, crop)
        ]
        self.counts = torch.tensor([len(scales(name, side, crop)) for name in names])
        self.pixels = torch.cat([image.flatten(1) for image in scaled], 1)
        lengths = torch.tensor([image[0].numel() for image in scaled])
        self.start, self.width = lengths.cumsum(0) - lengths, torch.tensor([image.shape[2] for image in scaled])
        self.room = torch.tensor([[image.shape[1] - side + 1, image.shape[2] - side + 1] for image in scaled])
        self.rows, self.cols = torch.stack(
            [turned(grid) for grid in torch.meshgrid(*[torch.arange(side)] * 2, indexing="ij")]
        )
        self.halves = halves(side)

    def faded(self, draws: Int[Tensor, " b"], labels: Int[Tensor, " b"]) -> UInt8[Tensor, "b 3 H W"]:
        """Crops at draws, with the half of the label faded."""
        images = self.cut(draws)
        brightness = (images * torch.tensor(BRIGHTNESS)[:, None, None]).sum(1, keepdim=True)
        grey = (brightness + self.kept * (images - brightness)).round_().to(torch.uint8)
        return torch.where(self.halves[labels][:, None], grey, images)

    def cut(self, draws: Int[Tensor, " b"]) -> UInt8[Tensor, "b 3 H W"]:
        """Crops at draws: of any photograph, of it at any scale, anywhere, turned and mirrored in any of eight ways."""
        u = uniform(draws, 5, Purpose.SCENE)
        photograph = (u[:, 0] * len(self.counts)).long()
        before = self.counts.cumsum(0) - self.counts
        scale = before[photograph] + (u[:, 1] * self.counts[photograph]).long()
        top, left = ((u[:, 2:4] * self.room[scale]).long()).unbind(1)
        way = (u[:, 4] * len(self.rows)).long()
        rows, cols = top[:, None, None] + self.rows[way], left[:, None, None] + self.cols[way]
        places = self.start[scale][:, None, None] + rows * self.width[scale][:, None, None] + cols
        return self.pixels[:, places].movedim(0, 1)


def turned(grid: Int[Tensor, "S S"]) -> Int[Tensor, "8 S S"]:
    """A square in its four turns, and mirrored in the same."""
    return torch.stack([way.rot90(quarters) for way in (grid, grid.flip(1)) for quarters in range(4)])


def halves(side: int) -> Bool[Tensor, "4 S S"]:
    """Masks of the upper, right, lower and left half."""
    upper = torch.zeros(side, side, dtype=torch.bool)
    upper[: side // 2] = True
    return torch.stack([upper.rot90(-quarters) for quarters in range(4)])


@cache
def picture(name: str) -> UInt8[Tensor, "3 h w"]:
    """A photograph in RGB, decoded once by each process."""
    with Image.open(file(name)) as image:
        return v2.functional.pil_to_tensor(image.convert("RGB"))


def shape(name: str) -> Size:
    """Height and width of a photograph."""
    with Image.open(file(name)) as image:
        return image.height, image.width


def scales(name: str, side: int, crop: tuple[float, float]) -> list[Size]:
    """Sizes (h, w) of a photograph at which a crop of `side` covers a share of `crop`; none is larger than it is."""
    full, covered, found = shape(name), crop[1], []
    while covered >= crop[0] * (1 - 1e-6) and side / covered <= min(full):
        ratio = side / covered / min(full)
        found.append((max(side, round(full[0] * ratio)), max(side, round(full[1] * ratio))))
        covered /= STEP
    return found
