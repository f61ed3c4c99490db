"""Embeddings that treat colour in other ways: each channel separately, luminance only, one channel only."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from patchbench.checks import Size, cover, one_of, size
from patchbench.layout import padded

STANDARDS = {"rec601": (0.299, 0.587, 0.114), "rec709": (0.2126, 0.7152, 0.0722)}


class ChannelwiseEmbed(nn.Module):
    """Embed each channel by its own patch embedding, then mix the results by one linear map.

    channel_dim: values per channel and patch between the two maps; None: embed_dim. There is no activation between the
    maps. Together they are one linear map of the patch, as in `conv`, learned as a product, with a rank limited by
    channel_dim. ValueError for a channel_dim below 1, and if the patches do not cover the image, unless `pad`.
    """

    def __init__(
        self,
        img_size: Size,
        in_chans: int,
        embed_dim: int,
        *,
        patch_size: int | Sequence[int],
        channel_dim: int | None,
        pad: bool,
    ) -> None:
        super().__init__()
        self.patch_size, self.pad = size("patch", patch_size), pad
        self.grid_size, _ = cover(img_size, self.patch_size, pad)
        if channel_dim is not None and channel_dim < 1:
            raise ValueError(f"channel_dim={channel_dim} must be at least 1, or null for model.embed_dim")
        hidden = in_chans * (channel_dim or embed_dim)
        self.proj = nn.Conv2d(in_chans, hidden, self.patch_size, self.patch_size, groups=in_chans)
        self.mix = nn.Linear(hidden, embed_dim)

    def forward(self, images: Float[Tensor, "b c H W"]) -> Float[Tensor, "b h w d"]:
        return self.mix(self.proj(padded(images, self.patch_size, self.pad)).permute(0, 2, 3, 1))


class LuminanceEmbed(nn.Module):
    """Reduce the image to grey, a weighted sum of red, green and blue; cut and project the grey image as `conv` does.

    The weights apply to normalised values. If all channels were divided by the same standard deviation, grey is the
    luminance of the image up to scale and offset. ValueError unless there are three channels, and if the patches do not
    cover the image, unless `pad`.
    """

    weights: Tensor

    def __init__(
        self,
        img_size: Size,
        in_chans: int,
        embed_dim: int,
        *,
        patch_size: int | Sequence[int],
        standard: str,
        pad: bool,
    ) -> None:
        super().__init__()
        self.patch_size, self.pad = size("patch", patch_size), pad
        self.grid_size, _ = cover(img_size, self.patch_size, pad)
        if in_chans != 3:
            raise ValueError(f"embed=luminance weighs red, green and blue, but the images have in_chans={in_chans}")
        one_of("standard", standard, tuple(STANDARDS))
        self.register_buffer("weights", torch.tensor(STANDARDS[standard]), persistent=False)
        self.proj = nn.Conv2d(1, embed_dim, self.patch_size, self.patch_size)

    def forward(self, images: Float[Tensor, "b c H W"]) -> Float[Tensor, "b h w d"]:
        # Not a matrix product: autocast and TF32 would round the weights, and colour would leak into the grey values.
        grey = (images * self.weights[:, None, None]).sum(1, keepdim=True)
        return self.proj(padded(grey, self.patch_size, self.pad)).permute(0, 2, 3, 1)


class OneChannelEmbed(nn.Module):
    """Select one channel; cut and project it as `conv` does.

    ValueError unless the images have this channel, and if the patches do not cover the image, unless `pad`.
    """

    def __init__(
        self,
        img_size: Size,
        in_chans: int,
        embed_dim: int,
        *,
        patch_size: int | Sequence[int],
        channel: int,
        pad: bool,
    ) -> None:
        super().__init__()
        self.patch_size, self.pad = size("patch", patch_size), pad
        self.grid_size, _ = cover(img_size, self.patch_size, pad)
        if not 0 <= channel < in_chans:
            raise ValueError(
                f"channel={channel} does not exist: images of in_chans={in_chans} have channels 0 to {in_chans - 1}"
            )
        self.channel = channel
        self.proj = nn.Conv2d(1, embed_dim, self.patch_size, self.patch_size)

    def forward(self, images: Float[Tensor, "b c H W"]) -> Float[Tensor, "b h w d"]:
        selected = images[:, self.channel : self.channel + 1]
        return self.proj(padded(selected, self.patch_size, self.pad)).permute(0, 2, 3, 1)
