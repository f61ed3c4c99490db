"""Patch embedding as flatten-then-project (Dosovitskiy et al., 2021, eq. 1)."""

from collections.abc import Sequence

from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from patchbench.checks import Size, cover, size
from patchbench.layout import padded


class LinearEmbed(nn.Module):
    """Flatten each patch to in_chans * P * P values, in the order (channel, row, column), and project it.

    With `proj.weight = conv.weight.flatten(1)` it is the same map as `embed=conv`. ValueError if the patches do not
    cover the image, unless `pad`.
    """

    def __init__(
        self, img_size: Size, in_chans: int, embed_dim: int, *, patch_size: int | Sequence[int], pad: bool
    ) -> None:
        super().__init__()
        self.patch_size, self.pad = size("patch", patch_size), pad
        self.grid_size, _ = cover(img_size, self.patch_size, pad)
        self.proj = nn.Linear(in_chans * self.patch_size[0] * self.patch_size[1], embed_dim)

    def forward(self, images: Float[Tensor, "b c H W"]) -> Float[Tensor, "b h w d"]:
        images = padded(images, self.patch_size, self.pad)
        p, q = self.patch_size
        return self.proj(rearrange(images, "b c (h p) (w q) -> b h w (c p q)", p=p, q=q))
