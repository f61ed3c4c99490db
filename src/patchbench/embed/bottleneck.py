"""Patch embedding through a bottleneck: flatten, project to `width` values, project to the width of the trunk."""

from collections.abc import Sequence

from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from patchbench.checks import Size, cover, size
from patchbench.layout import padded


class BottleneckEmbed(nn.Module):
    """Project each patch to `width` values, and these to embed_dim, by two learned linear maps.

    There is no activation between the two maps, so together they are one linear map of rank at most `width`. The trunk
    is the same for every width. Values are flattened in the same order as in `linear`. ValueError for a width below 1,
    and if the patches do not cover the image, unless `pad`.
    """

    def __init__(
        self,
        img_size: Size,
        in_chans: int,
        embed_dim: int,
        *,
        patch_size: int | Sequence[int],
        width: int,
        pad: bool,
    ) -> None:
        super().__init__()
        self.patch_size, self.pad = size("patch", patch_size), pad
        self.grid_size, _ = cover(img_size, self.patch_size, pad)
        if width < 1:
            raise ValueError(f"width={width} keeps no value of a patch: use width=1 or more")
        self.reduce = nn.Linear(in_chans * self.patch_size[0] * self.patch_size[1], width)
        self.proj = nn.Linear(width, embed_dim)

    def forward(self, images: Float[Tensor, "b c H W"]) -> Float[Tensor, "b h w d"]:
        images = padded(images, self.patch_size, self.pad)
        p, q = self.patch_size
        return self.proj(self.reduce(rearrange(images, "b c (h p) (w q) -> b h w (c p q)", p=p, q=q)))
