"""The page of an analysis: the measurements of a trained network as one HTML file that refers to no other file."""

from collections.abc import Mapping, Sequence
from html import escape

from patchbench.html import article, figure_html, table_html
from patchbench.measure.readings import THRESHOLDS
from patchbench.measure.summary import Measures
from patchbench.words import count

SECTIONS = {
    "What the embedding responds to": ("kernels", "channels"),
    "What distinguishes places": ("positions_tokens", "positions_rotation", "rotation", "bias"),
    "What tokens attend to": ("distance", "rollout"),
    "How far the network sees": ("fields",),
    "What a token contains of its position": ("readout",),
    "What the network is robust to": ("robustness",),
}
SPECTRA = (
    "Left, the cosine similarity of one place with all others, for places spread over the grid (Dosovitskiy et al., "
    "2021, fig. 7). Middle, how many directions {vectors} use. Right, their energy by spatial frequency over the grid: "
    "low frequencies are in the middle; energy on the axes distinguishes rows or columns alone."
)
CAPTIONS = {
    "kernels": "Left, the principal components of all kernels as colours, grey being zero, each with its share of the "
    "variance (Dosovitskiy et al., 2021, fig. 7); for an embedding that is not linear, those of its derivative. "
    "Middle, how many components are needed. Right, the share of the kernels' energy at each frequency of the discrete "
    "cosine transform (Ahmed et al., 1974); low frequencies are at the top left.",
    "channels": "The kernels of largest norm, and below each its slices for red, green and blue: equal slices respond "
    "to brightness, slices of opposite sign to colour.",
    "positions_tokens": SPECTRA.format(vectors="the vectors that are added"),
    "positions_rotation": SPECTRA.format(vectors="sines and cosines of all channels")
    + " Here the similarity is the mean cosine of the angle between query and key; of several blocks, the first.",
    "rotation": "Each dot is a pair of channels: the angle by which queries and keys turn from one patch to the next. "
    "The axes are logarithmic beyond 0.01 and end at half a turn. Dots on the lines distinguish rows or columns alone; "
    "other dots stand for oblique directions.",
    "bias": "The bias of the logits between two patches, on average over all pairs at a distance; the axis is "
    "logarithmic beyond 0.1. Between patches only differences within a head matter.",
    "distance": "Distance between a patch and the patches that it attends to, on average over patches and images "
    "(Dosovitskiy et al., 2021, D.7). Prefix tokens are left out.",
    "rollout": "The share of each patch in the input of the head: attention multiplied through all layers, where the "
    "residual stream counts for half of each layer (Abnar and Zuidema, 2020).",
    "fields": "The squared gradient of one place in the middle with respect to each pixel, mean over test images "
    "(Luo et al., 2016), and the side of a square with the area that contains 95 % of it. For comparison, a ResNet-18 "
    "with random weights, up to the stage whose grid is nearest.",
    "readout": "Row and column predicted from tokens by ridge regression, fitted on half of the images and tested on "
    "the others (after Islam et al., 2020). What the embedding alone contains of position is content that often "
    "depends on the place, or a leak from padding; what later layers contain comes from the scheme, or from a leak.",
    "robustness": "Test images whose patches or pixels lie in random order, scaled to other sizes, or moved (Zhang, "
    "2019); bars are 95 % Wilson intervals.",
}


def page(
    title: str,
    options: str,
    m: Measures,
    numbers: Mapping[str, float],
    pictures: Mapping[str, bytes],
    readings: Mapping[str, str],
    short: Sequence[str],
    left_out: Sequence[str],
) -> str:
    """Return the page as HTML that refers to no other file.

    title: name of the run. options: its command line. m, numbers: measurements. pictures: PNG files by name.
    readings: a sentence for each picture. short: sentences for the start of the page. left_out: reasons why
    measurements are missing.
    """
    parts = []
    if short:
        parts += ["<h2>In short</h2>", *(f'<p class="reading">{escape(line)}</p>' for line in short)]
        parts += ["<details><summary>By which thresholds</summary>", bullets(THRESHOLDS), "</details>"]
    for heading, names in SECTIONS.items():
        if inner := [
            figure_html(pictures[name], name.replace("_", " "), CAPTIONS[name], readings.get(name, ""))
            for name in names
            if name in pictures
        ]:
            parts += [f"<h2>{heading}</h2>", *inner]
    if left_out:
        parts += ["<h2>What is left out</h2>", bullets(left_out)]
    table = table_html(
        ["number", "value"], [[f"<code>{escape(k)}</code>", f"{v:.4g}"] for k, v in numbers.items()], [1]
    )
    on_grid = f" on a grid of {m.grid_size[0]}×{m.grid_size[1]} patches" if m.grid_size else ""
    body = f"""<h1>What the input stage learned</h1>
<p class="soft"><code>{escape(options)}</code></p>
<p>{escape(title)}: images of {m.img_size[0]}×{m.img_size[1]} pixels{on_grid}. The scales of the pictures do not depend
on the network, so the pictures of two networks can be compared side by side.</p>
{chr(10).join(parts)}
<h2>In numbers</h2>
<details><summary>{count(len(numbers), "number")}, as in the record of the run</summary>
{table}
</details>"""
    return article(f"{escape(title)}: what the input stage learned", body)


def bullets(lines: Sequence[str]) -> str:
    """Return lines of text as a list in HTML."""
    return "\n".join(["<ul>", *(f"<li>{escape(line)}</li>" for line in lines), "</ul>"])
