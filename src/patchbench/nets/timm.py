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
    """Images to class logits by the network that timm has under `name`, started as timm starts it.

    small: a ResNet passes images through its stem in their own size, as on CIFAR (He et al., 2016, sec. 4.2): stride 1
    and no pooling. options: go to timm.create_model. ValueError for a name that timm does not know, what the network
    does not take, and images that it cannot see.
    """

    layout = None  # not every network has tokens, nor does timm say how many

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
            raise ValueError(f"model.name={name} is not a model of timm: {hint}")
        shapes: dict[str, Any] = {"in_chans": in_chans, "num_classes": num_classes}
        pretrained_cfg = timm.models.get_pretrained_cfg(name)
        if pretrained_cfg is not None and pretrained_cfg.fixed_input_size:
            shapes["img_size"] = img_size  # the others take any size, and no such argument

        def create() -> Any:
            return timm.create_model(name, pretrained=False, **{**shapes, **(options or {})})

        try:
            with torch.device("meta"):
                draft = create()
        except Exception as error:  # timm has no one way to say that a network cannot be built so
            raise ValueError(
                f"model.options={options} cannot be for model.name={name}: {why(error)}; use "
                "model.options=null or another model.name"
            ) from error
        if small and not isinstance(draft, ResNet):
            raise ValueError(
                f"model.small=true is for ResNets, and model.name={name} is a {type(draft).__name__}: use "
                "model.small=false, and where it has such, an option of its own, as in model.options={patch_size:2} of "
                "a ConvNeXt"
            )
        if small:
            open_stem(draft)
        try:
            draft.eval()(torch.empty(1, in_chans, *img_size, device="meta"))
        except (ValueError, AssertionError, RuntimeError) as error:
            raise ValueError(
                f"model.name={name} cannot take images of data.img_size={spell(img_size)} ({why(error)}): use a larger "
                "data.img_size or another model.name"
            ) from error
        if torch.empty(0).device.type == "meta":  # to count the cost, one is enough
            self.net = draft.train()
            return
        self.net = create()
        if small:
            open_stem(self.net)

    @property
    def blocks(self) -> list[nn.Module]:
        return [self.net]

    def forward(self, images: Float[Tensor, "b c H W"]) -> Float[Tensor, "b classes"]:
        return self.net(images)

    def no_weight_decay(self) -> set[str]:
        named = self.net.no_weight_decay() if hasattr(self.net, "no_weight_decay") else set()
        return {f"net.{name}" for name in named}


def open_stem(net: Any) -> None:
    """Let a ResNet start in the size of the image."""
    first = next(module for module in net.conv1.modules() if isinstance(module, nn.Conv2d))
    first.stride = (1, 1)
    net.maxpool = nn.Identity()


def why(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
