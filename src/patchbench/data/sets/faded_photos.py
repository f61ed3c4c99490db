"""Crops of real photographs with one half faded to grey: an endless set of colour images without a download."""

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
from patchbench.data.photographs import photograph_file
from patchbench.data.source import InMemory, Split

SPLITS = {
    "train": ("astronaut", "chelsea", "flower", "rocket"),
    "val": ("coffee",),
    "test": ("china", "retina"),
}  # each photograph is in one split only
BRIGHTNESS = (0.299, 0.587, 0.114)  # of red, green and blue, ITU-R BT.601
STEP = 2**0.5  # ratio of two successive scales of a photograph


class FadedPhotos:
    """Which half of a crop has lost its colour: the upper, right, lower or left one?

    A faded half keeps its brightness, up to the rounding of a grey level. All channels have the same normalisation, so
    a network that sees only brightness can only guess. Crops are rotated by multiples of 90 degrees and mirrored at
    random, so the usual content of the top or bottom of a photograph does not help. If no patch lies in both halves,
    the mean colours of the patches, without their places, have the same distribution for all labels. Whole patches tell
    a little: if patches get brighter upwards and the faded ones are brighter than others, the upper half is faded.

    Training crops are functions of their draws, so no crop comes twice; `train_size` crops make an epoch. Training,
    validation and test use different photographs. A crop is cut from a scaled copy of the photograph.

    crop: smallest and largest share of the shorter side of a photograph that the side of a crop covers. kept: share of
    the colour that a faded half keeps. eval_seed: each number gives other crops for val and test.
    ValueError for a size or share that is not possible. OSError if a package does not contain its photographs.
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
            raise ValueError(f"img_size={spell(self.img_size)} cannot be rotated and halved: use an even number S")
        self.sizes, self.eval_seed = {"train": train_size, "val": val_size, "test": test_size}, eval_seed
        largest = min(int(min(photograph_size(name)) * self.crop[1]) for names in SPLITS.values() for name in names)
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
        """Make a split of fixed images, with each label equally often."""
        indices = torch.arange(count)
        labels = indices % self.num_classes
        parts = zip(eval_draws(split, indices, self.eval_seed).split(1024), labels.split(1024), strict=True)
        return InMemory(torch.cat([crops.faded(*part) for part in parts]), labels)


class Crops:
    """Crops of some photographs as functions of draws.

    pixels: all scaled copies of all photographs, flattened, one after the other. start, width, room: for each copy, the
    index of its first pixel, its width, and the numbers of rows and columns where a crop may begin. counts: number of
    copies of each photograph.
    """

    def __init__(self, names: Sequence[str], side: int, crop: tuple[float, float], kept: int | float) -> None:
        self.kept = kept
        pictures = [load_photograph(name) for name in names]
        scaled = [
            v2.functional.resize(whole, list(new), antialias=True)
            for name, whole in zip(names, pictures, strict=True)
            for new in scaled_sizes(name, side, crop)
        ]
        self.counts = torch.tensor([len(scaled_sizes(name, side, crop)) for name in names])
        self.pixels = torch.cat([image.flatten(1) for image in scaled], 1)
        lengths = torch.tensor([image[0].numel() for image in scaled])
        self.start, self.width = lengths.cumsum(0) - lengths, torch.tensor([image.shape[2] for image in scaled])
        self.room = torch.tensor([[image.shape[1] - side + 1, image.shape[2] - side + 1] for image in scaled])
        self.rows, self.cols = torch.stack(
            [orientations(grid) for grid in torch.meshgrid(*[torch.arange(side)] * 2, indexing="ij")]
        )
        self.halves = halves(side)

    def faded(self, draws: Int[Tensor, " b"], labels: Int[Tensor, " b"]) -> UInt8[Tensor, "b 3 H W"]:
        """Return the crops of these draws, with the half given by the label faded."""
        images = self.cut(draws)
        brightness = (images * torch.tensor(BRIGHTNESS)[:, None, None]).sum(1, keepdim=True)
        grey = (brightness + self.kept * (images - brightness)).round_().to(torch.uint8)
        return torch.where(self.halves[labels][:, None], grey, images)

    def cut(self, draws: Int[Tensor, " b"]) -> UInt8[Tensor, "b 3 H W"]:
        """Return the crops of these draws: random photograph, scale and place, in one of eight orientations."""
        u = uniform(draws, 5, Purpose.SCENE)
        photograph = (u[:, 0] * len(self.counts)).long()
        before = self.counts.cumsum(0) - self.counts
        scale = before[photograph] + (u[:, 1] * self.counts[photograph]).long()
        top, left = ((u[:, 2:4] * self.room[scale]).long()).unbind(1)
        orientation = (u[:, 4] * len(self.rows)).long()
        rows, cols = top[:, None, None] + self.rows[orientation], left[:, None, None] + self.cols[orientation]
        places = self.start[scale][:, None, None] + rows * self.width[scale][:, None, None] + cols
        return self.pixels[:, places].movedim(0, 1)


def orientations(grid: Int[Tensor, "S S"]) -> Int[Tensor, "8 S S"]:
    """Return a square in its eight orientations: four rotations, each also mirrored."""
    return torch.stack([square.rot90(quarters) for square in (grid, grid.flip(1)) for quarters in range(4)])


def halves(side: int) -> Bool[Tensor, "4 S S"]:
    """Return masks of the upper, right, lower and left half."""
    upper = torch.zeros(side, side, dtype=torch.bool)
    upper[: side // 2] = True
    return torch.stack([upper.rot90(-quarters) for quarters in range(4)])


@cache
def load_photograph(name: str) -> UInt8[Tensor, "3 h w"]:
    """Return a photograph in RGB; each process decodes it once."""
    with Image.open(photograph_file(name)) as image:
        return v2.functional.pil_to_tensor(image.convert("RGB"))


def photograph_size(name: str) -> Size:
    """Return height and width of a photograph."""
    with Image.open(photograph_file(name)) as image:
        return image.height, image.width


def scaled_sizes(name: str, side: int, crop: tuple[float, float]) -> list[Size]:
    """List sizes (h, w) of scaled copies of a photograph, none larger than the original.

    In a copy, a crop of `side` pixels covers a share of the shorter side between crop[0] and crop[1].
    """
    full, covered, sizes = photograph_size(name), crop[1], []
    while covered >= crop[0] * (1 - 1e-6) and side / covered <= min(full):
        ratio = side / covered / min(full)
        sizes.append((max(side, round(full[0] * ratio)), max(side, round(full[1] * ratio))))
        covered /= STEP
    return sizes
