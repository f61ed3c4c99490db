"""The section on costs, and the rows of its table, which the terminal shows too."""

from collections.abc import Sequence
from html import escape

from patchbench.html import table_html
from patchbench.pages.explain.breakdown import CostBreakdown
from patchbench.pages.explain.explanation import Explanation
from patchbench.words import count


def cost_rows(breakdowns: Sequence[CostBreakdown]) -> list[tuple[str, list[str]]]:
    """Return the rows of the table of costs: a name, and a cell for each network."""
    per_step = [
        ("GMACs once a step: embedding", [giga(b.embed_macs_per_step) for b in breakdowns]),
        ("GMACs once a step: position", [giga(b.position_macs_per_step) for b in breakdowns]),
    ]
    return [
        ("grid", ["×".join(map(str, b.cost.grid_size or ())) for b in breakdowns]),
        ("tokens", [f"{b.cost.num_tokens:,}" for b in breakdowns]),
        ("parameters: embedding", [f"{b.embed_params:,}" for b in breakdowns]),
        ("parameters: position", [f"{b.position_params:,}" for b in breakdowns]),
        ("parameters: trunk", [f"{b.trunk_params:,}" for b in breakdowns]),
        ("parameters: all", [f"{b.cost.params:,}" for b in breakdowns]),
        ("GMACs: embedding", [giga(b.embed_macs) for b in breakdowns]),
        ("GMACs: position", [giga(b.position_macs) for b in breakdowns]),
        ("GMACs: trunk", [giga(b.trunk_macs) for b in breakdowns]),
        ("GMACs: all", [giga(b.cost.macs) for b in breakdowns]),
        *(row for row in per_step if set(row[1]) != {"0"}),
        ("memory in training, MiB", [f"{b.training_bytes / 2**20:,.1f}" for b in breakdowns]),
    ]


def giga(macs: int) -> str:
    """Spell a number in 10^9."""
    return f"{macs / 1e9:.4g}" if macs else "0"


def cost(explanation: Explanation) -> str:
    """Return the section: the cost of embedding and trunk, compared with the standard embedding."""
    this, *others = explanation.breakdowns
    n = this.cost.num_tokens
    assert n is not None  # only a ViT is explained
    share = this.embed_macs / this.cost.macs
    text = (
        f"The embedding does {share:.2%} of the multiplications and the trunk "
        f"{this.trunk_macs / this.cost.macs:.2%}. But the embedding decides how many tokens the trunk has to process: "
        f"attention compares each of {count(n, 'token')} with each, which makes {count(n * n, 'pair')} in every head "
        "of every block."
    )
    if others:
        times = this.cost.macs / others[0].cost.macs
        text += (
            f" Compared with patches of 16×16 by convolution, all else being equal, the whole network costs "
            f"{times:.3g} times as much."
        )
    body = [[escape(name), *cells] for name, cells in cost_rows(explanation.breakdowns)]
    header = ["for one image, forward", *(escape(b.name) for b in explanation.breakdowns)]
    number = 6 if explanation.augmented else 5
    return (
        f"<h2>{number}. What it costs</h2>\n<p>{text}</p>\n{table_html(header, body, range(1, len(header)))}\n"
        "<h3>More to look at</h3>\n<pre>"
        "python scripts/explain.py embed=conv patch=8        # four times the tokens of patch=16\n"
        "python scripts/explain.py embed=overlap             # kernel 5, stride 2: windows that overlap\n"
        "python scripts/explain.py 'pos=[sincos,rope]'       # two schemes, two places\n"
        "python scripts/explain.py image=0                   # a test image; or image=china, or a file\n"
        "python scripts/explain.py augment=deit              # what the network sees in training\n"
        "python scripts/explain.py ckpt=runs/&lt;run&gt;/best.ckpt  # what a run has learned</pre>"
    )
