"""What a network's input stage learned, as one HTML file that needs no other."""

from collections.abc import Mapping, Sequence
from html import escape

from patchbench.html import document, rows, shown
from patchbench.measure.summary import Measures

SECTIONS = {
    "What the embedding answers to": ("kernels", "channels"),
    "What tells places apart": ("positions_tokens", "positions_rotation", "rotation", "bias"),
    "What tokens attend to": ("distance", "rollout"),
    "How far it sees": ("fields",),
    "Where a token knows itself to be": ("readout",),
    "What it withstands": ("robustness",),
}
SPECTRA = (
    "Left, the cosine similarity of one place with all others, for places spread over the grid (Dosovitskiy et al., "
    "2021, fig. 7). Middle, how many directions {vectors} use. Right, which waves over the grid they are made of: "
    "on the axes where rows and columns are told apart, in the middle slow waves."
)
CAPTIONS = {
    "kernels": "Left, the principal components of all kernels as colours, grey being zero, each with its share of the "
    "variance (Dosovitskiy et al., 2021, fig. 7); of an embedding that is not linear, of its derivative. Middle, how "
    "many of them are needed. Right, the share of the kernels' energy at each frequency of the discrete cosine "
    "transform (Ahmed et al., 1974), slow at the top left.",
    "channels": "The kernels of largest norm, and below each its slices for red, green and blue: equal slices see "
    "brightness, slices of opposite sign see colour.",
    "positions_tokens": SPECTRA.format(vectors="the vectors that are added"),
    "positions_rotation": SPECTRA.format(vectors="sines and cosines of all channels")
    + " Here the similarity is the mean cosine of the angle between query and key; of several blocks, the first's.",
    "rotation": "Each dot is a pair of channels: how far queries and keys turn from one patch to the next, on axes "
    "that are logarithmic beyond 0.01 and end at half a turn. On the lines, rows and columns are told apart; off them, "
    "directions are oblique.",
    "bias": "Added to the logits between two patches, on average over all pairs at a distance; the axis is logarithmic "
    "beyond 0.1. Between patches only differences within a head matter.",
    "distance": "Pixels between a patch and what it attends to, on average over patches and images (Dosovitskiy et "
    "al., 2021, D.7). Prefix tokens are left out.",
    "rollout": "Which patches the head of the network reads: attention followed through all layers, half of each taken "
    "by the residual stream (Abnar and Zuidema, 2020).",
    "fields": "The squared gradient of one place in the middle with respect to each pixel, mean over test images "
    "(Luo et al., 2016), and the side of a square as large as the area that holds 95 % of it. The ResNet-18 has random "
    "weights and is cut at the stage whose grid is nearest, to compare with.",
    "readout": "Row and column by ridge regression from tokens, fitted on half of the images, tried on the others "
    "(after Islam et al., 2020). What is read from the embedding alone is content, which often depends on place, "
    "or a leak from padding; what is read later was told, or leaked.",
    "robustness": "Test images whose patches or pixels lie in random order, scaled to other sizes, or moved (Zhang, "
    "2019); bars are 95 % Wilson intervals.",
}


def page(
    title: str,
    options: str,
    m: Measures,
    numbers: Mapping[str, float],
    pictures: Mapping[str, bytes],
    left_out: Sequence[str],
) -> str:
    """HTML without a reference to anything outside of it."""
    parts = []
    for heading, names in SECTIONS.items():
        if inner := [
            shown(pictures[name], name.replace("_", " "), CAPTIONS[name]) for name in names if name in pictures
        ]:
            parts += [f"<h2>{heading}</h2>", *inner]
    if left_out:
        parts += ["<h2>What is left out</h2>", "<ul>", *(f"<li>{escape(line)}</li>" for line in left_out), "</ul>"]
    table = rows(["number", "value"], [[f"<code>{escape(k)}</code>", f"{v:.4g}"] for k, v in numbers.items()], [1])
    on_grid = f" on a grid of {m.grid_size[0]}×{m.grid_size[1]} patches" if m.grid_size else ""
    body = f"""<h1>What the input stage learned</h1>
<p class="soft"><code>{escape(options)}</code></p>
<p>{escape(title)}: images of {m.img_size[0]}×{m.img_size[1]} pixels{on_grid}. The scales of the pictures do not depend
on the network, so those of two networks can be laid side by side.</p>
{chr(10).join(parts)}
<h2>In numbers</h2>
{table}"""
    return document(f"{escape(title)}: what the input stage learned", body)
