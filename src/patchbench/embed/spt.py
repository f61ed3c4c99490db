"""Shifted patch tokenization (Lee et al., 2021): each token sees its patch and its four diagonal neighbourhoods."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from patchbench.checks import Size, cover, size, spell
from patchbench.layout import padded


class ShiftedPatchEmbed(nn.Module):
    """Stack the image and four copies, shifted diagonally by half a patch; cut, normalise and project.

    The order of the copies is that of the paper, up-left first; the authors' code starts with down-right, and
    flattens channels last.
    A token reads 5 * in_chans * P * P values from a window of 2 P by 2 P pixels; pixels outside the image are zero.
    ValueError if a side of the patch is 1, or if the patches do not cover the image, unless `pad`.
    """

    def __init__(
        self, img_size: Size, in_chans: int, embed_dim: int, *, patch_size: int | Sequence[int], pad: bool
    ) -> None:
        super().__init__()
        self.patch_size, self.pad = size("patch", patch_size), pad
        self.grid_size, _ = cover(img_size, self.patch_size, pad)
        p, q = self.patch_size
        if min(p, q) < 2:
            raise ValueError(
                f"patch={spell(self.patch_size)} cannot be shifted by half a patch: use patch=2 or more, or embed=conv"
            )
        self.norm = nn.LayerNorm(5 * in_chans * p * q)
        self.proj = nn.Linear(5 * in_chans * p * q, embed_dim)

    def forward(self, images: Float[Tensor, "b c H W"]) -> Float[Tensor, "b h w d"]:
        images = padded(images, self.patch_size, self.pad)
        p, q = self.patch_size
        dy, dx = p // 2, q // 2
        shifts = [F.pad(images, (x, -x, y, -y)) for y in (-dy, dy) for x in (-dx, dx)]
        patches = rearrange(torch.cat([images, *shifts], 1), "b c (h p) (w q) -> b h w (c p q)", p=p, q=q)
        return self.proj(self.norm(patches))
