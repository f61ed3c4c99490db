"""One weight for every patch size, resampled by pseudo-inverse (FlexiViT, Beyer et al., 2023)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from patchbench.checks import Size, cover, one_of, size
from patchbench.layout import padded


class FlexiEmbed(nn.Module):
    """Learn kernels of `base_patch` pixels, and resample them to the patch size in every forward pass.

    The resampled kernel maps a resized patch to nearly the same token as the learned kernel maps the original patch.
    interpolation, antialias: settings of this resizing; Beyer et al. use bilinear and false, timm bicubic and true.
    Kernels start with variance 1 / fan-in at `base_patch`, as published, so the tokens of other patch sizes start
    larger or smaller.
    train_patches: each training batch draws one of these sizes. Evaluation uses `patch_size`; so does training if the
    list is empty. ValueError if patches of one of these sizes do not cover the image, unless `pad`.
    """

    def __init__(
        self,
        img_size: Size,
        in_chans: int,
        embed_dim: int,
        *,
        patch_size: int | Sequence[int],
        base_patch: int | Sequence[int] | None,
        train_patches: Sequence[int | Sequence[int]],
        interpolation: str,
        antialias: bool,
        pad: bool,
    ) -> None:
        super().__init__()
        self.patch_size, self.pad = size("patch", patch_size), pad
        self.grid_size, _ = cover(img_size, self.patch_size, pad)
        base = size("base_patch", base_patch)
        self.train_patches = [size("train_patches", patch) for patch in train_patches]
        for patch in self.train_patches:
            try:
                cover(img_size, patch, pad)
            except ValueError as error:
                raise ValueError(f"train_patches={list(train_patches)}: {error}") from None
        one_of("interpolation", interpolation, ("bilinear", "bicubic"))
        self.proj = nn.Conv2d(in_chans, embed_dim, base)
        for patch in {self.patch_size, *self.train_patches}:
            for axis, old, new in zip("hw", base, patch, strict=True):
                matrix = resampling(old, new, interpolation, antialias).to(self.proj.weight)
                self.register_buffer(f"{axis}{new}", matrix, persistent=False)

    @property
    def varies(self) -> bool:
        """True if the computation differs from one training step to the next."""
        return bool(self.train_patches)

    def forward(self, images: Float[Tensor, "b c H W"]) -> Float[Tensor, "b h w d"]:
        patch = self.patch_size
        if self.training and self.train_patches:
            patch = self.train_patches[int(torch.randint(len(self.train_patches), (), device="cpu"))]
        tokens = F.conv2d(padded(images, patch, self.pad), self.kernel(patch), self.proj.bias, stride=patch)
        return tokens.permute(0, 2, 3, 1)

    def kernel(self, patch: Size) -> Float[Tensor, "d c p q"]:
        """Resample the learned kernels to `patch`, which is `patch_size` or one of `train_patches`."""
        rows, cols = getattr(self, f"h{patch[0]}"), getattr(self, f"w{patch[1]}")
        return torch.einsum("d c y x, p y, q x -> d c p q", self.proj.weight, rows, cols)


def resampling(old: int, new: int, interpolation: str, antialias: bool) -> Float[Tensor, "new old"]:
    """Compute the pseudo-inverse of B^T, where B resizes a line of `old` pixels to `new` pixels.

    Resizing acts on rows and columns separately, and the pseudo-inverse of a Kronecker product is the Kronecker product
    of the pseudo-inverses: two small matrices replace one of P*P by P*P.
    """
    # On the CPU even if the network is on the meta device, where pinv does not run.
    line = torch.eye(old, dtype=torch.float64, device="cpu")[None, None]
    resize = F.interpolate(line, (new, old), mode=interpolation, antialias=antialias)[0, 0]
    return torch.linalg.pinv(resize.T)
