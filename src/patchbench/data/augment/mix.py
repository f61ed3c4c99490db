"""MixUp (Zhang et al., 2018) blends two images, CutMix (Yun et al., 2019) pastes a box of one; labels are mixed too."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from scipy.special import betaincinv
from torch import Tensor

from patchbench.checks import Size, share
from patchbench.data.augment.erase import box_mask
from patchbench.data.draws import Purpose, uniform


class Mix:
    """Mix each image of a micro-batch with another one, and their labels in the same proportion.

    mixup, cutmix: parameter of the Beta distribution of the share that an image keeps; 0 turns the operation off. prob:
    probability that an image is mixed. switch: share of CutMix among the mixed images, if both are on.
    The first image of a micro-batch is mixed with the last, the second with the last but one, and so on, because with
    repeated augmentation copies of one image follow each other; the middle image of an odd batch does not change. So
    the division of a step among ranks and micro-batches affects only the choice of the partner.
    """

    def __init__(self, *, mixup: float, cutmix: float, prob: float, switch: float) -> None:
        for name, value in {"mixup": mixup, "cutmix": cutmix}.items():
            if value < 0:
                raise ValueError(f"augment.mix.{name}={value} must not be negative; 0.0 turns it off")
        self.mixup, self.cutmix, self.prob = mixup, cutmix, share("augment.mix.prob", prob)
        self.switch = share("augment.mix.switch", switch) if mixup and cutmix else float(cutmix > 0)

    @property
    def active(self) -> bool:
        return self.prob > 0 and max(self.mixup, self.cutmix) > 0

    def __call__(
        self, images: Float[Tensor, "b c H W"], labels: Int[Tensor, " b"], draws: Int[Tensor, " b"], num_classes: int
    ) -> tuple[Float[Tensor, "b c H W"], Int[Tensor, " b"] | Float[Tensor, "b {num_classes}"]]:
        if not self.active:
            return images, labels
        outside, boxes = self.shares(draws, (images.shape[2], images.shape[3]))
        pixels = images.shape[2] * images.shape[3]
        own_share = outside * (1 - boxes[:, 2:].prod(1) / pixels)
        outside, boxes, own_share = (t.to(images.device, non_blocking=True) for t in (outside, boxes, own_share))
        weights = outside[:, None, None, None] * ~box_mask(boxes, (images.shape[2], images.shape[3]))
        soft = F.one_hot(labels, num_classes).float()
        return torch.lerp(images.flip(0), images, weights), torch.lerp(soft.flip(0), soft, own_share[:, None])

    def shares(self, draws: Int[Tensor, " b"], img_size: Size) -> tuple[Float[Tensor, " b"], Int[Tensor, "b 4"]]:
        """Return the weight of each image outside a box (top, left, height, width), and the box.

        Inside the box the partner replaces the image.
        """
        u_mix, u_cut, u_share, down, right = uniform(draws, 5, Purpose.MIX).T
        mixed, cut = u_mix < self.prob, u_cut < self.switch
        alpha = torch.where(cut, self.cutmix, self.mixup).double()
        outside = torch.from_numpy(betaincinv(alpha.numpy(), alpha.numpy(), u_share.double().numpy())).float()
        size = torch.tensor(img_size)
        side = (size * (1 - outside[:, None]).sqrt()).long()
        centre = (torch.stack([down, right], 1) * size).long()
        start = (centre - side // 2).clamp(min=0)
        end = torch.minimum(centre + (side + 1) // 2, size)
        box = torch.cat([start, end - start], 1) * (mixed & cut)[:, None]
        return torch.where(mixed & ~cut, outside, 1.0), box
