"""Checks of position: the effect of the order of patches on a network, and the effects of positional schemes."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from patchbench.document.patches import largest_difference
from patchbench.layout import PLACES, Layout
from patchbench.measure import places
from patchbench.pos.sincos import SinCos1d

Build = Callable[..., nn.Module]


def shuffled(build: Build, options: Sequence[str] = ()) -> dict[str, Any]:
    """Shuffle the patches, and compare the output of the blocks and the logits, in float64.

    in_place: largest difference of the output of the blocks. moved_along: largest difference from the output that is
    shuffled in the same way. logits: largest difference of the logits.
    """
    net = sharpened(build, options)
    rows, columns = net.layout.grid_size
    with torch.no_grad():
        tokens = torch.randn(2, rows * columns, net.layout.embed_dim, dtype=torch.float64)
        order = torch.randperm(rows * columns)
        out, other = (through_blocks(net, x) for x in (tokens, tokens[:, order]))
        images = torch.randn(2, 3, 64, 64, dtype=torch.float64)
        logits = largest_difference(net(images), net(on_patches(images, (rows, columns), order)))
    return {
        "tokens": rows * columns,
        "in_place": largest_difference(other, out),
        "moved_along": largest_difference(other, out[:, order]),
        "logits": logits,
    }


def mirrored(build: Build, schemes: Sequence[str], options: Sequence[str] = ()) -> dict[str, Any]:
    """Mirror the columns of patches, and measure for each scheme of `pos` whether the logits change.

    smallest, largest: difference of the logits over the schemes, in float64. With a difference of zero, an image and
    its mirror image get the same class for any weights.
    """
    differences = []
    for scheme in schemes:
        net = sharpened(build, [*options, f"pos={scheme}"])
        rows, columns = net.layout.grid_size
        order = torch.arange(rows * columns).unflatten(0, (rows, columns)).flip(1).flatten()
        images = torch.randn(2, 3, 64, 64, dtype=torch.float64)
        with torch.no_grad():
            differences.append(largest_difference(net(images), net(on_patches(images, (rows, columns), order))))
    return {"schemes": list(schemes), "smallest": min(differences), "largest": max(differences)}


def added(build: Build, schemes: Sequence[str], options: Sequence[str] = ()) -> dict[str, Any]:
    """Divide schemes of `pos` into those that add a vector to each token that depends only on its place, and others."""
    adding: list[str] = []
    others: list[str] = []
    where: dict[str, list[str]] = {}
    for scheme in schemes:
        net: Any = build(*options, f"pos={scheme}", "data.img_size=64")
        where[scheme] = places.filled(net)
        table = (
            places.table(net.tokens, net.layout.grid_size, net.layout.embed_dim) if "tokens" in where[scheme] else None
        )
        (others if table is None else adding).append(scheme)
    used = {place for filled in where.values() for place in filled}
    return {"adding": adding, "others": others, "places": [place for place in PLACES if place in used]}


def vectors(build: Build, schemes: Sequence[str], options: Sequence[str] = ()) -> dict[str, Any]:
    """Return number and dimensions of the vectors that schemes add, and the dimensions of a token."""
    shapes = set()
    for scheme in schemes:
        with torch.device("meta"):
            net: Any = build(*options, f"pos={scheme}")
            shapes.add(tuple(net.tokens(torch.zeros(1, *net.layout.grid_size, net.layout.embed_dim)).shape[1:]))
    if len(shapes) > 1:
        raise ValueError(f"schemes={list(schemes)} add vectors of several shapes: {sorted(shapes)}")
    [(rows, columns, dimensions)] = shapes
    return {"vectors": rows * columns, "dimensions": dimensions, "token": net.layout.embed_dim}


def formula(places: int = 196, dimensions: int = 768) -> dict[str, Any]:
    """Compare `pos=sincos1d` with the encoding of Vaswani et al. (2017, sec. 3.5), computed in float64.

    PE(pos, 2i) = sin(pos / 10000^(2i / d)), PE(pos, 2i + 1) = cos(pos / 10000^(2i / d)); sincos1d has all sines first.
    """
    layout = Layout((1, places), dimensions, 1)
    ours = SinCos1d(layout, temperature=1e4, resize="extrapolate")(torch.zeros(1, 1, places, dimensions))[0, 0]
    two_i = torch.arange(0, dimensions, 2, dtype=torch.float64)
    angles = torch.arange(places, dtype=torch.float64)[:, None] / 10000 ** (two_i / dimensions)
    theirs = torch.stack([angles.sin(), angles.cos()], -1).flatten(1)  # sin, cos, sin, cos ...
    in_their_order = torch.stack(ours.double().chunk(2, -1), -1).flatten(1)
    return {
        "places": places,
        "dimensions": dimensions,
        "largest_difference": largest_difference(in_their_order, theirs),
    }


def resized(
    build: Build, schemes: Sequence[str], img_size: int = 64, other: int = 96, options: Sequence[str] = ()
) -> dict[str, Any]:
    """Divide schemes by whether a network accepts images of another size than the size for which it was built."""
    runs: list[str] = []
    refuses: list[str] = []
    for scheme in schemes:
        net = build(*options, f"pos={scheme}", f"data.img_size={img_size}").eval()
        try:
            with torch.no_grad():
                finite = net(torch.randn(1, 3, other, other)).isfinite().all()
        except (RuntimeError, ValueError):
            finite = False
        (runs if finite else refuses).append(scheme)
    return {"side": img_size, "other": other, "runs": runs, "refuses": refuses, "refused": len(refuses)}


def sharpened(build: Build, options: Sequence[str]) -> Any:
    """Build a network for images of 64 pixels in float64, with sharp attention: initial attention is almost uniform."""
    net = build(*options, "data.img_size=64").eval().double()
    with torch.no_grad():
        for name, weight in net.named_parameters():
            if "qkv" in name:
                weight.mul_(10)
    return net


def through_blocks(net: Any, tokens: Tensor) -> Tensor:
    """Apply all blocks to tokens b n d."""
    for block in net.blocks:
        tokens = block(tokens)
    return tokens


def on_patches(images: Tensor, grid_size: tuple[int, int], order: Tensor) -> Tensor:
    """Put the patches of images b c H W in another order."""
    rows, columns = grid_size
    cut = images.unflatten(3, (columns, -1)).unflatten(2, (rows, -1))  # b c rows p columns q
    laid = cut.transpose(3, 4).flatten(2, 3)[:, :, order].unflatten(2, (rows, columns))
    return laid.transpose(3, 4).flatten(4, 5).flatten(2, 3)
