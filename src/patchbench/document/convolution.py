"""Checks of convolutions: the call of nn.Conv2d, kernels, maps, and the windows of a CNN."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from patchbench.document.patches import largest_difference, pixels_seen

Build = Callable[..., nn.Module]


def call(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Call `nn.Conv2d` with these arguments. error: message of torch if it does not accept them, else empty."""
    try:
        nn.Conv2d(**arguments)
    except TypeError as error:
        return {"accepted": False, "error": f"TypeError: {str(error).rpartition('.')[2]}"}
    return {"accepted": True, "error": ""}


def maps(
    img_size: int = 224, in_chans: int = 3, kernels: int = 768, kernel_size: int = 5, stride: int = 2, padding: int = 0
) -> dict[str, Any]:
    """Return the size of the output of a convolution: maps, rows, columns; tokens: rows x columns."""
    with torch.device("meta"):
        out = nn.Conv2d(in_chans, kernels, kernel_size, stride, padding)(torch.empty(1, in_chans, img_size, img_size))
    _, number, rows, columns = out.shape
    return {"side": img_size, "maps": number, "rows": rows, "columns": columns, "tokens": rows * columns}


def coverage(img_size: int = 224, kernel_size: int = 5, stride: int = 2, padding: int = 0) -> dict[str, Any]:
    """Count the rows and columns of pixels on which no output of a convolution depends, with the gradient."""
    images = torch.randn(1, 3, img_size, img_size, requires_grad=True)
    nn.Conv2d(3, 4, kernel_size, stride, padding)(images).square().sum().backward()
    unseen = pixels_seen(images) == 0
    return {"side": img_size, "unseen_rows": int(unseen.all(1).sum()), "unseen_columns": int(unseen.all(0).sum())}


def kernels(in_chans: int = 3, kernels: int = 768, kernel_size: int = 5) -> dict[str, Any]:
    """Return the shape of the kernels of a convolution, and the number of its weights."""
    with torch.device("meta"):
        weight = nn.Conv2d(in_chans, kernels, kernel_size, bias=False).weight
    number, depth, height, width = weight.shape
    shape = {"kernels": number, "depth": depth, "height": height, "width": width}
    return shape | {"weights": weight.numel(), "formula": kernels * kernel_size * kernel_size * in_chans}


def depths(build: Build, options: Sequence[str] = ()) -> dict[str, Any]:
    """Compare for each layer the depth of its kernels with the number of maps that it receives."""
    net: Any = build(*options).eval()
    part = getattr(net, "embed", net)
    layers = [module for module in part.modules() if isinstance(module, nn.Conv2d) and module.groups == 1]
    received: list[int] = []
    hooks = [layer.register_forward_pre_hook(lambda _, inputs: received.append(inputs[0].shape[1])) for layer in layers]
    with torch.no_grad():
        part(torch.randn(1, layers[0].in_channels, 64, 64))
    for hook in hooks:
        hook.remove()
    kernel_depths = [layer.weight.shape[1] for layer in layers]
    differing = sum(depth != maps for depth, maps in zip(kernel_depths, received, strict=True))
    return {"layers": len(layers), "depths": kernel_depths, "received": received, "wrong": differing}


def summed(in_chans: int = 3, kernels: int = 768, kernel_size: int = 5, stride: int = 2) -> dict[str, Any]:
    """Compare a convolution with a sum of 2-D convolutions over channels, computed by unfolding one channel at a time.

    maps: number of maps of the output. dimensions: number of dimensions in which the kernel moves.
    """
    conv = nn.Conv2d(in_chans, kernels, kernel_size, stride, bias=False).double()
    image = torch.randn(in_chans, 32, 32, dtype=torch.float64)
    with torch.no_grad():
        out = conv(image)
        by_hand = torch.zeros_like(out)
        for channel, planes in zip(image, conv.weight.unbind(1), strict=True):  # planes: kernels x size x size
            windows = channel.unfold(0, kernel_size, stride).unfold(1, kernel_size, stride)
            by_hand += torch.einsum("h w p q, k p q -> k h w", windows, planes)
    return {
        "channels": in_chans,
        "kernels": kernels,
        "maps": out.shape[0],
        "dimensions": out[0].ndim,
        "largest_difference": largest_difference(out, by_hand),
    }


def window(build: Build, options: Sequence[str] = ()) -> dict[str, Any]:
    """Measure the window of the first convolution of a network, and whether the window slides.

    pixels: number of pixels on which the output in the middle depends, by the gradient. side: width of the window.
    largest_difference: between the output for an image moved by one stride and the moved output, away from the border.
    """
    net = build(*options).double().eval()
    conv = next(module for module in net.modules() if isinstance(module, nn.Conv2d))
    step: Any = conv.stride
    image = torch.randn(1, conv.in_channels, 64, 64, dtype=torch.float64, requires_grad=True)
    out = conv(image)
    middle = out[0, :, out.shape[2] // 2, out.shape[3] // 2]
    (middle * torch.randn_like(middle)).sum().backward()
    seen = pixels_seen(image) > 0
    with torch.no_grad():
        moved = conv(image.roll(step, (2, 3)))
    inner = slice(8, -8)
    return {
        "pixels": int(seen.sum()),
        "side": int(seen.any(0).sum()),
        "stride": step[0],
        "largest_difference": largest_difference(moved[..., inner, inner], out.roll((1, 1), (2, 3))[..., inner, inner]),
    }


def field(build: Build, options: Sequence[str] = ()) -> dict[str, Any]:
    """Measure the width of the receptive field of the last map of `model=cnn`. layers: number of convolutions.

    One pixel is set to NaN: then each output that depends on it, through any number of layers, is NaN.
    """
    net: Any = build(*options).eval()
    image = torch.zeros(1, 3, 128, 128)
    image[:, :, 64, 64] = torch.nan
    with torch.no_grad():
        reached = net.trunk(image).isnan().any(1)[0]
    layers = sum(isinstance(module, nn.Conv2d) for module in net.trunk.modules())
    return {"layers": layers, "side": int(reached.any(0).sum())}
