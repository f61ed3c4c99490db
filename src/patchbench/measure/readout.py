"""Linear probes that predict row and column of a token from the token, layer by layer (after Islam et al., 2020)."""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from patchbench.checks import Size
from patchbench.measure import places

BATCH = 32


def token_depths(net: Any, images: Float[Tensor, "b c H W"]) -> dict[str, Float[Tensor, "b n d"]]:
    """Return the patch tokens at several depths, by name.

    The depths are: `embedded`, after the embedding; `placed`, after the scheme in the place `tokens`, if there is one;
    `block 0`, `block 1`, ..., after each block and before a scheme in the place `between`.
    """
    watched = {"embedded": net.embed}
    for tokens in places.modules(net, "tokens"):
        watched["placed"] = tokens
    watched |= {f"block {i}": block for i, block in enumerate(net.blocks)}
    n = net.layout.grid_size[0] * net.layout.grid_size[1]
    batches: dict[str, list[Tensor]] = {name: [] for name in watched}

    def recorder(name: str) -> Any:
        def hook(module: Any, inputs: Any, out: Tensor) -> None:
            batches[name].append((out.flatten(1, 2) if out.ndim == 4 else out)[:, -n:].float().cpu())

        return hook

    hooks = [module.register_forward_hook(recorder(name)) for name, module in watched.items()]
    try:
        with torch.no_grad():
            for batch in images.split(BATCH):
                net(batch)
    finally:
        for handle in hooks:
            handle.remove()
    return {name: torch.cat(parts) for name, parts in batches.items()}


def read_position(tokens: Float[Tensor, "b n d"], grid_size: Size) -> tuple[float, float]:
    """Return R2 of row and of column, by ridge regression fitted on half of the images and tested on the other half.

    0: nothing about the place can be read from a token (negative values become 0). 1: the place is a linear function of
    the token.
    """
    from sklearn.linear_model import Ridge
    from sklearn.metrics import r2_score
    from sklearn.preprocessing import StandardScaler

    half = len(tokens) // 2
    fit, test = (part.flatten(0, 1).numpy() for part in (tokens[::2][:half], tokens[1::2][:half]))
    scaler = StandardScaler().fit(fit)
    place = np.stack(np.divmod(np.arange(grid_size[0] * grid_size[1]), grid_size[1]), 1).astype(np.float32)
    places = np.tile(place, (half, 1))
    predicted = Ridge(alpha=10.0).fit(scaler.transform(fit), places).predict(scaler.transform(test))
    row, col = r2_score(places, predicted, multioutput="raw_values")
    return max(0.0, float(row)), max(0.0, float(col))
