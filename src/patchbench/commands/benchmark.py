"""Speed and memory of training or inference: of one configuration, of two configurations, or of one and a peer."""

import json
import re
import tempfile
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from patchbench.commands.bench.record import Measured, command_line, described, device_facts, table
from patchbench.commands.bench.rounds import Figures, interleaved
from patchbench.commands.bench.sides import Asked, checked, epochs_of, sides_of
from patchbench.commands.build import build_trainer
from patchbench.commands.loading import loading
from patchbench.config.compose import composed
from patchbench.config.errors import refusing
from patchbench.config.names import register
from patchbench.machine import display_path, write_whole
from patchbench.redact import without_secrets
from patchbench.runs.provenance import environment
from patchbench.track.terminal import say

SETTINGS = ("rounds", "steps", "warmup", "peer", "compare", "run", "timm")
GRAPHS = 64  # compiled graphs per block: for two sides, training and evaluation, and several batch sizes


def benchmark(options: Mapping[str, Any], given: Sequence[str], typed: Sequence[str]) -> Path:
    """Measure, print the table, write the record, and return its path.

    options: options of scripts/benchmark.py. given: options of train.py. typed: options of both, as they were typed.
    Refused if a side cannot be measured; impossible options are refused before anything is measured.
    """
    with tempfile.TemporaryDirectory() as scratch:
        return written(options, given, typed, Path(scratch))


def written(options: Mapping[str, Any], given: Sequence[str], typed: Sequence[str], scratch: Path) -> Path:
    """Write the record of a benchmark, see `benchmark`. scratch: an empty folder."""
    register()
    torch._dynamo.config.recompile_limit = GRAPHS
    overrides = checked(given)
    cfg = composed(overrides)  # outside of `refusing`, so that errors of Hydra are reported as by train.py
    asked = Asked(options["run"], overrides)
    pair = [asked, *([asked.changed(options["compare"])] if options["compare"] else [])]
    for each in pair:
        composed(each.overrides)
    out = Path(options["out"] or Path(cfg.runs_dir, "benchmarks"))
    with refusing():
        (out.parent if out.suffix == ".json" else out).mkdir(parents=True, exist_ok=True)
        sides = sides_of(options, pair, scratch)
        device = build_trainer(cfg, Path(), [], epochs=1).strategy.root_device
    settings = {name: options[name] for name in SETTINGS}
    if options["peer"] == "timm":
        settings |= {"epochs": epochs_of(overrides), "steps": None, "warmup": None}
    date = datetime.now(UTC)
    record: dict[str, Any] = {"date": date.isoformat(timespec="seconds"), "mode": options["mode"]}
    record |= {"command": command_line("benchmark", typed), "settings": settings, "threads": torch.get_num_threads()}
    record |= {"device": device_facts(device), "environment": environment()}
    with loading(), refusing(ValueError, OSError, torch.OutOfMemoryError):
        rounds = interleaved([side.measure for side in sides], options["rounds"], round_printer(options["rounds"]))
    record |= described([Measured(side.name, side.facts, rows) for side, rows in zip(sides, rounds, strict=True)])
    record = without_secrets(record)
    say("\n".join(["", *table(record), ""]))
    path = out if out.suffix == ".json" else out / file_name(record, date)
    write_whole(path, json.dumps(record, indent=1) + "\n")
    say(str(display_path(path)))
    return path


def round_printer(rounds: int) -> Any:
    """Return a function that prints a line for each round."""

    def line(number: int, rows: Sequence[Figures]) -> None:
        rates = ", ".join(f"{row['images_per_s']:,.0f} images/s" for row in rows)
        say(f"round {number} of {rounds}: {rates}; others used {max(row['others_cores'] for row in rows):.2f} cores")

    return line


def file_name(record: Mapping[str, Any], date: datetime) -> str:
    """Name the file of a record: conv-16-learned-digits-s0-micro-train-2026-11-26-094937.json."""
    names = "-beside-".join(side["name"] for side in record["sides"])
    words = re.sub(r"[^a-z0-9]+", "-", f"{names} {record['mode']}".lower()).strip("-")
    return f"{words[:100]}-{date:%Y-%m-%d-%H%M%S}.json"
