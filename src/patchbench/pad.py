"""Images that patches do not cover exactly."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from patchbench.layout import Size, cover


def padded(images: Float[Tensor, "b c H W"], patch_size: Size, pad: bool) -> Float[Tensor, "b c H2 W2"]:
    """With rows and columns of zeros at the bottom and right, up to whole patches. ValueError if any and not `pad`."""
    _, (bottom, right) = cover(images.shape[2:], patch_size, pad)
    return F.pad(images, (0, right, 0, bottom))
