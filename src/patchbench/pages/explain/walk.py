"""The steps of one image through the input stage, each with its shape and an explanation."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from patchbench.checks import Size
from patchbench.data.photographs import is_grey
from patchbench.layout import Layout
from patchbench.measure.response import Window, is_affine, kernels, unread_pixels, window_and_stride, windows
from patchbench.measure.start import Change, Starts, change
from patchbench.words import count

NUM_KERNELS = 16  # largest number of kernels that are shown
ENTERS = {
    "tokens": "added to the tokens once, before block 0",
    "rotation": "turns queries and keys in every block",
    "bias": "added to the attention logits in every block",
    "between": "changes the tokens between blocks",
}


@dataclass(frozen=True)
class Walk:
    """The measurements for one image, and for the patch of the image that the page follows through all steps."""

    pixels: UInt8[Tensor, "c H W"]
    image: Float[Tensor, "1 c H W"]  # the input of the network: mean 0, standard deviation 1 over the data set
    subject: str  # description of the image, such as `test image 0, class 7`
    layout: Layout
    num_classes: int
    depth: int
    tokens: Float[Tensor, "h w d"]  # output of the embedding
    place: Size  # row and column of the followed patch
    window: Window  # the pixels that the followed patch reads
    stride: Size
    affine: bool
    values: Float[Tensor, "c P Q"]  # the followed patch, of mean 0 and standard deviation 1 over the data set
    kernels: Float[Tensor, "k c P Q"]  # of the first NUM_KERNELS values of D, at the followed patch
    matrix: Float[Tensor, "d n"] | None  # for all of D, if the embedding is one layer; n as in values.flatten()
    inside: "list[Step]"  # layers of the embedding
    unread: tuple[list[int], list[int]]  # rows and columns of pixels that no token reads
    change: Change | None  # of the kernels since the start of training; None where the start is not known

    @property
    def patch_values(self) -> int:
        return len(self.pixels) * self.window.height * self.window.width

    @property
    def overlaps(self) -> bool:
        return self.window.height > self.stride[0] or self.window.width > self.stride[1]

    @property
    def grey(self) -> bool:
        """True if all channels of the image are equal."""
        return is_grey(self.pixels)

    @property
    def reads_all(self) -> bool:
        """True if a token reads more than half of the image, so that there are no patches."""
        return self.window.height * self.window.width > 0.5 * self.pixels[0].numel()


@dataclass(frozen=True)
class Step:
    """One row of the table: a tensor, its shape, and a note."""

    name: str
    shape: tuple[int, ...]
    note: str

    @property
    def shape_text(self) -> str:
        return " × ".join(f"{n:,}" for n in self.shape)

    @property
    def values(self) -> int:
        return math.prod(self.shape)


def walk(
    net: Any,
    pixels: UInt8[Tensor, "c H W"],
    subject: str,
    mean: Float[Tensor, "c 1 1"],
    std: Float[Tensor, "c 1 1"],
    starts: Starts | None,
) -> Walk:
    """Run the embedding of `net` on one image, and measure.

    subject: description of the image. mean, std: of pixels in 0 ... 1. starts: initial weights; None if unknown.
    """
    embed = net.embed.eval()
    image = ((pixels / 255 - mean) / std)[None]
    inside: list[Step] = []
    handles = [
        m.register_forward_hook(lambda *call: inside.append(layer(*call))) for m in embed.modules() if is_leaf(m)
    ]
    with torch.no_grad():
        tokens = embed(image)[0]
    for handle in handles:
        handle.remove()

    shape = (image.shape[1], image.shape[2], image.shape[3])
    middle, stride = window_and_stride(embed, shape, net.layout.grid_size)
    place = most_varied_place(pixels, net.layout.grid_size, middle, stride)
    [window] = windows(embed, shape, [place])
    affine = is_affine(embed, image)
    shown = kernels(embed, image, place, window, min(NUM_KERNELS, tokens.shape[-1]))
    rows, cols = slice(window.top, window.top + window.height), slice(window.left, window.left + window.width)
    return Walk(
        pixels,
        image,
        subject,
        net.layout,
        net.head.out_features,
        len(net.blocks),
        tokens,
        place,
        window,
        stride,
        affine,
        image[0, :, rows, cols],
        shown,
        single_matrix(embed, shown) if affine else None,
        inside,
        unread_pixels(embed, shape),
        change(embed, starts, image, place, window, shown) if starts else None,
    )


def is_leaf(module: nn.Module) -> bool:
    """True for a module without submodules, other than nn.Identity."""
    return not list(module.children()) and not isinstance(module, nn.Identity)


def layer(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> Step:
    """Describe the call of a layer of the embedding. The shape is that of the output without the batch."""
    knobs = {name: getattr(module, name, None) for name in ("kernel_size", "stride", "in_features")}
    note = ", ".join(f"{name.replace('_', ' ')} {knob_text(knob)}" for name, knob in knobs.items() if knob is not None)
    return Step(type(module).__name__, tuple(output.shape[1:]) if isinstance(output, Tensor) else (), note)


def knob_text(knob: Any) -> str:
    return "×".join(map(str, knob)) if isinstance(knob, tuple) else str(knob)


def most_varied_place(pixels: UInt8[Tensor, "c H W"], grid_size: Size, middle: Window, stride: Size) -> Size:
    """Return the place with the largest variation of pixels in its window, among windows inside the image."""
    best, place = -1.0, (grid_size[0] // 2, grid_size[1] // 2)
    tall, wide = pixels.shape[1:]
    for row in range(grid_size[0]):
        for col in range(grid_size[1]):
            top = middle.top + (row - grid_size[0] // 2) * stride[0]
            left = middle.left + (col - grid_size[1] // 2) * stride[1]
            if top < 0 or left < 0 or top + middle.height > tall or left + middle.width > wide:
                continue
            varied = float(pixels[:, top : top + middle.height, left : left + middle.width].float().std())
            if varied > best:
                best, place = varied, (row, col)
    return place


def single_matrix(embed: nn.Module, shown: Float[Tensor, "k c P Q"]) -> Float[Tensor, "d n"] | None:
    """Return the weight of an embedding that is a single layer and has the kernels as rows, else None."""
    parts = [m for m in embed.modules() if is_leaf(m)]
    weight = getattr(parts[0], "weight", None) if len(parts) == 1 else None
    if weight is None:
        return None
    rows, flat = weight.detach().flatten(1), shown.flatten(1)
    matches = rows[: len(flat)].shape == flat.shape and torch.allclose(rows[: len(flat)], flat, atol=1e-5)
    return rows if matches else None


def steps(walk: Walk, schemes: Mapping[str, str], shapes: Mapping[str, tuple[int, ...]]) -> list[Step]:
    """List the steps of the image, one per row of the table.

    schemes: scheme by place. shapes: shape of the output of the scheme by place.
    """
    channels, tall, wide = walk.pixels.shape
    (rows, cols), d, window = walk.layout.grid_size, walk.layout.embed_dim, walk.window
    length = rows * cols + walk.layout.num_prefix_tokens
    read = rows * cols * window.height * window.width / (tall * wide)
    size = f"{window.height}×{window.width} {'pixel' if window.height * window.width == 1 else 'pixels'}"
    size += f" every {walk.stride[0]}×{walk.stride[1]}"
    if walk.reads_all:
        cut = Step("regions", (rows, cols, channels, tall, wide), "each token reads most of the image")
    elif walk.overlaps:
        cut = Step(
            "windows", (rows, cols, window.height, window.width, channels), f"{size}: a pixel is read {read:.3g}×"
        )
    else:
        cut = Step("patches", (rows, cols, window.height, window.width, channels), f"{size}: edge to edge, no overlap")
    path = [
        Step("image", (tall, wide, channels), f"{walk.subject.split(', since')[0]}; rows × columns × channels"),
        *([] if walk.reads_all else [cut]),
        *([] if walk.reads_all else [Step("one patch, flat", (walk.patch_values,), flat_note(walk))]),
        *inside(walk),
        Step("embedding", (rows, cols, d), f"each patch has become D = {count(d, 'value')}"),
    ]
    for place in ("tokens", "rotation", "bias", "between"):
        if place in schemes and place == "tokens":
            path.append(Step(f"+ {schemes[place]}", shapes[place], f"[tokens]: {ENTERS[place]}"))
    prefix = walk.layout.num_prefix_tokens
    tokens = count(rows * cols, "patch token") + (f" + {prefix} prefix" if prefix else ", no prefix token")
    path.append(Step("sequence", (length, d), f"{rows}×{cols} places in a row: {tokens}"))
    path += [
        Step(f"+ {schemes[place]}", shapes[place], f"[{place}]: {ENTERS[place]}")
        for place in ("rotation", "bias", "between")
        if place in schemes
    ]
    path.append(Step("trunk", (length, d), f"{count(walk.depth, 'block')} of attention and MLP; not run here"))
    path.append(Step("classes", (walk.num_classes,), "logits of the head"))
    return path


def flat_note(walk: Walk) -> str:
    """Describe the order of the values in a flattened patch."""
    channels = len(walk.pixels)
    order = "all of one channel, then the next" if channels > 1 else "one line after the other"
    return f"{walk.window.height}·{walk.window.width}·{channels}: {order}"


def inside(walk: Walk) -> list[Step]:
    """List the layers of the embedding that change the shape, if there are several."""
    changed = [
        s for before, s in zip([None, *walk.inside], walk.inside, strict=False) if not before or before.shape != s.shape
    ]
    if len(changed) < 2:
        return []
    named = [Step(f"  {s.name}", s.shape, s.note or "inside the embedding") for s in changed]
    return named if len(named) <= 8 else [*named[:4], Step("  …", (), f"{len(named) - 8} more"), *named[-4:]]
