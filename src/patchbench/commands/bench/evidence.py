"""File of measurements, which is written again after each item."""

import gc
import json
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from patchbench.commands.bench.rounds import Figures
from patchbench.machine import write_whole


@dataclass(frozen=True)
class Item:
    """A measurement: its name, the seconds that it takes, approximately, and the function that measures."""

    name: str
    seconds: float | int
    measure: Callable[[], Any]


class Evidence:
    """File of measurements that is written after each item, so that measured items remain if the process is ended.

    facts: content of the file, to which items are added. deadline: a time of time.perf_counter().
    """

    def __init__(self, path: Path, facts: Figures, deadline: float) -> None:
        self.path, self.facts, self.deadline = path, facts, deadline
        self.write()

    def left(self) -> float:
        """Return the seconds until the deadline."""
        return self.deadline - time.perf_counter()

    def add(self, item: Item) -> None:
        """Measure an item, or leave it out if less than `item.seconds` is left. An error is stored as the result."""
        began, done = time.perf_counter(), self.facts.setdefault("items", {})
        if self.left() < item.seconds:
            done[item.name] = {"left_out": "no time was left"}
        else:
            torch.compiler.reset()
            try:
                done[item.name] = item.measure()
            except Exception as error:
                traceback.print_exc()
                done[item.name] = {"error": f"{type(error).__name__}: {error}"[:400]}
            gc.collect()
            torch.cuda.empty_cache()
        self.facts.setdefault("seconds", {})[item.name] = round(time.perf_counter() - began, 1)
        print(f"{item.name}: {json.dumps(done[item.name], default=str)[:400]}", flush=True)
        self.write()

    def write(self) -> None:
        write_whole(self.path, json.dumps(self.facts, indent=1) + "\n")


def measured(items: dict[str, Any]) -> set[str]:
    """Return the names of the items of a file that were measured; tests and trainings that failed were not."""

    def failed(item: Any) -> bool:
        return isinstance(item, dict) and (
            bool({"error", "left_out"} & item.keys())
            or item.get("exit_code", 0) != 0
            or any(map(failed, item.values()))
        )

    return {name for name, item in items.items() if not failed(item)}
