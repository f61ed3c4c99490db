"""Output of any positional scheme at its place in the network, as maps over the grid."""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from patchbench.checks import Size
from patchbench.layout import PLACES

MOST_PLACES = 1600  # largest grid for maps that compare every place with every other place
TILES = 7  # query places per side in a map of maps


def modules(net: Any, place: str) -> list[nn.Module]:
    """List the modules that fill a place: none, one for all blocks, or one for each of several blocks."""
    part = getattr(net, place, None)
    if part is None or isinstance(part, nn.Identity):
        return []
    if isinstance(part, nn.ModuleDict):
        return list(part.values())
    return list(part) if isinstance(part, nn.ModuleList) else [part]


def filled(net: Any) -> list[str]:
    """List the places that are filled, in the order in which tokens pass them."""
    return [place for place in PLACES if modules(net, place)]


def shapes(net: Any) -> dict[str, tuple[int, ...]]:
    """Return the shape of the output at each filled place. The meta device is used, so no memory is needed."""
    layout = net.layout
    grid_size, d = layout.grid_size, layout.embed_dim
    by_place: dict[str, tuple[int, ...]] = {}
    with torch.device("meta"), torch.no_grad():
        for place in filled(net):
            on_grid = place in ("tokens", "between")
            by_place[place] = (*grid_size, d) if on_grid else tuple(modules(net, place)[0](grid_size).shape)
    return by_place


def evenly_spaced(count: int, most: int) -> list[int]:
    """List at most `most` evenly spaced numbers of 0 ... count-1, including the first and the last."""
    return torch.linspace(0, count - 1, min(count, most)).round().long().unique().tolist()


@dataclass(frozen=True)
class Table:
    """A vector for each place, and the cosine similarity of places."""

    vectors: Float[Tensor, "h w d"]
    rows: list[int]  # the query places are the crossings of these rows and columns
    cols: list[int]
    similarity: Float[Tensor, "r c h w"]
    near: float  # mean cosine similarity of neighbours
    far: float  # mean cosine similarity of a query place and any other place


def table(tokens: nn.Module, grid_size: Size, embed_dim: int) -> Table | None:
    """Return the vectors that a scheme adds to the tokens; None if they depend on the tokens, or are all zero."""
    with torch.no_grad():
        zeros = torch.zeros(1, *grid_size, embed_dim)
        random = torch.randn(zeros.shape, generator=torch.Generator().manual_seed(0))
        vectors = tokens(zeros)[0]
        if not torch.allclose(tokens(random)[0], vectors + random[0], atol=1e-4) or not vectors.any():
            return None
    return compare(vectors)


def rotation_table(rotation: nn.Module, grid_size: Size) -> Table:
    """Return the sines and cosines of all channels and heads as vectors.

    The similarity of two places is the mean cosine of the differences of their angles.
    """
    with torch.no_grad():
        sincos = rotation(grid_size).detach()
    return compare(sincos.reshape(-1, *sincos.shape[-2:]).transpose(0, 1).flatten(1).unflatten(0, grid_size))


def compare(vectors: Float[Tensor, "h w d"]) -> Table:
    """Compare vectors of places by their cosine similarity."""
    grid_size = vectors.shape[:2]
    unit = F.normalize(vectors, dim=-1)
    rows, cols = evenly_spaced(grid_size[0], TILES), evenly_spaced(grid_size[1], TILES)
    similarity = torch.einsum("rcd,hwd->rchw", unit[rows][:, cols], unit)
    neighbours = [(unit[1:] * unit[:-1]).sum(-1).flatten(), (unit[:, 1:] * unit[:, :-1]).sum(-1).flatten()]
    pairs = similarity.numel() - len(rows) * len(cols)  # without the similarity of each place with itself, 1
    far = float(similarity.sum() - len(rows) * len(cols)) / max(1, pairs)
    return Table(vectors, rows, cols, similarity, float(torch.cat(neighbours).mean()), far)


@dataclass(frozen=True)
class RotationMaps:
    """Rotation of channels at each place, and the resulting score of a query with an equal key at another place."""

    angles: Float[Tensor, "k h w"]  # radians, for evenly spaced channels with different angles
    channels: list[int]
    num_channels: int
    queries: list[Size]
    score: Float[Tensor, "heads q h w"]  # mean cosine of the difference of angles
    num_heads: int  # number of heads with different angles; 1 if all heads share the angles


def rotation_maps(rotation: nn.Module, grid_size: Size) -> RotationMaps:
    """Measure the angles of a rotation."""
    with torch.no_grad():
        sincos = rotation(grid_size).detach()
    sincos = sincos.reshape(-1, *sincos.shape[-2:])
    sin, cos = sincos.chunk(2, dim=-1)
    angles = torch.atan2(sin, cos)
    # Channels of a pair have equal angles: one channel of each pair is enough.
    kinds: dict[bytes, int] = {}
    for channel, column in enumerate(angles[0].T):
        kinds.setdefault(column.contiguous().numpy().tobytes(), channel)
    channels = [list(kinds.values())[i] for i in evenly_spaced(len(kinds), 8)]
    queries = query_places(grid_size)
    at = torch.tensor([row * grid_size[1] + col for row, col in queries])
    score = (torch.einsum("aqd,and->aqn", cos[:, at], cos) + torch.einsum("aqd,and->aqn", sin[:, at], sin)) / sin.shape[
        -1
    ]
    return RotationMaps(
        angles[0][:, channels].T.unflatten(1, grid_size),
        channels,
        sin.shape[-1],
        queries,
        score[:3].unflatten(2, grid_size),
        len(sincos),
    )


def query_places(grid_size: Size) -> list[Size]:
    """List five query places: two corners, an edge, the centre, and one between."""
    h, w = grid_size
    return list(dict.fromkeys([(0, 0), (0, w // 2), (h // 2, w // 2), (h // 4, 3 * w // 4), (h - 1, w - 1)]))


@dataclass(frozen=True)
class BiasMaps:
    """Bias that a scheme adds to the attention logits of a few queries, over all keys."""

    grid_size: Size  # smaller than the grid of the network if this has more than MOST_PLACES places
    queries: list[Size]
    logits: Float[Tensor, "heads q h w"]
    heads: list[int]
    num_heads: int


def bias_maps(bias: nn.Module, grid_size: Size) -> BiasMaps:
    """Measure a bias, on a smaller grid if the grid has more than MOST_PLACES places."""
    if grid_size[0] * grid_size[1] > MOST_PLACES:
        scale = (MOST_PLACES / (grid_size[0] * grid_size[1])) ** 0.5
        grid_size = max(1, int(grid_size[0] * scale)), max(1, int(grid_size[1] * scale))
    with torch.no_grad():
        logits = bias(grid_size).detach()
    logits = logits.reshape(-1, *logits.shape[-2:])
    queries = query_places(grid_size)
    at = [row * grid_size[1] + col for row, col in queries]
    heads = evenly_spaced(len(logits), 4)
    return BiasMaps(grid_size, queries, logits[heads][:, at].unflatten(2, grid_size), heads, len(logits))


@dataclass(frozen=True)
class Mixing:
    """Derivative of the output at one place with respect to the input at neighbouring places, for each channel."""

    kernels: Float[Tensor, "k h w"]
    channels: list[int]


def mixing(module: nn.Module, grid_size: Size, embed_dim: int) -> Mixing:
    """Differentiate a module at zero tokens, on a grid just large enough to show a neighbourhood."""
    h, w = (min(n, 9) for n in grid_size)
    tokens = torch.zeros(1, h, w, embed_dim).requires_grad_()
    channels = evenly_spaced(embed_dim, 12)
    with torch.enable_grad():
        central = module(tokens)[0, h // 2, w // 2]
        gradients = [torch.autograd.grad(central[c], tokens, retain_graph=True)[0][0, :, :, c] for c in channels]
    return Mixing(torch.stack(gradients), channels)
