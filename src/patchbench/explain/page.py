"""The lesson as one HTML file that needs no other: text, and the figures inside it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import matplotlib as mpl

from patchbench import html
from patchbench.explain import figures, maps, places
from patchbench.explain.bill import Bill
from patchbench.explain.response import shares
from patchbench.explain.showings import Showings, grid
from patchbench.explain.walk import Step, Walk
from patchbench.html import rows, shown

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


@dataclass(frozen=True)
class Lesson:
    """All that a page is made of. schemes: who fills which place, in the order of the places."""

    title: str
    options: str  # as on the command line
    weights: str  # where they come from, as a sentence
    trained: bool
    walk: Walk
    steps: Sequence[Step]
    bills: Sequence[Bill]
    schemes: Mapping[str, str]
    net: Any
    showings: Showings | None  # what training makes of some images, if it changes them
    left_out: str  # why there are no pictures of position, if there are none


def page(lesson: Lesson) -> str:
    """HTML without a reference to anything outside of it."""
    with mpl.rc_context(figures.LOOK):
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


def position(lesson: Lesson) -> str:
    n = lesson.walk.layout.grid_size[0] * lesson.walk.layout.grid_size[1]
    if not lesson.schemes:
        text = (
            f"Attention asks what a token holds, never where it stands: shuffle the {n:,} tokens and the answer "
            "stays the same. Here no place is filled, so the network sees a bag of patches. Compare with "
            "<code>pos=learned</code>."
        )
    else:
        told = "; ".join(
            f"<strong>{escape(scheme)}</strong> fills <code>[{place}]</code>"
            for place, scheme in lesson.schemes.items()
        )
        text = (
            "Attention asks what a token holds, never where it stands, so position must be told. There are four "
            f"places where it may enter, and {told}."
        )
    pictures = [lesson.left_out] if lesson.left_out else [PICTURES[p](lesson, s) for p, s in lesson.schemes.items()]
    return f"<h2>4. Where position enters</h2>\n<p>{text}</p>\n{diagram(lesson.schemes)}\n" + "\n".join(pictures)


def diagram(schemes: Mapping[str, str]) -> str:
    """The network in one line, with its four places."""

    def box(x: int, y: int, width: int, name: str, kind: str = "box", below: str = "") -> str:
        words = f'<text x="{x + width / 2}" y="{y + (20 if below else 27)}" text-anchor="middle">{escape(name)}</text>'
        if below:
            words += (
                f'<text x="{x + width / 2}" y="{y + 37}" text-anchor="middle" class="strong">{escape(below)}</text>'
            )
        return f'<rect class="{kind}" x="{x}" y="{y}" width="{width}" height="44" rx="6"/>{words}'

    def place(x: int, y: int, width: int, name: str) -> str:
        return box(x, y, width, f"[{name}]", "full" if name in schemes else "empty", schemes.get(name, "nothing"))

    def arrow(x: int, y: int, to_x: int, to_y: int) -> str:
        return f'<path class="arrow" marker-end="url(#tip)" d="M{x} {y} L{to_x} {to_y}"/>'

    line = [
        box(0, 20, 70, "image"),
        box(100, 20, 70, "embed"),
        place(200, 20, 150, "tokens"),
        box(380, 20, 80, "block 0"),
        place(490, 20, 150, "between"),
        box(670, 20, 80, "block 1"),
        '<text x="797" y="48" text-anchor="middle">…</text>',
        box(840, 20, 70, "pool"),
        box(940, 20, 70, "head"),
        *(arrow(x, 42, x + 28, 42) for x in (70, 170, 350, 460, 640, 750, 810, 910)),
        place(340, 120, 160, "rotation"),
        place(630, 120, 160, "bias"),
        '<text class="dim" x="420" y="184" text-anchor="middle">turns q and k</text>',
        '<text class="dim" x="710" y="184" text-anchor="middle">shifts attention logits</text>',
        arrow(412, 120, 412, 66),
        arrow(500, 132, 690, 66),
        arrow(718, 120, 718, 66),
        arrow(630, 132, 440, 66),
    ]
    return (
        '<div class="scroll"><svg viewBox="-2 0 1016 196" width="1016" height="196" role="img" aria-label="'
        "Where position enters the network"
        '"><defs><marker id="tip" markerWidth="9" markerHeight="9" refX="7" refY="4" orient="auto">'
        '<path d="M0 0 L8 4 L0 8 z" class="dim"/></marker></defs>' + "".join(line) + "</svg></div>"
    )


def added(lesson: Lesson, scheme: str) -> str:
    walk, layout = lesson.walk, lesson.walk.layout
    h, w = layout.grid_size
    table = places.table(lesson.net.tokens, layout.grid_size, layout.embed_dim)
    if table is None:
        return mixed(lesson, scheme, "tokens")
    length, beside = maps.norms(table.vectors, walk.tokens)
    seen = (
        f"neighbours are alike ({table.near:.2f} on average, against {table.far:.2f} for two places at random): near "
        "and far can be read off the vectors"
        if table.near - table.far > 0.05
        else f"neighbours are no more alike than others ({table.near:.2f} against {table.far:.2f}): "
        "nothing tells near from far "
        "yet" + ("" if lesson.trained else ", training must find it")
    )
    caption = (
        f"Each tile is one place compared with all {h}×{w}, by the cosine of their vectors; it is 1 at the place "
        f"itself. Here {seen}. The vectors have a mean length of {length:.3g}; the tokens to which they are added, "
        f"{beside:.3g}."
    )
    return (
        f"<h3>[tokens] {escape(scheme)}: a vector for each place</h3>\n<p>To each of the {h * w:,} tokens a vector of "
        f"{layout.embed_dim} values is added that depends on its place alone.</p>\n"
        + shown(maps.similarity(table), f"Similarity of every place with every other for {scheme}", caption)
    )


def turned(lesson: Lesson, scheme: str) -> str:
    parts = places.modules(lesson.net, "rotation")
    turn = places.turn(parts[0], lesson.walk.layout.grid_size)
    heads = f" Each of {turn.num_heads} heads has angles of its own; the first is drawn." if turn.num_heads > 1 else ""
    block = own(parts)
    return (
        f"<h3>[rotation] {escape(scheme)}: queries and keys turn</h3>\n<p>Nothing is added. In every block, pairs of "
        f"the {turn.num_channels} channels of a head turn by an angle that depends on the place. The score of a "
        f"query and a key then depends on the difference of their angles.{heads}{block}</p>\n"
        + shown(
            maps.angles(turn),
            f"Angles of {len(turn.channels)} channels over the grid",
            "The angle by which some channels turn at each place of the grid. Fast channels tell neighbours apart, "
            "slow ones tell far from near.",
        )
        + shown(
            maps.score(turn),
            "Score between a query and equal keys over the grid",
            "What this does to attention: the mean cosine of the differences of angles, which is the score of a "
            "query (circle) with a key equal to it, at each place of the grid. It is 1 where nothing is turned "
            "against the other.",
        )
    )


def shifted(lesson: Lesson, scheme: str) -> str:
    parts = places.modules(lesson.net, "bias")
    shift = places.shift(parts[0], lesson.walk.layout.grid_size)
    h, w = lesson.walk.layout.grid_size
    n, heads = h * w, lesson.walk.layout.num_heads
    smaller = (
        f" The grid of {h}×{w} would need {n:,}² values for each head, so the maps are drawn for {shift.grid_size[0]}×"
        f"{shift.grid_size[1]} places."
        if shift.grid_size != (h, w)
        else ""
    )
    flat = (
        " It is zero everywhere: it starts so, and training must find it."
        if not shift.logits.any()
        else " Below zero (violet) a key is heard less, above (orange) more."
    )
    block = own(parts)
    return (
        f"<h3>[bias] {escape(scheme)}: attention is shifted</h3>\n<p>Before the softmax, a number that depends on "
        f"the places of query and key is added to each of the {heads}×{n:,}×{n:,} logits.{smaller}{block}</p>\n"
        + shown(
            maps.biases(shift),
            "Bias of some queries over all keys",
            f"One row for each head drawn (of {shift.num_heads}), one column for each query (circle): what is added "
            f"for a key at each place.{flat}",
        )
    )


def own(parts: Sequence[Any]) -> str:
    return f" There is one of its own for each of {len(parts)} blocks; the first is drawn." if len(parts) > 1 else ""


def between(lesson: Lesson, scheme: str) -> str:
    return mixed(lesson, scheme, "between")


def mixed(lesson: Lesson, scheme: str, place: str) -> str:
    parts = places.modules(lesson.net, place)
    mixing = places.mixing(parts[0], lesson.walk.layout.grid_size, lesson.walk.layout.embed_dim)
    where = "between blocks" if place == "between" else "once, before block 0"
    return (
        f"<h3>[{place}] {escape(scheme)}: tokens hear their neighbours</h3>\n<p>The tokens are laid out as the grid "
        f"again, and each takes in something of those around it ({where}). What is taken in depends on the tokens; "
        f"the border, where neighbours are missing, tells position.{own(parts)}</p>\n"
        + shown(
            maps.kernels(mixing),
            "Answer of one place to its neighbours, for some channels",
            f"For {len(mixing.channels)} of {lesson.walk.layout.embed_dim} values of a token: how its output answers "
            "to the same value of the tokens around it (derivative at zero).",
        )
    )


PICTURES = {"tokens": added, "rotation": turned, "bias": shifted, "between": between}


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


def costs(bills: Sequence[Bill]) -> list[tuple[str, list[str]]]:
    """Rows of the table of costs; one cell for each bill."""
    table: list[tuple[str, list[str]]] = [
        ("grid", ["×".join(map(str, b.cost.grid_size or ())) for b in bills]),
        ("tokens", [f"{b.cost.num_tokens:,}" for b in bills]),
        ("parameters: embedding", [f"{b.embed_params:,}" for b in bills]),
        ("parameters: position", [f"{b.position_params:,}" for b in bills]),
        ("parameters: trunk", [f"{b.trunk_params:,}" for b in bills]),
        ("parameters: all", [f"{b.cost.params:,}" for b in bills]),
        ("GMACs: embedding", [giga(b.embed_macs) for b in bills]),
        ("GMACs: position", [giga(b.position_macs) for b in bills]),
        ("GMACs: trunk", [giga(b.trunk_macs) for b in bills]),
        ("GMACs: all", [giga(b.cost.macs) for b in bills]),
    ]
    table.append(("activations in training, MiB", [f"{b.activations / 2**20:,.1f}" for b in bills]))
    return table


def giga(macs: int) -> str:
    return f"{macs / 1e9:.4g}" if macs else "0"


def cost(lesson: Lesson) -> str:
    this, *others = lesson.bills
    n = this.cost.num_tokens
    assert n is not None  # only a ViT is explained
    share = this.embed_macs / this.cost.macs
    text = (
        f"The embedding does {share:.2%} of the multiplications and the trunk "
        f"{this.trunk_macs / this.cost.macs:.2%}, but it is the embedding that decides how many tokens the trunk "
        f"must carry: attention compares each of {n:,} tokens with each, {n * n:,} pairs in every head of every "
        "block."
    )
    if others:
        times = this.cost.macs / others[0].cost.macs
        text += (
            f" Against patches of 16×16 by convolution, with all else equal, the whole costs {times:.3g} times as much."
        )
    body = [[escape(name), *cells] for name, cells in costs(lesson.bills)]
    header = ["of one image, forward", *(escape(b.name) for b in lesson.bills)]
    number = 6 if lesson.showings else 5
    return (
        f"<h2>{number}. What it costs</h2>\n<p>{text}</p>\n{rows(header, body, range(1, len(header)))}\n"
        "<h3>Look further</h3>\n<pre>"
        "python scripts/explain.py embed=conv patch=8        # four times the tokens of patch=16\n"
        "python scripts/explain.py embed=overlap             # kernel 5, stride 2: windows that overlap\n"
        "python scripts/explain.py pos=[sincos,rope]         # two schemes, two places\n"
        "python scripts/explain.py augment=deit              # what the network sees in training\n"
        "python scripts/explain.py ckpt=runs/&lt;run&gt;/best.ckpt  # what a run learnt</pre>"
    )
