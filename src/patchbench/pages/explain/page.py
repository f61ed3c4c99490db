"""The page of an explanation: one HTML file with text and figures, which refers to no other file."""

from html import escape

import matplotlib as mpl

from patchbench import html
from patchbench.html import table_html
from patchbench.pages.explain.augmented import training
from patchbench.pages.explain.costs import cost
from patchbench.pages.explain.cutting import cutting
from patchbench.pages.explain.explanation import Explanation
from patchbench.pages.explain.flattening import flattening
from patchbench.pages.explain.kernels import kernels
from patchbench.pages.explain.position import position
from patchbench.pages.plots import LOOK
from patchbench.words import count

STYLE = """
.check { background: var(--marked); border-left: 4px solid var(--mark); padding: .6rem 1rem;
         border-radius: 0 6px 6px 0; }
.zoom svg { display: block; margin: 0 auto; max-width: 100%; height: auto; }
svg text { font: 14px system-ui, -apple-system, "Segoe UI", Roboto, Arial, sans-serif; fill: var(--ink); }
svg .box { fill: var(--card); stroke: var(--soft); }
svg .empty { fill: none; stroke: var(--soft); stroke-dasharray: 4 4; }
svg .full { fill: var(--marked); stroke: var(--mark); stroke-width: 2.5; }
svg .arrow { stroke: var(--soft); stroke-width: 1.5; fill: none; }
svg .dim { fill: var(--soft); }
svg .strong { font-weight: 700; }
"""


def page(explanation: Explanation) -> str:
    """Return the page as HTML that refers to no other file."""
    with mpl.rc_context(LOOK):
        sections = [
            head(explanation),
            cutting(explanation.walk),
            flattening(explanation),
            kernels(explanation),
            position(explanation),
        ]
        if explanation.augmented:
            sections.append(training(explanation.augmented))
        sections.append(cost(explanation))
    return html.article(f"{escape(explanation.title)}: patch embedding explained", "\n".join(sections), STYLE)


def head(explanation: Explanation) -> str:
    """Return the head of the page: title, options, and the table of all steps from the image to the classes."""
    walk = explanation.walk
    channels, tall, wide = walk.pixels.shape
    (h, w), d = walk.layout.grid_size, walk.layout.embed_dim
    table = table_html(
        ["step", "shape", "values", "what happens"],
        [
            [escape(s.name.strip()), s.shape_text, f"{s.values:,}" if s.shape else "", escape(s.note)]
            for s in explanation.steps
        ],
        [1, 2],
        "steps",
    )
    return f"""<h1>How an image becomes {count(h * w, "token")}</h1>
<p class="soft"><code>{escape(explanation.options)}</code></p>
<p>A transformer reads a sequence of vectors, and an image of {tall}×{wide}×{channels} is not one. The input stage turns
it into one: here {h}×{w} = {count(h * w, "place")} with D = {count(d, "value")} each. This page follows one image,
{escape(walk.subject)}, and one patch of that image, through all steps. {escape(explanation.weights)}</p>
{table}"""
