"""Checks of patches: their number, their values, and the map from patches to tokens."""

from collections.abc import Callable, Sequence
from itertools import permutations
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn

from patchbench.checks import size
from patchbench.embed.conv import ConvEmbed
from patchbench.embed.linear import LinearEmbed

Build = Callable[..., nn.Module]


def tokens(
    img_size: int | Sequence[int] = 224, patch: int = 16, in_chans: int = 3, embed_dim: int = 768
) -> dict[str, Any]:
    """Return the size of the sequence of an image: rows, columns, tokens, width; values: of a flattened patch."""
    image = size("img_size", img_size)
    with torch.device("meta"):
        conv = ConvEmbed(image, in_chans, embed_dim, patch_size=patch, pad=False)
        linear = LinearEmbed(image, in_chans, embed_dim, patch_size=patch, pad=False)
        _, rows, columns, width = conv(torch.empty(1, in_chans, *image)).shape
    sequence = {"rows": rows, "columns": columns, "tokens": rows * columns, "width": width}
    return sequence | {"values": linear.proj.in_features, "pixels": image[0] * image[1]}


def division(img_size: int = 224, patch: int = 16, in_chans: int = 3) -> dict[str, Any]:
    """Compare (H/P)^2 with the number of outputs of a convolution of stride P for an image of H x H pixels.

    unseen_rows: rows of pixels on which no output depends, by the gradient. refused: `embed=conv` refuses the size.
    padded: number of patches with embed.pad=true.
    """
    conv = nn.Conv2d(in_chans, 8, patch, stride=patch)
    images = torch.randn(1, in_chans, img_size, img_size, requires_grad=True)
    out = conv(images)
    out.square().sum().backward()
    formula = (img_size / patch) ** 2
    number = out.shape[2] * out.shape[3]
    try:
        refused = ConvEmbed((img_size, img_size), in_chans, 8, patch_size=patch, pad=False) is None
    except ValueError:
        refused = True
    rows, columns = ConvEmbed((img_size, img_size), in_chans, 8, patch_size=patch, pad=True).grid_size
    return {
        "side": img_size,
        "patch": patch,
        "formula": formula,
        "patches": number,
        "difference": formula - number,
        "unseen_rows": int((pixels_seen(images) == 0).all(1).sum()),
        "refused": refused,
        "padded": rows * columns,
    }


def any_size(
    sizes: Sequence[int] = (32, 64, 224), patch: int = 16, in_chans: int = 3, embed_dim: int = 192
) -> dict[str, Any]:
    """Count the tokens that one convolution makes of images of several sizes."""
    conv = ConvEmbed((sizes[0], sizes[0]), in_chans, embed_dim, patch_size=patch, pad=False)
    with torch.no_grad():
        grids = [conv(torch.randn(1, in_chans, side, side)).shape for side in sizes]
    return {"sizes": list(sizes), "tokens": [rows * columns for _, rows, columns, _ in grids]}


def own_patch(build: Build, options: Sequence[str] = ()) -> dict[str, Any]:
    """Count the pixels on which each token of an embedding depends, with the gradient.

    outside: number of these pixels outside of the patch of the token, largest over tokens. inside: share of the pixels
    of the patch on which the token depends, smallest over tokens. The patch is the image divided by the grid.
    """
    net: Any = build(*options, "data.img_size=64").eval()
    rows, columns = net.embed.grid_size
    images = torch.randn(1, 3, 64, 64, requires_grad=True)
    grid = net.embed(images)
    outside, inside = 0, 1.0
    for row in range(rows):
        for column in range(columns):
            weights = torch.randn(grid.shape[-1])
            [slopes] = torch.autograd.grad((grid[0, row, column] * weights).sum(), images, retain_graph=True)
            seen = (slopes.abs().sum((0, 1)) > 0).unflatten(1, (columns, -1)).unflatten(0, (rows, -1))
            own = seen[row, :, column]
            inside = min(inside, float(own.float().mean()))
            outside = max(outside, int(seen.sum() - own.sum()))
    return {"tokens": rows * columns, "outside": outside, "inside": inside}


def one_map(
    img_size: int = 224, patch: int = 16, in_chans: int = 3, embed_dim: int = 768, dtype: str = "float32"
) -> dict[str, Any]:
    """Compare a convolution of stride P with a linear layer on flattened patches, with equal weights."""
    image = size("img_size", img_size)
    conv = ConvEmbed(image, in_chans, embed_dim, patch_size=patch, pad=False)
    linear = LinearEmbed(image, in_chans, embed_dim, patch_size=patch, pad=False)
    linear.load_state_dict({"proj.weight": conv.proj.weight.flatten(1), "proj.bias": conv.proj.bias})
    conv, linear = conv.to(getattr(torch, dtype)), linear.to(getattr(torch, dtype))
    images = torch.randn(2, in_chans, *image, dtype=getattr(torch, dtype))
    with torch.no_grad():
        ones, others = conv(images), linear(images)
    return {
        "dtype": dtype,
        "largest_difference": largest_difference(ones, others),
        "largest_value": float(ones.abs().max()),
        "parameters": sum(weight.numel() for weight in linear.parameters()),
    }


def flattened(patch: int = 16, in_chans: int = 3) -> dict[str, Any]:
    """Compare the vector that `embed=linear` makes of a patch with its flattened channels, concatenated.

    channels_read: number of channels of the image on which each value of a token depends, smallest over values.
    """
    values = in_chans * patch * patch
    linear = LinearEmbed((patch, patch), in_chans, values, patch_size=patch, pad=False)
    with torch.no_grad():
        linear.proj.weight.copy_(torch.eye(values))
        linear.proj.bias.zero_()
        image = torch.randn(1, in_chans, patch, patch)
        vector = linear(image)[0, 0, 0]
        by_hand = torch.cat([channel.flatten() for channel in image[0]])
    fresh = nn.Linear(values, 64)
    read = (fresh.weight.unflatten(1, (in_chans, -1)) != 0).any(2).sum(1)
    return {
        "values": len(vector),
        "channels": in_chans,
        "largest_difference": largest_difference(vector, by_hand),
        "channels_read": int(read.min()),
    }


def any_order(patch: int = 16, in_chans: int = 3, embed_dim: int = 768) -> dict[str, Any]:
    """Compare the tokens for all orders of row, column and channel in a flattened patch, with permuted weights."""
    weight = torch.randn(embed_dim, in_chans, patch, patch, dtype=torch.float64) / patch
    images = torch.randn(2, in_chans, patch, patch, dtype=torch.float64)
    orders = [" ".join(order) for order in permutations("cpq")]
    results = [
        rearrange(images, f"b c p q -> b ({order})") @ rearrange(weight, f"d c p q -> d ({order})").T
        for order in orders
    ]
    return {
        "orders": len(orders),
        "largest_difference": max(largest_difference(result, results[0]) for result in results),
    }


def width(build: Build, options: Sequence[str] = ()) -> dict[str, Any]:
    """Compare the dimensions of a token with the values of a flattened patch; `embed` must be one projection."""
    with torch.device("meta"):
        embed: Any = build(*options).embed
    dimensions, *values = embed.proj.weight.shape
    count = int(torch.tensor(values).prod())
    return {"dimensions": dimensions, "values": count, "ratio": dimensions / count, "as_many": dimensions >= count}


def one_width(build: Build, options: Sequence[str] = (), patches: Sequence[int] = (8, 16, 32)) -> dict[str, Any]:
    """Return the widths of tokens for several patch sizes, and the input width of the blocks."""
    widths, taken = set(), set()
    with torch.device("meta"):
        for patch in patches:
            net: Any = build(*options, f"patch={patch}")
            widths.add(net.embed.proj.weight.shape[0])
            taken |= {block.norm1.normalized_shape[0] for block in net.blocks}
    return {"patches": list(patches), "widths": sorted(widths), "taken": sorted(taken)}


def largest_difference(one: Tensor, other: Tensor) -> float:
    """Largest absolute difference between two tensors of equal shape."""
    return float((one.detach() - other.detach()).abs().max())


def pixels_seen(images: Tensor) -> Tensor:
    """Sum of the absolute gradient of images over images and channels, H W: zero for pixels without an effect."""
    assert images.grad is not None
    return images.grad.abs().sum((0, 1))
