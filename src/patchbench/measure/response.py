"""Pixels that a token depends on, measured by differentiating any embedding."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from patchbench.checks import Size

FAINT = 1e-3  # pixels with less than this share of the largest derivative count as not read


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
    """Return the window of each place on the grid, for images of `shape` (channels, height, width).

    A window holds all pixels with a derivative above the threshold FAINT. A random image is used, because some
    derivatives vanish in flat parts of real images.
    """
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(1, *shape, generator=generator).requires_grad_()
    with torch.enable_grad():
        tokens = embed(image)[0]
        rectangles = []
        for row, col in places:
            influence = torch.zeros(shape[1:])
            for _ in range(2):
                direction = torch.randn(tokens.shape[-1], generator=generator)
                [slope] = torch.autograd.grad(tokens[row, col], image, direction, retain_graph=True)
                influence += slope[0].abs().sum(0)
            rows, cols = (influence > FAINT * influence.max()).nonzero(as_tuple=True)
            top, left = int(rows.min()), int(cols.min())
            rectangles.append(Window(top, left, int(rows.max()) - top + 1, int(cols.max()) - left + 1))
    return rectangles


def window_and_stride(embed: nn.Module, shape: tuple[int, int, int], grid_size: Size) -> tuple[Window, Size]:
    """Return the window of the central place, and the pixels between neighbouring windows, down and across."""
    row, col = grid_size[0] // 2, grid_size[1] // 2
    below, right = (min(row + 1, grid_size[0] - 1), col), (row, min(col + 1, grid_size[1] - 1))
    middle, down, aside = windows(embed, shape, [(row, col), below, right])
    steps = round(down.center[0] - middle.center[0]), round(aside.center[1] - middle.center[1])
    # If the border cuts a window, or a window covers the image, the stride follows from the grid.
    even = shape[1] / grid_size[0], shape[2] / grid_size[1]
    cut = middle.height != down.height, middle.width != aside.width
    stride = [round(e) if c or s <= 0 else s for s, e, c in zip(steps, even, cut, strict=True)]
    return middle, (stride[0], stride[1])


def unread_pixels(embed: nn.Module, shape: tuple[int, int, int]) -> tuple[list[int], list[int]]:
    """List the rows and the columns of pixels on which no token depends, for images of `shape`."""
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(1, *shape, generator=generator).requires_grad_()
    with torch.enable_grad():
        tokens = embed(image)
        [slope] = torch.autograd.grad(tokens, image, torch.randn(tokens.shape, generator=generator))
    read = slope[0].abs().sum(0) > 0
    rows, cols = ((~read.any(axis)).nonzero().flatten().tolist() for axis in (1, 0))
    return rows, cols


def is_affine(embed: nn.Module, image: Float[Tensor, "1 c H W"]) -> bool:
    """Test whether the embedding is one matrix and one bias: f(a + b) = f(a) + f(b) - f(0)."""
    other = torch.randn(image.shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        both, one, two, none = (embed(x) for x in (image + other, image, other, torch.zeros_like(image)))
    return torch.allclose(both, one + two - none, atol=1e-4 * float(both.abs().max()), rtol=1e-4)


def kernels(
    embed: nn.Module, images: Float[Tensor, "b c H W"], place: Size, window: Window, count: int
) -> Float[Tensor, "k c P Q"]:
    """Return the derivative of the first `count` values of the token at `place` with respect to its window.

    The derivative is the mean over images. For an affine embedding it is the same for every image.
    """
    images = images.clone().requires_grad_()
    rows, cols = slice(window.top, window.top + window.height), slice(window.left, window.left + window.width)
    with torch.enable_grad():
        token = embed(images)[:, place[0], place[1]].mean(0)
        gradients = [
            torch.autograd.grad(v, images, retain_graph=True)[0][..., rows, cols].sum(0) for v in token[:count]
        ]
    return torch.stack(gradients)


@dataclass(frozen=True)
class Shares:
    """One feature map, split by colour channel: `output` = sum of `channels` + `bias`."""

    index: int
    channels: Float[Tensor, "c h w"]
    bias: float
    output: Float[Tensor, "h w"]
    by_convolution: bool  # true: 2-D convolutions of the layer; false: the embedding applied to one channel at a time

    @property
    def error(self) -> float:
        """The largest absolute difference between the sum and the output."""
        return float((self.channels.double().sum(0) + self.bias - self.output.double()).abs().max())


def shares(embed: nn.Module, image: Float[Tensor, "1 c H W"], index: int) -> Shares:
    """Split feature map `index` of an affine embedding by channel, by 2-D convolutions if it is one Conv2d."""
    parts = [m for m in embed.modules() if not list(m.children())]
    conv = parts[0]
    with torch.no_grad():
        output = embed(image)[0, :, :, index]
        if len(parts) == 1 and isinstance(conv, nn.Conv2d) and conv.groups == 1 and conv.padding_mode == "zeros":
            conv_inputs: list[Tensor] = []
            handle = conv.register_forward_pre_hook(lambda _, inputs: conv_inputs.append(inputs[0]))
            embed(image)
            handle.remove()
            slices = conv.weight[index, :, None, None]
            maps = [
                F.conv2d(channel, kernel, None, conv.stride, conv.padding, conv.dilation)
                for layer_input in conv_inputs
                for channel, kernel in zip(layer_input.split(1, dim=1), slices, strict=True)
            ]  # empty if the embedding uses the weight without calling the layer
            channels = torch.cat(maps)[:, 0] if maps else output[None]
            bias = 0.0 if conv.bias is None else float(conv.bias[index])
            if (
                maps
                and channels.shape[1:] == output.shape
                and torch.allclose(channels.sum(0) + bias, output, atol=1e-3)
            ):
                return Shares(index, channels, bias, output, by_convolution=True)
        constant = embed(torch.zeros_like(image))[0, :, :, index]
        single = [
            image * F.one_hot(torch.tensor(c), image.shape[1])[None, :, None, None] for c in range(image.shape[1])
        ]
        channels = torch.stack([embed(x)[0, :, :, index] - constant for x in single])
    return Shares(index, channels, float(constant.mean()), output, by_convolution=False)
