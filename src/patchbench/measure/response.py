"""What a token reads of the image, found by differentiating the embedding: nothing is asked about how it is built."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from patchbench.checks import Size

FAINT = 1e-3  # a pixel that matters less than this, against the one that matters most, counts as not read


@dataclass(frozen=True)
class Window:
    """The rectangle of pixels that one token reads."""

    top: int
    left: int
    height: int
    width: int

    @property
    def center(self) -> tuple[float, float]:
        return self.top + self.height / 2, self.left + self.width / 2


def windows(embed: nn.Module, shape: tuple[int, int, int], places: list[Size]) -> list[Window]:
    """The window of each place on the grid, for images of `shape` (channels, height, width).

    The pixels on which the token's derivative is not zero, at a random image: flat parts of a real one could hide some.
    """
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(1, *shape, generator=generator).requires_grad_()
    with torch.enable_grad():
        tokens = embed(image)[0]
        found = []
        for row, col in places:
            heard = torch.zeros(shape[1:])
            for _ in range(2):
                listen = torch.randn(tokens.shape[-1], generator=generator)
                [slope] = torch.autograd.grad(tokens[row, col], image, listen, retain_graph=True)
                heard += slope[0].abs().sum(0)
            rows, cols = (heard > FAINT * heard.max()).nonzero(as_tuple=True)
            top, left = int(rows.min()), int(cols.min())
            found.append(Window(top, left, int(rows.max()) - top + 1, int(cols.max()) - left + 1))
    return found


def window_and_stride(embed: nn.Module, shape: tuple[int, int, int], grid_size: Size) -> tuple[Window, Size]:
    """The window of the middle place, and how many rows and columns of pixels lie between neighbouring windows."""
    row, col = grid_size[0] // 2, grid_size[1] // 2
    below, right = (min(row + 1, grid_size[0] - 1), col), (row, min(col + 1, grid_size[1] - 1))
    here, down, aside = windows(embed, shape, [(row, col), below, right])
    steps = round(down.center[0] - here.center[0]), round(aside.center[1] - here.center[1])
    # Where a window is cut by the border, or is the whole image, neighbours do not tell; the grid does.
    even = shape[1] / grid_size[0], shape[2] / grid_size[1]
    cut = here.height != down.height, here.width != aside.width
    stride = [round(e) if c or s <= 0 else s for s, e, c in zip(steps, even, cut, strict=True)]
    return here, (stride[0], stride[1])


def is_affine(embed: nn.Module, image: Float[Tensor, "1 c H W"]) -> bool:
    """Whether the embedding is one matrix and one bias: f(a + b) = f(a) + f(b) - f(0)."""
    other = torch.randn(image.shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        both, one, two, none = (embed(x) for x in (image + other, image, other, torch.zeros_like(image)))
    return torch.allclose(both, one + two - none, atol=1e-4 * float(both.abs().max()), rtol=1e-4)


def kernels(
    embed: nn.Module, images: Float[Tensor, "b c H W"], place: Size, window: Window, count: int
) -> Float[Tensor, "k c P Q"]:
    """How the first `count` values of the token at `place` answer to each pixel of its window.

    The derivative, on average over images. Of an affine embedding it is the same for every image: its kernels.
    """
    images = images.clone().requires_grad_()
    rows, cols = slice(window.top, window.top + window.height), slice(window.left, window.left + window.width)
    with torch.enable_grad():
        token = embed(images)[:, place[0], place[1]].mean(0)
        slopes = [torch.autograd.grad(v, images, retain_graph=True)[0][..., rows, cols].sum(0) for v in token[:count]]
    return torch.stack(slopes)


@dataclass(frozen=True)
class Shares:
    """One feature map, and what each colour channel gives to it: `output` = sum of `channels` + `bias`."""

    index: int
    channels: Float[Tensor, "c h w"]
    bias: float
    output: Float[Tensor, "h w"]
    by_convolution: bool  # the layer's own 2-D convolutions; else the embedding was shown one channel at a time

    @property
    def error(self) -> float:
        """Largest difference between the sum and the output."""
        return float((self.channels.double().sum(0) + self.bias - self.output.double()).abs().max())


def shares(embed: nn.Module, image: Float[Tensor, "1 c H W"], index: int) -> Shares:
    """Of feature map `index` of an affine embedding. Where it is one Conv2d, channel by channel with 2-D kernels."""
    parts = [m for m in embed.modules() if not list(m.children())]
    conv = parts[0]
    with torch.no_grad():
        output = embed(image)[0, :, :, index]
        if len(parts) == 1 and isinstance(conv, nn.Conv2d) and conv.groups == 1 and conv.padding_mode == "zeros":
            seen: list[Tensor] = []
            handle = conv.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
            embed(image)
            handle.remove()
            slices = conv.weight[index, :, None, None]
            maps = [
                F.conv2d(channel, kernel, None, conv.stride, conv.padding, conv.dilation)
                for image_seen in seen
                for channel, kernel in zip(image_seen.split(1, dim=1), slices, strict=True)
            ]  # none where the layer only holds the weight
            channels = torch.cat(maps)[:, 0] if maps else output[None]
            bias = 0.0 if conv.bias is None else float(conv.bias[index])
            if (
                maps
                and channels.shape[1:] == output.shape
                and torch.allclose(channels.sum(0) + bias, output, atol=1e-3)
            ):
                return Shares(index, channels, bias, output, by_convolution=True)
        nothing = embed(torch.zeros_like(image))[0, :, :, index]
        alone = [image * F.one_hot(torch.tensor(c), image.shape[1])[None, :, None, None] for c in range(image.shape[1])]
        channels = torch.stack([embed(x)[0, :, :, index] - nothing for x in alone])
    return Shares(index, channels, float(nothing.mean()), output, by_convolution=False)
