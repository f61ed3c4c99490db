"""Effects whose cause is known: digits with wrong labels, and networks that use position or do not."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from patchbench.data.sets.digits import Digits
from patchbench.data.source import InMemory

SHARE = 0.05


class Mislabelled:
    """Digits in which a share SHARE of the training labels is raised by one."""

    def __init__(self, digits: Digits) -> None:
        self.digits = digits

    def __getattr__(self, name: str) -> object:
        return getattr(self.digits, name)

    def splits(self) -> dict[str, InMemory]:
        splits = self.digits.splits()
        train = splits["train"]
        wrong: Tensor = torch.arange(len(train)) % round(1 / SHARE) == 0
        splits["train"] = InMemory(train.images, torch.where(wrong, (train.labels + 1) % 10, train.labels))
        return splits


def mislabelled(**knobs: object) -> Mislabelled:
    return Mislabelled(Digits(**knobs))  # type: ignore[arg-type]


class ReadsPlaces(nn.Module):
    """Network that predicts the brightest quarter of the image, so it uses the places of patches."""

    layout = None

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.num_classes = num_classes

    def forward(self, images: Float[Tensor, "b c H W"]) -> Float[Tensor, "b k"]:
        quarters = nn.functional.adaptive_avg_pool2d(images.mean(1, keepdim=True), 2).flatten(1)
        return self.scale * nn.functional.pad(quarters, (0, self.num_classes - 4), value=-1e3)


class CountsPatches(ReadsPlaces):
    """Network that predicts the number of bright patches, so it uses no position."""

    def __init__(self, num_classes: int, patch: int) -> None:
        super().__init__(num_classes)
        self.patch = patch

    def forward(self, images: Float[Tensor, "b c H W"]) -> Float[Tensor, "b k"]:
        bright = nn.functional.avg_pool2d(images.mean(1, keepdim=True), self.patch).flatten(1) > 0
        count = bright.float().sum(1, keepdim=True)
        return -self.scale * (count - torch.arange(self.num_classes)).abs()
