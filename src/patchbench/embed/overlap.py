"""Overlapping windows: a convolution whose kernel is wider than its stride."""

from jaxtyping import Float
from torch import Tensor, nn

from patchbench.layout import Size


class OverlapEmbed(nn.Module):
    """`Conv2d(in_chans, embed_dim, kernel_size=5, stride=2)` and its like: the stride alone sets the number of tokens.

    The grid is that of a convolution, floor((size + 2 padding - kernel_size) / stride) + 1 on each axis: as written, 32
    pixels give 14 places and 224 give 110. Pixels beyond the last whole window are not seen, as in any convolution.
    ValueError if the kernel does not fit into the padded image.
    """

    def __init__(
        self, img_size: Size, in_chans: int, embed_dim: int, *, kernel_size: int, stride: int, padding: int
    ) -> None:
        super().__init__()
        if min(kernel_size, stride) < 1 or padding < 0:
            raise ValueError(
                f"embed.kernel_size={kernel_size} embed.stride={stride} embed.padding={padding} is no convolution: "
                "kernel_size and stride start at 1, padding at 0"
            )
        if kernel_size > min(img_size) + 2 * padding:
            raise ValueError(
                f"embed.kernel_size={kernel_size} is larger than the image with its padding, "
                f"{img_size[0]}x{img_size[1]} + 2*{padding}: use a smaller kernel or a larger data.img_size"
            )
        rows, cols = ((n + 2 * padding - kernel_size) // stride + 1 for n in img_size)
        self.grid_size = (rows, cols)
        self.proj = nn.Conv2d(in_chans, embed_dim, kernel_size, stride, padding)

    def forward(self, images: Float[Tensor, "b c H W"]) -> Float[Tensor, "b h w d"]:
        return self.proj(images).permute(0, 2, 3, 1)
