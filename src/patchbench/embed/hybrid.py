"""Embedding by a convolutional network: each place of its feature map is a token (Dosovitskiy et al., 2021)."""

from collections.abc import Callable
from typing import Any

import timm
import torch
from jaxtyping import Float
from torch import Tensor, nn

from patchbench.checks import Size, nearest


class HybridEmbed(nn.Module):
    """Pass images through one of timm's backbones, up to the stage `out_index`, then through a 1x1 projection.

    The stride of the stage sets the number of tokens; the option `patch` is not read. A backbone that is not pretrained
    is initialised as timm does it, except for the last norm of each residual branch. ValueError for a name that timm
    does not know, a stage that the backbone does not have, and a stride that exceeds the image.
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
        except Exception as error:  # timm has no exception class for a model without feature maps
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

        # For some families timm does not remove the later stages: they would cost time and get no gradient.
        features_on_meta.sum().backward()
        unused = {name for name, p in draft.named_parameters() if p.grad is None}
        draft.zero_grad()
        on_meta = torch.empty(0).device.type == "meta"  # the cost is counted without downloading weights
        self.backbone = draft if on_meta else features(pretrained)
        remove_unused(self.backbone, unused)
        self.backbone.train()
        if not pretrained:
            for module in self.backbone.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.reset_parameters()  # timm starts the last norm of a branch at 0, which blocks its gradient
        self.proj = nn.Conv2d(draft.feature_info.channels()[0], embed_dim, 1)

    def forward(self, images: Float[Tensor, "b c H W"]) -> Float[Tensor, "b h w d"]:
        [features] = self.backbone(images)
        if self.channels_last:
            features = features.permute(0, 3, 1, 2)
        return self.proj(features).permute(0, 2, 3, 1)

    def apply(self, fn: Callable[[nn.Module], None]) -> "HybridEmbed":
        """Apply `fn` to the projection only: the backbone has its own initialisation."""
        self.proj.apply(fn)
        return self


def remove_unused(net: nn.Module, unused: set[str], prefix: str = "") -> None:
    """Replace each module of `net` by nn.Identity if all its parameters are in `unused`, a set of parameter names."""
    for name, child in net.named_children():
        parameters = [f"{prefix}{name}.{parameter}" for parameter, _ in child.named_parameters()]
        if parameters and unused.issuperset(parameters):
            setattr(net, name, nn.Identity())
        else:
            remove_unused(child, unused, f"{prefix}{name}.")
