"""Generated data sets: an endless stream of training images, fixed validation and test images, other test sizes."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from patchbench.checks import Size, at_least, one_of, positive, size, spell
from patchbench.data.diagnostics.canvas import GREY, pick
from patchbench.data.draws import Images, Purpose, eval_draws, normal, uniform
from patchbench.data.source import Crop, InMemory, Split

CHUNK = 2**22  # pixels of a fixed split that are made at a time


@runtime_checkable
class Scene(Protocol):
    """Content of generated images, and the question that the label answers.

    mirrors: an image and its mirror image have the same label. chance: accuracy of guessing, and of a network without
    the ability that the set isolates. noise: standard deviation in grey levels, independent for each pixel.
    noise_chans: 1 for the same noise in all three channels, or 3 for independent noise.
    """

    num_classes: int
    mirrors: bool
    chance: float
    noise: float
    noise_chans: int

    def check_size(self, img_size: Size) -> None:
        """Raise ValueError, in one line with the cure, unless the scene fits images of this size."""
        ...

    def ceiling(self, img_size: Size) -> float:
        """Return an upper bound on the expected accuracy of any classifier."""
        ...

    def draw(self, draws: Int[Tensor, " b"], labels: Int[Tensor, " b"], img_size: Size) -> Float[Tensor, "b c H W"]:
        """Draw images with these labels, in grey levels relative to the mean grey; c is 1 or 3."""
        ...


class Diagnostic:
    """A generated data set: images of a scene with noise. Training images never repeat; val and test are fixed.

    train_size: number of images per epoch. In training all labels are equally probable; in val and test they take turns
    and are equally frequent.

    eval_seed: each number gives other images for val and test, so the results of several seeds generalise to all
    images that can be drawn. None gives another fixed set, which runs used before the knob existed.

    unit: inputs are (pixel - mean grey) / unit, with pixels in 0 ... 1. It sets the scale of patches relative to
    learned positions, which start small, and so how soon positions are learned.
    ValueError if the scene does not fit the image size.
    """

    in_chans = 3

    def __init__(
        self,
        *,
        scene: Scene,
        unit: float,
        img_size: int | Sequence[int],
        eval_seed: int | None,
        train_size: int,
        val_size: int,
        test_size: int,
    ) -> None:
        if eval_seed is not None:
            at_least(0, eval_seed=eval_seed)
        at_least(1, train_size=train_size, val_size=val_size, test_size=test_size)
        self.scene, self.img_size, self.eval_seed = scene, size("img_size", img_size), eval_seed
        self.train_size, self.val_size, self.test_size = train_size, val_size, test_size
        scene.check_size(self.img_size)
        self.num_classes, self.mirrors, self.chance = scene.num_classes, scene.mirrors, scene.chance
        self.ceiling = scene.ceiling(self.img_size)
        positive("unit", unit)
        self.mean, self.std = [GREY / 255] * 3, [float(unit)] * 3

    def splits(self) -> dict[str, Split]:
        fixed = partial(self.fixed, img_size=self.img_size, scale=1)
        make = partial(self.render, img_size=self.img_size, scale=1)
        train = Stream(self.train_size, self.num_classes, make, self.eval_seed)
        return {"train": train, "val": fixed(Images.VAL, self.val_size), "test": fixed(Images.TEST, self.test_size)}

    def test_at(self, img_size: int | Sequence[int], shift: str) -> InMemory:
        """Make the test split at another image size.

        shift: `canvas` keeps all lengths in pixels, so the scene has more space (or less); `scale` multiplies all
        lengths by the same whole factor as the image, but the noise stays independent for each pixel. ValueError if the
        scene does not fit the size, or the factor is not whole.
        """
        one_of("shift", shift, ("canvas", "scale"))
        new = size("img_size", img_size)
        if shift == "canvas":
            self.scene.check_size(new)
            return self.fixed(Images.TEST, self.test_size, new, scale=1)
        scale = max(1, new[0] // self.img_size[0])
        whole = self.img_size[0] * scale, self.img_size[1] * scale
        if new != whole:
            raise ValueError(
                f"img_size={spell(new)} is no whole multiple of data.img_size={spell(self.img_size)}, as shift=scale "
                f"needs: use {spell(whole)}, or shift=canvas"
            )
        return self.fixed(Images.TEST, self.test_size, self.img_size, scale)

    def fixed(self, split: Images, count: int, img_size: Size, scale: int) -> InMemory:
        indices = torch.arange(count)
        draws, labels = eval_draws(split, indices, self.eval_seed), indices % self.num_classes
        step = max(1, CHUNK // (img_size[0] * img_size[1] * scale**2))
        parts = zip(draws.split(step), labels.split(step), strict=True)
        images = torch.cat([self.render(*part, img_size, scale) for part in parts])
        scene_groups = getattr(self.scene, "groups", None)
        groups = None if scene_groups is None else partial(scene_groups, draws, img_size, scale)
        return InMemory(images, labels, groups)

    def render(
        self, draws: Int[Tensor, " b"], labels: Int[Tensor, " b"], img_size: Size, scale: int
    ) -> UInt8[Tensor, "b 3 H W"]:
        """Draw the scene at img_size, enlarge each pixel to `scale` by `scale` pixels, and add noise."""
        drawn = self.scene.draw(draws, labels, img_size)
        if scale > 1:
            drawn = drawn.repeat_interleave(scale, 2).repeat_interleave(scale, 3)
        chans, (height, width) = self.scene.noise_chans, drawn.shape[2:]
        noise = normal(draws, chans * height * width, Purpose.PIXEL_NOISE).view(-1, chans, height, width)
        noise *= self.scene.noise
        # Scene and noise are rounded separately: so the noise of a pixel is independent of the scene.
        pixels = noise.round_() + (drawn + GREY).round_()
        return pixels.clamp_(0, 255).to(torch.uint8).expand(-1, 3, -1, -1)


class Stream:
    """A split that makes its images when they are read; training images are functions of draws and never repeat.

    eval_seed: for images that are read without draws, such as those that fit a basis.
    """

    slow = False
    crops = False

    def __init__(
        self,
        count: int,
        num_classes: int,
        make: Callable[[Int[Tensor, " b"], Int[Tensor, " b"]], Tensor],
        eval_seed: int | None,
    ) -> None:
        self.count, self.num_classes, self.make, self.eval_seed = count, num_classes, make, eval_seed

    def __len__(self) -> int:
        return self.count

    def read(
        self, indices: Sequence[int], draws: Int[Tensor, " b"] | None = None, crop: Crop | None = None
    ) -> tuple[UInt8[Tensor, "b c H W"], Int[Tensor, " b"]]:
        draws = eval_draws(Images.TRAIN, torch.as_tensor(indices), self.eval_seed) if draws is None else draws
        labels = pick(uniform(draws, 1, Purpose.LABEL)[:, 0], self.num_classes)
        return self.make(draws, labels), labels
