"""The section on position."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from patchbench.html import shown
from patchbench.measure import places
from patchbench.pages.explain import maps
from patchbench.pages.explain.lesson import Lesson


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
