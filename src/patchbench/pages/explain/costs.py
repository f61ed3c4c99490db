"""The section on costs."""

from collections.abc import Sequence
from html import escape

from patchbench.html import rows
from patchbench.pages.explain.bill import Bill
from patchbench.pages.explain.lesson import Lesson


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
