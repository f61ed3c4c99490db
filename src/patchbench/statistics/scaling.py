"""Time as a function of the number of tokens: a constant, a linear and a quadratic part."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.optimize import nnls

Points = Float[np.ndarray, " points"]


@dataclass(frozen=True)
class Scaling:
    """Coefficients of constant + linear · n + quadratic · n², none negative, in the unit of the fitted values."""

    constant: float
    linear: float
    quadratic: float

    def at(self, n: Any) -> Any:
        """Return the value at n tokens. n: a number or an array."""
        return self.constant + self.linear * n + self.quadratic * n**2

    @property
    def crossover(self) -> float:
        """The n at which the quadratic part equals the linear part; inf if there is no quadratic part."""
        return self.linear / self.quadratic if self.quadratic else float("inf")


def fit(tokens: Points, values: Points, *, constant: bool = True) -> Scaling:
    """Fit non-negative parts by least squares of relative errors: small values count as much as large ones.

    constant: false leaves the constant out. ValueError for fewer different numbers of tokens than parts.
    """
    powers = (0, 1, 2) if constant else (1, 2)
    if len(np.unique(tokens)) < len(powers):
        raise ValueError(f"{len(powers)} parts need as many different numbers of tokens, but there are {len(tokens)}")
    columns = np.stack([tokens.astype(float) ** power for power in powers], axis=1)
    parts, _ = nnls(columns / values[:, None], np.ones(len(values)))
    return Scaling(*((0.0,) if not constant else ()), *map(float, parts))
