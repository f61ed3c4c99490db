"""How values of a metric are written: accuracies in per cent, their differences in points, anything else as it is."""

import math
import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Unit:
    factor: int
    level: str  # sign of a value
    difference: str  # sign of a difference

    def value(self, x: float, digits: int = 1) -> str:
        return "n/a" if math.isnan(x) else f"{self.number(x, digits)}{self.level}"

    def number(self, x: float, digits: int = 1) -> str:
        return f"{x * self.factor:.{digits}f}" if self.factor == 100 else f"{x:.4g}"

    def change(self, x: float) -> str:
        return "n/a" if math.isnan(x) else f"{self.signed(x)}{self.difference}"

    def signed(self, x: float) -> str:
        if self.factor != 100:
            return f"{x:+.4g}"
        digits = 1 if abs(x) >= 0.1 else 2
        return f"{round(x * 100, digits) + 0.0:+.{digits}f}"


def unit(metric: str) -> Unit:
    if metric.startswith("log2("):
        return Unit(1, "", " doublings")
    accuracy = all(re.search(r"acc|same$|macro", name) for name in re.split(r" [+-] ", metric))
    return Unit(100, " %", " pt") if accuracy else Unit(1, "", "")
