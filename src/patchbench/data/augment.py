"""What training does to an image before the network sees it: on the device, each image by its own draw."""

from jaxtyping import Float, Int, UInt8
from torch import Tensor

from patchbench.data.source import Crop


class Augment:
    """repeats: showings of an image that follow each other (repeated augmentation)."""

    crop: Crop | None = None

    def __init__(self, *, repeats: int) -> None:
        self.repeats = repeats

    def images(self, images: UInt8[Tensor, "b c H W"], draws: Int[Tensor, " b"]) -> UInt8[Tensor, "b c h w"]:
        return images

    def mixed(
        self, images: Float[Tensor, "b c h w"], labels: Int[Tensor, " b"], draws: Int[Tensor, " b"]
    ) -> tuple[Float[Tensor, "b c h w"], Tensor]:
        """Images with their labels, or with a share of each class, b classes."""
        return images, labels
