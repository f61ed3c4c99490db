"""The lesson as one HTML file that needs no other: text, and the figures inside it."""

from html import escape
from typing import Any

import matplotlib as mpl

from patchbench import html
from patchbench.html import rows, shown
from patchbench.measure.response import shares
from patchbench.pages.explain import figures
from patchbench.pages.explain.augmented import Showings, grid
from patchbench.pages.explain.costs import cost
from patchbench.pages.explain.lesson import Lesson
from patchbench.pages.explain.position import position
from patchbench.pages.explain.walk import Walk
from patchbench.pages.plots import LOOK

STYLE = """
.check { background: var(--marked); border-left: 4px solid var(--mark); padding: .6rem 1rem;
         border-radius: 0 6px 6px 0; }
svg text { font: 14px system-ui, -apple-system, "Segoe UI", Roboto, Arial, sans-serif; fill: var(--ink); }
svg .box { fill: var(--card); stroke: var(--soft); }
svg .empty { fill: none; stroke: var(--soft); stroke-dasharray: 4 4; }
svg .full { fill: var(--marked); stroke: var(--mark); stroke-width: 2.5; }
svg .arrow { stroke: var(--soft); stroke-width: 1.5; fill: none; }
svg .dim { fill: var(--soft); }
svg .strong { font-weight: 700; }
"""


def page(lesson: Lesson) -> str:
    """HTML without a reference to anything outside of it."""
    with mpl.rc_context(LOOK):
        parts = [head(lesson), cutting(lesson), flattening(lesson), kernels(lesson), position(lesson)]
        if lesson.showings:
            parts.append(training(lesson.showings))
        parts.append(cost(lesson))
    return html.document(f"{escape(lesson.title)}: patch embedding explained", "\n".join(parts), STYLE)


def head(lesson: Lesson) -> str:
    walk = lesson.walk
    channels, tall, wide = walk.pixels.shape
    (h, w), d = walk.layout.grid_size, walk.layout.embed_dim
    table = rows(
        ["step", "shape", "values", "what happens"],
        [[escape(s.name.strip()), s.spelled, f"{s.values:,}" if s.shape else "", escape(s.note)] for s in lesson.steps],
        [1, 2],
    )
    return f"""<h1>How an image becomes {h * w:,} tokens</h1>
<p class="soft"><code>{escape(lesson.options)}</code></p>
<p>A transformer reads a sequence of vectors. An image of {tall}×{wide}×{channels} is none yet. The input stage makes it
one: here {h}×{w} = {h * w:,} places with D = {d} values each. This page follows one image of the test split, and one
patch of it, all the way. {escape(lesson.weights)}</p>
{table}"""


def cutting(lesson: Lesson) -> str:
    walk = lesson.walk
    (h, w), window, stride = walk.layout.grid_size, walk.window, walk.stride
    channels, tall, wide = walk.pixels.shape
    size = f"{window.height}×{window.width}"
    if walk.reads_all:
        text = (
            f"Here each of the {h * w:,} tokens reads {size} pixels, most of the image: layers in front of the trunk "
            f"have mixed it already. Neighbouring tokens lie {stride[0]}×{stride[1]} pixels apart."
        )
    elif walk.overlaps:
        times = h * w * window.height * window.width / (tall * wide)
        text = (
            f"Each token reads {size} pixels, but the next one starts only {stride[1]} further: windows overlap, and "
            f"a pixel is read {times:.3g} times on average. The step, not the size of the window, sets the number of "
            f"tokens: {h}×{w} = {h * w:,}. Nothing is lost at the seams between patches; the price is a longer "
            "sequence or a larger matrix."
        )
    else:
        padded = (h * stride[0] - tall, w * stride[1] - wide)
        text = (
            f"{tall}×{wide} pixels in patches of {size} give {tall}/{window.height} × {wide}/{window.width} = "
            f"{h}×{w} = {h * w:,} patches. They lie edge to edge, so every pixel is in exactly one of them."
            if not any(n > 0 for n in padded)
            else f"Patches of {size} do not cover {tall}×{wide} pixels exactly: {padded[0]} rows and {padded[1]} "
            "columns of "
            f"zeros are added at the bottom and right, which gives {h}×{w} = {h * w:,} patches."
        )
    caption = (
        f"The followed patch is the one at row {walk.place[0]}, column {walk.place[1]} of the grid: the one that "
        f"varies most. Its {size} pixels have {channels} channels each: {window.height}·{window.width}·{channels} = "
        f"{walk.patch_values:,} values."
    )
    alt = f"The image, its {h} by {w} patches, and one of them enlarged"
    return f"<h2>1. The image is cut</h2>\n<p>{text}</p>\n{shown(figures.cut(walk), alt, caption)}"


def flattening(lesson: Lesson) -> str:
    walk = lesson.walk
    window, n, d = walk.window, walk.patch_values, walk.layout.embed_dim
    channels = len(walk.pixels)
    names = ", then ".join(f"all {name} values" for name in figures.channel_names(channels))
    where = (
        f"Where have the {channels} channels gone? They lie behind each other in this row: {names}."
        if channels > 1
        else "There is one channel, so the row is the patch, line after line."
    )
    chain = f"{window.height}×{window.width}×{channels} → {n:,} values → D = {d}"
    if walk.matrix is not None:
        difference = float(
            (walk.matrix @ walk.values.flatten() + bias_of(walk, lesson) - walk.tokens[walk.place]).abs().max()
        )
        text = (
            f"The patch is written as one row of {n:,} values. {where} One matrix W of {d}×{n:,} = {d * n:,} weights "
            f"and a bias of {d} turn the row into the token: {chain}. The same W serves every patch."
        )
        check = (
            f'<p class="check">Computed here: W x + b for this patch differs from what the layer put out by at most '
            f"{difference:.1e}.</p>"
        )
        caption = (
            "Read it as the product it is: the row x lies on top of the matrix, each row of W is multiplied with it "
            "value by value and summed, and the sum (with the bias) is the value at the same height in the token on "
            "the right. The network sees x after mean and standard deviation of the data set are taken out; the "
            "colours above are the pixels."
        )
    else:
        layers = len(walk.inside)
        what = (
            f"The embedding is not one layer but still one linear map: {chain}."
            if walk.affine
            else f"Between the {n:,} values that a token reads and its D = {d} there is more than one matrix here "
            f"({layers} layers), so there is no single W. What can be drawn is the derivative: how each value of "
            "this token would answer to a small change of each pixel, at this image."
        )
        text = f"The pixels that the token reads are {n:,} values. {where} {what}"
        check = ""
        caption = (
            f"On top the {n:,} values that this token reads; below, one line for each of the token's first "
            f"{len(walk.kernels)} values: positive where a brighter pixel would raise it, negative where it would "
            "lower it."
        )
    alt = f"A row of {n} values, a matrix, and the token of {d} values"
    return (
        f"<h2>2. A patch becomes a vector</h2>\n<p>{text}</p>\n{shown(figures.projection(walk), alt, caption)}\n{check}"
    )


def bias_of(walk: Walk, lesson: Lesson) -> Any:
    """What the one layer adds; nothing where it has no bias."""
    layer = next(m for m in lesson.net.embed.modules() if not list(m.children()) and hasattr(m, "weight"))
    return layer.bias.detach() if layer.bias is not None else 0.0


def kernels(lesson: Lesson) -> str:
    walk = lesson.walk
    channels, tall, wide = walk.pixels.shape
    (h, w), window, d = walk.layout.grid_size, walk.window, walk.layout.embed_dim
    size = f"{window.height}×{window.width}×{channels}"
    look = (
        "These are trained: look for edges, spots and colours."
        if lesson.trained
        else "Before training they are noise; give <code>ckpt=&lt;run&gt;/best.ckpt</code> to see what a run learnt."
    )
    if not walk.affine:
        text = (
            "No single kernel makes this token, but its response to the image can be measured. Below, what the "
            "first values of the token look for at this place of this image, and how strongly the token as a whole "
            f"answers to each pixel. {look}"
        )
        alt = "Responses of the first values of the token, and their feature maps"
        return (
            f"<h2>3. What the token answers to</h2>\n<p>{text}</p>\n"
            + shown(
                figures.kernel_tiles(walk),
                alt,
                "Above: derivative of one value of the token by the pixels (grey is none). Below: that value at "
                f"each of the {h}×{w} places, its feature map.",
            )
            + shown(
                figures.field(walk),
                "The receptive field of the token",
                f"The receptive field, measured: {window.height}×{window.width} pixels change this token noticeably.",
            )
        )
    text = (
        f"Each row of W, folded back into {size}, is a kernel: a small picture that is laid on the patch, multiplied "
        f"with it and summed. There are D = {d}, so the {channels}×{tall}×{wide} image becomes {d}×{h}×{w}. {look}"
    )
    share = shares(lesson.net.embed, walk.image, strongest(walk))
    way = (
        "its per-channel 2-D convolutions, computed one by one"
        if share.by_convolution
        else f"what the embedding gives to each of the {channels} channels alone"
    )
    moves = (
        f"A kernel of size {window.height}×{window.width} is in truth a block of {size}: it is as deep as the image. "
        f"It moves over the image in two directions only, and at each of the {h}×{w} places all "
        f"{window.height}·{window.width}·{channels} = {walk.patch_values:,} products are summed into <em>one</em> "
        f"number. So one kernel gives one flat map, however many channels went in, and {d} kernels give {d} maps: "
        f"{channels}×{tall}×{wide} → {d}×{h}×{w}."
    )
    equality = (
        f'<p class="check">Computed here, for kernel {share.index}: the sum of {way}, plus the bias, equals '
        "the layer's output "
        f"at all {h}×{w} places. Largest difference: {share.error:.1e}, the rounding of 32-bit floats.</p>"
    )
    return (
        f"<h2>3. The kernels</h2>\n<p>{text}</p>\n"
        + shown(
            figures.kernel_tiles(walk),
            f"The first kernels of {size} and their feature maps",
            f"Above: the first of {d} kernels, {size} each (grey is zero). Below: the feature map that each draws of "
            f"the image, {h}×{w}.",
        )
        + f"<h3>Why {channels}×{tall}×{wide} becomes {d}×{h}×{w}</h3>\n<p>{moves}</p>\n"
        + shown(
            figures.blocks(walk),
            "The image as slices, kernels as blocks, feature maps as slices",
            f"Depth {channels} goes in and is summed away; depth {d} comes out because there are {d} kernels.",
        )
        + shown(
            figures.channel_sum(walk, share),
            f"Kernel {share.index} taken apart by channel",
            f"Kernel {share.index} taken apart. Each slice of {window.height}×{window.width} moves over its own "
            f"channel and gives a map of {h}×{w}; the {channels} maps and the bias are added place by place.",
        )
        + equality
    )


def strongest(walk: Walk) -> int:
    """Of the kernels shown, the one whose map varies most over this image."""
    return int(walk.tokens[:, :, : min(8, len(walk.kernels))].flatten(0, 1).std(0).argmax())


def training(showings: Showings) -> str:
    rows, columns = showings.pixels.shape[:2]
    mixed = bool(((showings.labels > 0).sum(2) > 1).any())
    text = (
        "Training shows an image otherwise each time. What happens to it is drawn for this image and this showing "
        "alone, from the seed, the epoch and its place there, so the same command shows the same again. Validation "
        "and test see the images as they are."
    )
    if mixed:
        text += " Where two images were mixed, so is the label: the share of each class is what the network is to say."
    caption = f"{rows} training images as they are, and {columns - 1} times as training shows them, with their labels."
    alt = f"{rows} training images in {columns} columns: as they are, and augmented"
    return f"<h2>5. What training shows</h2>\n<p>{text}</p>\n{shown(grid(showings), alt, caption)}"
