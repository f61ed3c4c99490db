"""Two images in one, blended (Zhang et al., 2018) or one cut into the other (Yun et al., 2019); labels likewise."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from scipy.special import betaincinv
from torch import Tensor

from patchbench.checks import Size, share
from patchbench.data.augment.erase import within
from patchbench.data.draws import Purpose, uniform


class Mix:
    """mixup, cutmix: parameter of the Beta distribution of each image's own share; 0 turns one off.

    prob: probability that an image is mixed. switch: share of CutMix among the mixed images, if both are on.
    The first image of a micro-batch is mixed with the last, the second with the last but one, and so on, because
    showings of one image follow each other; the middle of an odd batch stays as it is. Only the partner therefore
    depends on how a step is cut among ranks and micro-batches.
    """

    def __init__(self, *, mixup: float, cutmix: float, prob: float, switch: float) -> None:
        for name, value in {"mixup": mixup, "cutmix": cutmix}.items():
            if value < 0:
                raise ValueError(f"augment.mix.{name}={value} must not be negative, 0.0 to do without")
        self.mixup, self.cutmix, self.prob = mixup, cutmix, share("augment.mix.prob", prob)
        self.switch = share("augment.mix.switch", switch) if mixup and cutmix else float(cutmix > 0)

    @property
    def on(self) -> bool:
        return self.prob > 0 and max(self.mixup, self.cutmix) > 0

    def __call__(
        self, images: Float[Tensor, "b c H W"], labels: Int[Tensor, " b"], draws: Int[Tensor, " b"], num_classes: int
    ) -> tuple[Float[Tensor, "b c H W"], Int[Tensor, " b"] | Float[Tensor, "b {num_classes}"]]:
        if not self.on:
            return images, labels
        outside, boxes = self.shares(draws, (images.shape[2], images.shape[3]))
        pixels = images.shape[2] * images.shape[3]
        own = outside * (1 - boxes[:, 2:].prod(1) / pixels)
        outside, boxes, own = (t.to(images.device, non_blocking=True) for t in (outside, boxes, own))
        weights = outside[:, None, None, None] * ~within(boxes, (images.shape[2], images.shape[3]))
        soft = F.one_hot(labels, num_classes).float()
        return torch.lerp(images.flip(0), images, weights), torch.lerp(soft.flip(0), soft, own[:, None])

    def shares(self, draws: Int[Tensor, " b"], img_size: Size) -> tuple[Float[Tensor, " b"], Int[Tensor, "b 4"]]:
        """Share that each image keeps outside a box (top, left, height, width); inside the box it keeps nothing."""
        whether, which, how_much, down, right = uniform(draws, 5, Purpose.MIX).T
        mixed, cut = whether < self.prob, which < self.switch
        alpha = torch.where(cut, self.cutmix, self.mixup).double()
        outside = torch.from_numpy(betaincinv(alpha.numpy(), alpha.numpy(), how_much.double().numpy())).float()
        size = torch.tensor(img_size)
        side = (size * (1 - outside[:, None]).sqrt()).long()
        middle = (torch.stack([down, right], 1) * size).long()
        start = (middle - side // 2).clamp(min=0)
        end = torch.minimum(middle + (side + 1) // 2, size)
        box = torch.cat([start, end - start], 1) * (mixed & cut)[:, None]
        return torch.where(mixed & ~cut, outside, 1.0), box
