"""Random erasing: a rectangle of each image becomes noise (Zhong et al., 2020), as in mode "pixel" of timm."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from patchbench.checks import Size, interval, share
from patchbench.data.augment.crop import TRIALS, first_fitting, rectangles
from patchbench.data.draws import Purpose, normal, uniform


class Erase:
    """Replace a rectangle of an image by normal noise of mean 0 and standard deviation 1, like normalised images.

    prob: probability that an image is changed. area: smallest and largest area of the rectangle, as a share of the
    image. ratio: smallest and largest ratio of height to width.
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
        indices, draws, boxes = (t.to(images.device, non_blocking=True) for t in (chosen, draws[chosen], boxes[chosen]))
        shape = images.shape[1:]
        noise = normal(draws, shape.numel(), Purpose.ERASE_NOISE).unflatten(1, shape).to(images.dtype)
        inside = box_mask(boxes, (shape[1], shape[2]))
        return images.index_copy(0, indices, torch.where(inside, noise, images[indices]))

    def boxes(self, draws: Int[Tensor, " b"], img_size: Size) -> Int[Tensor, "b 4"]:
        """Return boxes (top, left, height, width); height and width are 0 if nothing is erased."""
        u = uniform(draws, 2 * TRIALS + 3, Purpose.ERASE)
        size = torch.tensor(img_size).expand(len(draws), 2)
        aspect = (1 / self.ratio[1], 1 / self.ratio[0])  # width / height
        trials = rectangles(u[:, :TRIALS], u[:, TRIALS:-3], size, self.area, aspect)
        fits = (trials < size[:, None]).all(2)
        erased = fits.any(1) & (u[:, -3] < self.prob)
        box = first_fitting(trials, fits) * erased[:, None]
        corner = (u[:, -2:] * (size - box + 1)).long()
        return torch.cat([corner, box], 1)


def box_mask(boxes: Int[Tensor, "b 4"], img_size: Size) -> Bool[Tensor, "b 1 H W"]:
    """Return the mask of the pixels inside the box of each image."""
    top, left, height, width = boxes.T[..., None]
    rows, cols = (torch.arange(n, device=boxes.device) for n in img_size)
    in_rows, in_cols = (rows >= top) & (rows < top + height), (cols >= left) & (cols < left + width)
    return (in_rows[:, :, None] & in_cols[:, None, :])[:, None]
