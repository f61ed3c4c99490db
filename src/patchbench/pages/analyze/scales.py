"""Scales that do not depend on the network, so that the figures of two networks can be compared."""

from typing import Any

from matplotlib.colors import LogNorm

GREY: Any = {"color": "#606060", "linestyle": "--", "linewidth": 1.2}  # a line to compare with
ENERGY = LogNorm(1e-5, 1, clip=True)  # shares of energy
