"""Embedding by a convolutional network: the places of its feature map are the tokens (Dosovitskiy et al., 2021)."""

from collections.abc import Callable
from typing import Any

import timm
import torch
from jaxtyping import Float
from torch import Tensor, nn

from patchbench.checks import Size, nearest


class HybridEmbed(nn.Module):
    """Pass images through one of timm's backbones, up to the stage `out_index`, then through a 1x1 projection.

    The stride of the stage sets the number of tokens; `patch` is not read. A backbone that is not pretrained is
    initialised as timm does it. ValueError for a name that timm does not know, a stage that the backbone does not have,
    and a stride that exceeds the image.
    """

    def __init__(
        self, img_size: Size, in_chans: int, embed_dim: int, *, backbone: str, pretrained: bool, out_index: int
    ) -> None:
        super().__init__()
        if not timm.is_model(backbone):
            close = nearest(backbone, timm.list_models(), 3)
            hint = f"did you mean {' or '.join(close)}?" if close else "timm.list_models() names those it knows"
            raise ValueError(f"backbone={backbone} is not a model of timm: {hint}")

        def features(pretrained: bool) -> Any:
            return timm.create_model(
                backbone, pretrained=pretrained, features_only=True, out_indices=(out_index,), in_chans=in_chans
            )

        try:
            with torch.device("meta"):
                draft = features(pretrained=False)
        except Exception as error:  # timm has no exception of its own for a model that cannot be cut
            raise ValueError(f"backbone={backbone} gives no features at out_index={out_index}: {error}") from error
        [stride] = draft.feature_info.reduction()
        if stride > min(img_size):
            raise ValueError(
                f"backbone={backbone} has stride {stride} at out_index={out_index}, which exceeds "
                f"data.img_size={img_size[0]}x{img_size[1]}: use a smaller embed.out_index or a larger data.img_size"
            )
        self.channels_last = str(getattr(draft, "output_fmt", "NCHW")).endswith("NHWC")
        try:
            [features_on_meta] = draft.eval()(torch.empty(1, in_chans, *img_size, device="meta"))
        except Exception as error:
            raise ValueError(
                f"backbone={backbone} cannot take images of {img_size[0]}x{img_size[1]} pixels: {error}"
            ) from error
        rows, cols = features_on_meta.shape[1:3] if self.channels_last else features_on_meta.shape[2:4]
        self.grid_size = (int(rows), int(cols))

        # timm does not remove the later stages of some families: they would cost time, and no gradient reaches them.
        features_on_meta.sum().backward()
        idle = {name for name, p in draft.named_parameters() if p.grad is None}
        draft.zero_grad()
        on_meta = torch.empty(0).device.type == "meta"  # to count the cost, no weights are downloaded
        self.backbone = draft if on_meta else features(pretrained)
        remove_idle(self.backbone, idle)
        self.backbone.train()
        if not pretrained:
            for module in self.backbone.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.reset_parameters()  # timm starts the last norm of a branch at 0: no gradient before it
        self.proj = nn.Conv2d(draft.feature_info.channels()[0], embed_dim, 1)

    def forward(self, images: Float[Tensor, "b c H W"]) -> Float[Tensor, "b h w d"]:
        [features] = self.backbone(images)
        if self.channels_last:
            features = features.permute(0, 3, 1, 2)
        return self.proj(features).permute(0, 2, 3, 1)

    def apply(self, fn: Callable[[nn.Module], None]) -> "HybridEmbed":
        """Apply `fn` to the projection alone: the backbone has its own initialisation."""
        self.proj.apply(fn)
        return self


def remove_idle(net: nn.Module, idle: set[str], prefix: str = "") -> None:
    """Replace every module of `net` whose parameters are all listed in `idle` by nn.Identity."""
    for name, child in net.named_children():
        inside = [f"{prefix}{name}.{parameter}" for parameter, _ in child.named_parameters()]
        if inside and idle.issuperset(inside):
            setattr(net, name, nn.Identity())
        else:
            remove_idle(child, idle, f"{prefix}{name}.")
