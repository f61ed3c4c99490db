"""Augmentation of training images on the device, each image with the random numbers of its own draw."""

from functools import partial
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from patchbench.checks import share
from patchbench.data.augment.crop import RandomResizedCrop, RandomShift
from patchbench.data.augment.erase import Erase
from patchbench.data.augment.jitter import Jitter
from patchbench.data.augment.mix import Mix
from patchbench.data.augment.randaugment import RandAugment
from patchbench.data.augment.three import ThreeAugment
from patchbench.data.draws import Purpose, uniform
from patchbench.data.source import Crop, Source


class Augment:
    """Crop, flip, RandAugment, 3-Augment and colour jitter; after the normalisation random erasing, MixUp and CutMix.

    hflip: probability to mirror an image; "auto": 0.5 if mirror images have the same label (`source.mirrors`), else 0.
    repeats: how often an image is shown in a row (repeated augmentation).
    Random numbers are computed on the host and images are changed on their device, so the host never waits for the
    device. ValueError if an operation cannot work on the channels of the source.
    """

    def __init__(
        self,
        source: Source,
        *,
        crop: RandomResizedCrop | RandomShift | None,
        hflip: float | Literal["auto"],
        randaugment: RandAugment,
        three: ThreeAugment,
        jitter: Jitter,
        erase: Erase,
        mix: Mix,
        repeats: int,
    ) -> None:
        self.source, self.cropping, self.randaugment, self.three = source, crop, randaugment, three
        self.jitter, self.erase, self.mix, self.repeats = jitter, erase, mix, repeats
        self.hflip = 0.5 * source.mirrors if hflip == "auto" else share("hflip", hflip)
        if repeats < 1:
            raise ValueError(f"repeats={repeats} must be at least 1, which shows each image once per epoch")
        coloured = {
            f"augment.randaugment.prob={randaugment.prob}": randaugment.prob,
            f"augment.three.prob={three.prob}": three.prob,
            f"augment.jitter.strength={jitter.strength}": jitter.strength,
        }
        for option, used in coloured.items():
            if used and source.in_chans not in (1, 3):
                raise ValueError(
                    f"{option} changes colours or greys, and the images have {source.in_chans} channels: "
                    f"use {option.split('=')[0]}=0.0, or augment=light"
                )

    @property
    def crop(self) -> Crop | None:
        """The crop function for a split that stores images larger than `img_size`; None without a crop."""
        return None if self.cropping is None else partial(self.cropping.boxes, img_size=self.source.img_size)

    @property
    def active(self) -> bool:
        """True if any operation may change an image."""
        parts = (self.hflip, self.randaugment.prob, self.three.prob, self.jitter.strength, self.erase.prob)
        return self.cropping is not None or any(parts) or self.mix.active

    def images(
        self, images: UInt8[Tensor, "b c H W"], draws: Int[Tensor, " b"], *, cropped: bool
    ) -> UInt8[Tensor, "b c H W"]:
        """Augment pixels. cropped: the images were already cropped when they were read."""
        draws = draws.cpu()
        if self.cropping and not cropped:
            images = self.cropping(images, draws, self.flips(draws))
        elif self.hflip:
            mirrored = self.flips(draws).to(images.device, non_blocking=True)[:, None, None, None]
            images = torch.where(mirrored, images.flip(3), images)
        images = self.randaugment(images, draws, self.source.mean)
        return self.jitter(self.three(images, draws), draws)

    def flips(self, draws: Int[Tensor, " b"]) -> Bool[Tensor, " b"]:
        """Return the mask of the images to mirror."""
        return uniform(draws, 1, Purpose.FLIP)[:, 0] < self.hflip

    def mixed(
        self, images: Float[Tensor, "b c H W"], labels: Int[Tensor, " b"], draws: Int[Tensor, " b"]
    ) -> tuple[Float[Tensor, "b c H W"], Int[Tensor, " b"] | Float[Tensor, "b classes"]]:
        """Erase and mix normalised images; return images and labels, which are soft labels if mixing is on."""
        draws = draws.cpu()
        return self.mix(self.erase(images, draws), labels, draws, self.source.num_classes)
