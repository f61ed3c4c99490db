"""Time as a function of the number of tokens: a constant, a linear and a quadratic part."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.optimize import nnls

Points = Float[np.ndarray, " points"]


@dataclass(frozen=True)
class Scaling:
    """constant + linear · n + quadratic · n², none of them negative, in the unit of what was fitted."""

    constant: float
    linear: float
    quadratic: float

    def at(self, n: Any) -> Any:
        """The value at so many tokens, a number or an array of them."""
        return self.constant + self.linear * n + self.quadratic * n**2

    @property
    def crossover(self) -> float:
        """The n at which the quadratic part is as large as the linear one; inf where there is no quadratic part."""
        return self.linear / self.quadratic if self.quadratic else float("inf")


def fit(tokens: Points, values: Points, *, constant: bool = True) -> Scaling:
    """Least squares of relative errors, under parts of at least 0: a small value counts as much as a large one.

    constant: false leaves the constant out. ValueError for fewer numbers of tokens than parts.
    """
    powers = (0, 1, 2) if constant else (1, 2)
    if len(np.unique(tokens)) < len(powers):
        raise ValueError(f"{len(powers)} parts need as many different numbers of tokens, and here are {len(tokens)}")
    columns = np.stack([tokens.astype(float) ** power for power in powers], axis=1)
    parts, _ = nnls(columns / values[:, None], np.ones(len(values)))
    return Scaling(*((0.0,) if not constant else ()), *map(float, parts))
