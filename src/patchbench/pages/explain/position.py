"""The section on position: the places that schemes fill, and the effect of each scheme."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from patchbench.html import figure_html, zoomable
from patchbench.measure import places, readings
from patchbench.pages.explain import maps
from patchbench.pages.explain.explanation import Explanation
from patchbench.words import count


def position(explanation: Explanation) -> str:
    """Return the section: filled places, a drawing of the network with its places, and the effect of each scheme."""
    n = explanation.walk.layout.grid_size[0] * explanation.walk.layout.grid_size[1]
    if not explanation.schemes:
        text = (
            f"Attention compares the contents of tokens, never their positions: shuffle the {count(n, 'token')}, and "
            "the result stays the same. Here no place is filled, so the network sees a bag of patches. Compare with "
            "<code>pos=learned</code>."
        )
    else:
        filled = "; ".join(
            f"<strong>{escape(scheme)}</strong> fills <code>[{place}]</code>"
            for place, scheme in explanation.schemes.items()
        )
        text = (
            "Attention compares the contents of tokens, never their positions, so the network must get position from "
            f"elsewhere. There are four places where it may enter; here {filled}."
        )
    figures = (
        [explanation.left_out]
        if explanation.left_out
        else [FIGURES[p](explanation, s) for p, s in explanation.schemes.items()]
    )
    return f"<h2>4. Where position enters</h2>\n<p>{text}</p>\n{diagram(explanation.schemes)}\n" + "\n".join(figures)


def diagram(schemes: Mapping[str, str]) -> str:
    """Draw the network in one line, with its four places."""

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
    drawing = (
        '<svg viewBox="-2 0 1016 196" width="1016" role="img" aria-label="Where position enters the network"><defs>'
        '<marker id="tip" markerWidth="9" markerHeight="9" refX="7" refY="4" orient="auto">'
        '<path d="M0 0 L8 4 L0 8 z" class="dim"/></marker></defs>' + "".join(line) + "</svg>"
    )
    return f"<figure>{zoomable(drawing)}</figure>"


def added(explanation: Explanation, scheme: str) -> str:
    """Show the vectors that a scheme adds to the tokens."""
    walk, layout = explanation.walk, explanation.walk.layout
    h, w = layout.grid_size
    table = places.table(explanation.net.tokens, layout.grid_size, layout.embed_dim)
    if table is None:
        return mixed(explanation, scheme, "tokens")
    length, token_length = maps.mean_length(table.vectors), maps.mean_length(walk.tokens)
    likeness = readings.nearness(table.near, table.far)
    if not explanation.trained and not readings.shows_nearness(table.near, table.far):
        likeness += " Training has to learn that."
    caption = (
        f"Each tile compares one place with all {h}×{w} places, by the cosine of their vectors; it is 1 at the place "
        f"itself. {likeness} The mean length of the vectors is {length:.3g}, that of the tokens to which "
        f"they are added is {token_length:.3g}."
    )
    return (
        f"<h3>[tokens] {escape(scheme)}: a vector for each place</h3>\n<p>To each of the {count(h * w, 'token')} a "
        f"vector of {count(layout.embed_dim, 'value')} is added that depends only on the place of the token.</p>\n"
        + figure_html(maps.similarity(table), f"Similarity of every place with every other for {scheme}", caption)
    )


def turned(explanation: Explanation, scheme: str) -> str:
    """Show the angles by which a scheme turns queries and keys."""
    parts = places.modules(explanation.net, "rotation")
    turn = places.rotation_maps(parts[0], explanation.walk.layout.grid_size)
    heads = (
        f" Each of the {turn.num_heads} heads has its own angles; the figures show the first."
        if turn.num_heads > 1
        else ""
    )
    block = own_modules(parts)
    return (
        f"<h3>[rotation] {escape(scheme)}: queries and keys turn</h3>\n<p>Nothing is added. In every block, pairs of "
        f"the {count(turn.num_channels, 'channel')} of a head turn by an angle that depends on the place. The score "
        f"of a query and a key then depends on the difference of their angles.{heads}{block}</p>\n"
        + figure_html(
            maps.angles(turn),
            f"Angles of {count(len(turn.channels), 'channel')} over the grid",
            "The angle by which some channels turn at each place of the grid. Fast channels distinguish neighbours, "
            "slow channels distinguish far from near.",
        )
        + figure_html(
            maps.score(turn),
            "Score between a query and equal keys over the grid",
            "The effect on attention: the mean cosine of the differences of angles. It is the score of a query "
            "(circle) with an equal key, at each place of the grid, and 1 where query and key turn by the same angle.",
        )
    )


def shifted(explanation: Explanation, scheme: str) -> str:
    """Show the numbers that a scheme adds to the logits of attention."""
    parts = places.modules(explanation.net, "bias")
    shift = places.bias_maps(parts[0], explanation.walk.layout.grid_size)
    h, w = explanation.walk.layout.grid_size
    n, heads = h * w, explanation.walk.layout.num_heads
    smaller = (
        f" The grid of {h}×{w} would need {n:,}² values for each head, so the maps show a grid of {shift.grid_size[0]}×"
        f"{shift.grid_size[1]} places instead."
        if shift.grid_size != (h, w)
        else ""
    )
    flat = (
        " It is zero everywhere: training starts from zero and has to learn it."
        if not shift.logits.any()
        else " Below zero (violet) a key gets less attention, above zero (orange) more."
    )
    block = own_modules(parts)
    return (
        f"<h3>[bias] {escape(scheme)}: attention is shifted</h3>\n<p>Before the softmax, a number that depends on "
        f"the places of query and key is added to each of the {heads}×{n:,}×{n:,} logits.{smaller}{block}</p>\n"
        + figure_html(
            maps.biases(shift),
            "Bias of some queries over all keys",
            f"One row for each head shown (of {shift.num_heads}), one column for each query (circle): the number that "
            f"is added for a key at each place.{flat}",
        )
    )


def own_modules(parts: Sequence[Any]) -> str:
    """Say that each block has a module of its own; empty if there is one module."""
    return f" Each of {count(len(parts), 'block')} has its own; the figures show the first." if len(parts) > 1 else ""


def between(explanation: Explanation, scheme: str) -> str:
    """Show the mixing of neighbouring tokens by a scheme between blocks."""
    return mixed(explanation, scheme, "between")


def mixed(explanation: Explanation, scheme: str, place: str) -> str:
    """Show the response of a token to its neighbours, for a scheme that mixes tokens."""
    parts = places.modules(explanation.net, place)
    mixing = places.mixing(parts[0], explanation.walk.layout.grid_size, explanation.walk.layout.embed_dim)
    where = "between blocks" if place == "between" else "once, before block 0"
    return (
        f"<h3>[{place}] {escape(scheme)}: tokens mix with their neighbours</h3>\n<p>The tokens are put back on their "
        f"grid, and each receives a part of the tokens around it ({where}). This part depends on the tokens; at the "
        f"border neighbours are missing, which shows the position.{own_modules(parts)}</p>\n"
        + figure_html(
            maps.kernels(mixing),
            "Response of one place to its neighbours, for some channels",
            f"For {len(mixing.channels)} of {count(explanation.walk.layout.embed_dim, 'value')} of a token: how its "
            "output responds to the same value of the tokens around it (derivative at zero).",
        )
    )


FIGURES = {"tokens": added, "rotation": turned, "bias": shifted, "between": between}
