"""timm's networks for classification, from scratch (Wightman, 2019)."""

from collections.abc import Mapping
from typing import Any

import timm
import torch
from jaxtyping import Float
from timm.models.resnet import ResNet
from torch import Tensor, nn

from patchbench.checks import Size, nearest, spell


class TimmNet(nn.Module):
    """Map images to class logits by timm's network `name`, initialised as timm initialises it.

    small: the stem of a ResNet keeps the size of the image, as on CIFAR (He et al., 2016, sec. 4.2): stride 1 and no
    pooling. options: further arguments of timm.create_model.
    ValueError for a name that timm does not know, for options that the network does not take, and for images of a size
    that the network cannot process.
    """

    layout = None  # not every network has tokens, and timm does not report their number

    def __init__(
        self,
        *,
        img_size: Size,
        in_chans: int,
        num_classes: int,
        name: str,
        small: bool,
        options: Mapping[str, Any] | None,
    ) -> None:
        super().__init__()
        if not timm.is_model(name):
            close = nearest(name, timm.list_models(), 3)
            hint = f"did you mean {' or '.join(close)}?" if close else "timm.list_models() names those it knows"
            raise ValueError(f"name={name} is not a model of timm: {hint}")
        shapes: dict[str, Any] = {"in_chans": in_chans, "num_classes": num_classes}
        pretrained_cfg = timm.models.get_pretrained_cfg(name)
        if pretrained_cfg is not None and pretrained_cfg.fixed_input_size:
            shapes["img_size"] = img_size  # other networks take any size, and have no such argument

        def create() -> Any:
            return timm.create_model(name, pretrained=False, **{**shapes, **(options or {})})

        try:
            with torch.device("meta"):
                draft = create()
        except Exception as error:  # timm has no exception of its own for a network that cannot be built
            raise ValueError(
                f"options={options} cannot be used with name={name}: {one_line(error)}; use "
                "options=null or another model.name"
            ) from error
        if small and not isinstance(draft, ResNet):
            raise ValueError(
                f"small=true is for ResNets, and name={name} is a {type(draft).__name__}: use "
                "small=false, and an option of this network if it has one, as in options={patch_size:2} of "
                "a ConvNeXt"
            )
        if small:
            keep_size(draft)
        try:
            draft.eval()(torch.empty(1, in_chans, *img_size, device="meta"))
        except (ValueError, AssertionError, RuntimeError, ArithmeticError, LookupError) as error:
            raise ValueError(
                f"name={name} cannot take images of data.img_size={spell(img_size)} ({one_line(error)}): use a larger "
                "data.img_size or another model.name"
            ) from error
        if torch.empty(0).device.type == "meta":  # the draft is enough to count the cost
            self.net = draft.train()
            return
        self.net = create()
        if small:
            keep_size(self.net)

    @property
    def blocks(self) -> list[nn.Module]:
        return [self.net]

    def forward(self, images: Float[Tensor, "b c H W"]) -> Float[Tensor, "b classes"]:
        return self.net(images)

    def no_weight_decay(self) -> set[str]:
        named = self.net.no_weight_decay() if hasattr(self.net, "no_weight_decay") else set()
        return {f"net.{name}" for name in named}


def keep_size(net: Any) -> None:
    """Set the stem of a ResNet to stride 1 without pooling, so that it keeps the size of the image."""
    first = next(module for module in net.conv1.modules() if isinstance(module, nn.Conv2d))
    first.stride = (1, 1)
    net.maxpool = nn.Identity()


def one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
