"""Scales that are equal for all networks, so that the figures of two networks can be compared."""

from typing import Any

from matplotlib.colors import LogNorm

GREY: Any = {"color": "#606060", "linestyle": "--", "linewidth": 1.2}  # a reference line
ENERGY = LogNorm(1e-5, 1, clip=True)  # shares of energy
