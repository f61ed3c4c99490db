"""The output of a scheme at its place in the network, as maps over the grid, whatever scheme fills the place."""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from patchbench.checks import Size
from patchbench.layout import PLACES

MOST_PLACES = 1600  # up to this number, maps compare every place with every other
TILES = 7  # query places per side in a map of maps


def modules(net: Any, place: str) -> list[nn.Module]:
    """Return the modules that fill a place: none, one for all blocks, or one for each of several blocks."""
    part = getattr(net, place, None)
    if part is None or isinstance(part, nn.Identity):
        return []
    if isinstance(part, nn.ModuleDict):
        return list(part.values())
    return list(part) if isinstance(part, nn.ModuleList) else [part]


def filled(net: Any) -> list[str]:
    """Return the places that are filled, in the order in which tokens pass them."""
    return [place for place in PLACES if modules(net, place)]


def shapes(net: Any) -> dict[str, tuple[int, ...]]:
    """Return the shape of the output at each filled place; on the meta device, so a long sequence takes no memory."""
    layout = net.layout
    grid_size, d = layout.grid_size, layout.embed_dim
    by_place: dict[str, tuple[int, ...]] = {}
    with torch.device("meta"), torch.no_grad():
        for place in filled(net):
            on_grid = place in ("tokens", "between")
            by_place[place] = (*grid_size, d) if on_grid else tuple(modules(net, place)[0](grid_size).shape)
    return by_place


def spread(count: int, most: int) -> list[int]:
    """Choose at most `most` of 0 ... count-1, evenly, with the first and the last."""
    return torch.linspace(0, count - 1, min(count, most)).round().long().unique().tolist()


@dataclass(frozen=True)
class Table:
    """A vector for each place, and the similarity of places."""

    vectors: Float[Tensor, "h w d"]
    rows: list[int]  # query places: these rows, crossed with these columns
    cols: list[int]
    similarity: Float[Tensor, "r c h w"]
    near: float  # mean cosine similarity of neighbours
    far: float  # of two places at random


def table(tokens: nn.Module, grid_size: Size, embed_dim: int) -> Table | None:
    """Return the vectors that are added to the tokens; None if they depend on the tokens, or if nothing is added."""
    with torch.no_grad():
        zeros = torch.zeros(1, *grid_size, embed_dim)
        some = torch.randn(zeros.shape, generator=torch.Generator().manual_seed(0))
        vectors = tokens(zeros)[0]
        if not torch.allclose(tokens(some)[0], vectors + some[0], atol=1e-4) or not vectors.any():
            return None
    return compared(vectors)


def turned(rotation: nn.Module, grid_size: Size) -> Table:
    """Return sines and cosines of all channels of all heads: their similarity is the mean cosine of the difference."""
    with torch.no_grad():
        sincos = rotation(grid_size).detach()
    return compared(sincos.reshape(-1, *sincos.shape[-2:]).transpose(0, 1).flatten(1).unflatten(0, grid_size))


def compared(vectors: Float[Tensor, "h w d"]) -> Table:
    """Compare vectors of places by their cosine similarity."""
    grid_size = vectors.shape[:2]
    unit = F.normalize(vectors, dim=-1)
    rows, cols = spread(grid_size[0], TILES), spread(grid_size[1], TILES)
    similarity = torch.einsum("rcd,hwd->rchw", unit[rows][:, cols], unit)
    neighbours = [(unit[1:] * unit[:-1]).sum(-1).flatten(), (unit[:, 1:] * unit[:, :-1]).sum(-1).flatten()]
    pairs = similarity.numel() - len(rows) * len(cols)  # without each place's similarity of 1 with itself
    far = float(similarity.sum() - len(rows) * len(cols)) / max(1, pairs)
    return Table(vectors, rows, cols, similarity, float(torch.cat(neighbours).mean()), far)


@dataclass(frozen=True)
class Turn:
    """The angle by which channels turn at each place, and the score of a query with an equal key that follows."""

    angles: Float[Tensor, "k h w"]  # radians, of channels that differ, evenly chosen
    channels: list[int]
    num_channels: int
    queries: list[Size]
    score: Float[Tensor, "heads q h w"]  # mean cosine of the difference of angles
    num_heads: int  # heads with angles of their own


def turn(rotation: nn.Module, grid_size: Size) -> Turn:
    """Measure the angles of a rotation."""
    with torch.no_grad():
        sincos = rotation(grid_size).detach()
    sincos = sincos.reshape(-1, *sincos.shape[-2:])
    sin, cos = sincos.chunk(2, dim=-1)
    angles = torch.atan2(sin, cos)
    # Pairs of channels turn together: one of each is enough.
    kinds: dict[bytes, int] = {}
    for channel, column in enumerate(angles[0].T):
        kinds.setdefault(column.contiguous().numpy().tobytes(), channel)
    channels = [list(kinds.values())[i] for i in spread(len(kinds), 8)]
    queries = query_places(grid_size)
    at = torch.tensor([row * grid_size[1] + col for row, col in queries])
    score = (torch.einsum("aqd,and->aqn", cos[:, at], cos) + torch.einsum("aqd,and->aqn", sin[:, at], sin)) / sin.shape[
        -1
    ]
    return Turn(
        angles[0][:, channels].T.unflatten(1, grid_size),
        channels,
        sin.shape[-1],
        queries,
        score[:3].unflatten(2, grid_size),
        len(sincos),
    )


def query_places(grid_size: Size) -> list[Size]:
    """Choose a corner, an edge, the middle, and places beside them."""
    h, w = grid_size
    return list(dict.fromkeys([(0, 0), (0, w // 2), (h // 2, w // 2), (h // 4, 3 * w // 4), (h - 1, w - 1)]))


@dataclass(frozen=True)
class Shift:
    """The numbers that are added to the attention logits of a few queries, over all keys."""

    grid_size: Size  # smaller than the network's where that has too many places
    queries: list[Size]
    logits: Float[Tensor, "heads q h w"]
    heads: list[int]
    num_heads: int


def shift(bias: nn.Module, grid_size: Size) -> Shift:
    """Measure a bias, for at most MOST_PLACES places: a longer sequence is shown on a smaller grid."""
    if grid_size[0] * grid_size[1] > MOST_PLACES:
        scale = (MOST_PLACES / (grid_size[0] * grid_size[1])) ** 0.5
        grid_size = max(1, int(grid_size[0] * scale)), max(1, int(grid_size[1] * scale))
    with torch.no_grad():
        logits = bias(grid_size).detach()
    logits = logits.reshape(-1, *logits.shape[-2:])
    queries = query_places(grid_size)
    at = [row * grid_size[1] + col for row, col in queries]
    heads = spread(len(logits), 4)
    return Shift(grid_size, queries, logits[heads][:, at].unflatten(2, grid_size), heads, len(logits))


@dataclass(frozen=True)
class Mixing:
    """The derivative of the output at one place with respect to its neighbours' input, channel by channel."""

    kernels: Float[Tensor, "k h w"]
    channels: list[int]


def mixing(module: nn.Module, grid_size: Size, embed_dim: int) -> Mixing:
    """Differentiate at zero, on a grid just large enough to show a neighbourhood."""
    h, w = (min(n, 9) for n in grid_size)
    tokens = torch.zeros(1, h, w, embed_dim).requires_grad_()
    channels = spread(embed_dim, 12)
    with torch.enable_grad():
        middle = module(tokens)[0, h // 2, w // 2]
        slopes = [torch.autograd.grad(middle[c], tokens, retain_graph=True)[0][0, :, :, c] for c in channels]
    return Mixing(torch.stack(slopes), channels)
