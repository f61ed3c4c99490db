"""What a knob may be."""

from collections.abc import Sequence


def share(option: str, value: float) -> float:
    if not 0 <= value <= 1:
        raise ValueError(f"{option}={value} must be between 0 and 1")
    return value


def interval(option: str, ends: Sequence[float], *, most: float = float("inf")) -> tuple[float, float]:
    low, high = ends
    if not 0 < low <= high <= most:
        top = "" if most == float("inf") else f" and none above {most:g}"
        raise ValueError(f"{option}={list(ends)} must be two numbers above 0{top}, the smaller first")
    return low, high
