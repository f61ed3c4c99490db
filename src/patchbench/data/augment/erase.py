"""A rectangle of each image replaced by noise (Zhong et al., 2020), as timm does in its mode "pixel"."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from patchbench.checks import Size, interval, share
from patchbench.data.augment.crop import TRIALS, first_of, rectangles
from patchbench.data.draws import Purpose, normal, uniform


class Erase:
    """prob: probability that an image loses a rectangle. area: its share of the image. ratio: its height to its width.

    The noise is normal, of mean 0 and standard deviation 1, as normalised images have.
    """

    def __init__(self, *, prob: float, area: Sequence[float], ratio: Sequence[float]) -> None:
        self.prob = share("augment.erase.prob", prob)
        self.area = interval("augment.erase.area", area, most=1.0)
        self.ratio = interval("augment.erase.ratio", ratio)

    def __call__(self, images: Float[Tensor, "b c H W"], draws: Int[Tensor, " b"]) -> Float[Tensor, "b c H W"]:
        if self.prob == 0:
            return images
        boxes = self.boxes(draws, (images.shape[2], images.shape[3]))
        [chosen] = torch.nonzero((boxes[:, 2] > 0) & (boxes[:, 3] > 0), as_tuple=True)
        if not len(chosen):
            return images
        there, draws, boxes = (t.to(images.device, non_blocking=True) for t in (chosen, draws[chosen], boxes[chosen]))
        shape = images.shape[1:]
        noise = normal(draws, shape.numel(), Purpose.ERASE_NOISE).unflatten(1, shape).to(images.dtype)
        inside = within(boxes, (shape[1], shape[2]))
        return images.index_copy(0, there, torch.where(inside, noise, images[there]))

    def boxes(self, draws: Int[Tensor, " b"], img_size: Size) -> Int[Tensor, "b 4"]:
        """(top, left, height, width); of height and width 0 if nothing is erased."""
        u = uniform(draws, 2 * TRIALS + 3, Purpose.ERASE)
        size = torch.tensor(img_size).expand(len(draws), 2)
        wide_to_tall = (1 / self.ratio[1], 1 / self.ratio[0])
        trials = rectangles(u[:, :TRIALS], u[:, TRIALS:-3], size, self.area, wide_to_tall)
        fits = (trials < size[:, None]).all(2)
        erased = fits.any(1) & (u[:, -3] < self.prob)
        box = first_of(trials, fits) * erased[:, None]
        corner = (u[:, -2:] * (size - box + 1)).long()
        return torch.cat([corner, box], 1)


def within(boxes: Int[Tensor, "b 4"], img_size: Size) -> Bool[Tensor, "b 1 H W"]:
    """Mask of the pixels in each image's box."""
    top, left, height, width = boxes.T[..., None]
    rows, cols = (torch.arange(n, device=boxes.device) for n in img_size)
    tall, wide = (rows >= top) & (rows < top + height), (cols >= left) & (cols < left + width)
    return (tall[:, :, None] & wide[:, None, :])[:, None]
