"""Estimate of the time of a cell from finished cells."""

import math
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from patchbench.runs.record import read_record
from patchbench.sweep.cell import Cell, setting, work


class Estimate:
    """Times of earlier cells, read from the records in the folders of runs.

    The estimate uses the record with the most similar amount of work among those with the same setting (data, batch
    size, trainer, machine). Time is assumed proportional to work: multiply-accumulates times epochs or steps, or the
    FLOPs or seconds of the budget. Small networks take longer than estimated from large ones, since most of their time
    is not arithmetic.
    """

    def __init__(self, runs_dirs: Iterable[Path]) -> None:
        self.times: dict[str, list[tuple[float, float]]] = {}  # setting: (work, seconds)
        for folder in runs_dirs:
            for record in folder.glob("*/run.json"):
                self.learn(record)

    def learn(self, record: Path) -> None:
        """Add the time of a finished cell."""
        with suppress(OSError, ValueError, KeyError, TypeError):  # a record of another version
            done = read_record(record)
            unit, budget = done["options"]["budget"], done["config"]["budget"]["value"]
            done_work = work(unit, budget, done["result"]["model/gmacs"])
            where = setting(done["config"], unit, done["environment"]["machine"])
            self.times.setdefault(where, []).append((done_work, done["result"]["time/wall_s"]))

    def seconds(self, cell: Cell) -> float | None:
        """Estimate the seconds of a cell; None if no cell with its setting is done."""
        if cell.work is None or not (times := self.times.get(cell.work[0])):
            return None
        ours = cell.work[1]
        other, seconds = min(times, key=lambda point: abs(math.log(point[0] / ours)))
        return seconds * ours / other
