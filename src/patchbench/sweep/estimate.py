"""How long a cell will take, by the cells that are done: measured, or not known."""

import json
import math
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from patchbench.sweep.cell import Cell, setting, work


class Estimate:
    """From the records in the directories of runs.

    A cell takes what one of the same setting took (data, batch, trainer, machine), in proportion to its
    multiply-accumulates times epochs or steps, or to the FLOPs or seconds of its budget; the record nearest is taken.
    Small networks, whose time is not in their arithmetic, take longer than that.
    """

    def __init__(self, runs_dirs: Iterable[Path]) -> None:
        self.known: dict[str, list[tuple[float, float]]] = {}  # setting: (work, seconds)
        for folder in runs_dirs:
            for record in folder.glob("*/run.json"):
                self.learn(record)

    def learn(self, record: Path) -> None:
        with suppress(OSError, ValueError, KeyError, TypeError):  # of another version: nothing to learn
            done = json.loads(record.read_text())
            unit, budget = done["options"]["budget"], done["config"]["budget"]["value"]
            done_work = work(unit, budget, done["result"]["model/gmacs"])
            where = setting(done["config"], unit, done["environment"]["machine"])
            self.known.setdefault(where, []).append((done_work, done["result"]["time/wall_s"]))

    def seconds(self, cell: Cell) -> float | None:
        """None where nothing alike was measured."""
        if cell.work is None or not (known := self.known.get(cell.work[0])):
            return None
        ours = cell.work[1]
        there, seconds = min(known, key=lambda point: abs(math.log(point[0] / ours)))
        return seconds * ours / there
