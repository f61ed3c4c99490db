"""Record of a benchmark, with all that is needed to repeat the benchmark, and its table."""

import shlex
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch

from patchbench.commands.bench.rounds import Figures, ratios, summary

ROWS = (  # label, name of the figure, format of its value
    ("images/s", "images_per_s", ",.0f"),
    ("images/s, with pauses", "images_per_s_wall", ",.0f"),
    ("tokens/s", "tokens_per_s", ",.0f"),
    ("ms a step, median", "step_ms_median", ",.2f"),
    ("ms a step, 95th percentile", "step_ms_p95", ",.2f"),
    ("ms a step, with pauses", "step_ms_wall", ",.2f"),
    ("CPU ms a step", "step_cpu_ms", ",.2f"),
    ("ms for one image, median", "latency_ms_median", ",.2f"),
    ("ms for one image, 95th percentile", "latency_ms_p95", ",.2f"),
    ("waiting for data", "data_wait_frac", ".1%"),
    ("TFLOP/s", "tflops_per_gpu", ",.3g"),
    ("MFU", "mfu", ".1%"),
    ("peak memory of the GPU, GiB", "gpu_peak_allocated_gib", ",.2f"),
    ("peak memory of the process, GiB", "cpu_rss_gib", ",.2f"),
    ("wall s an epoch", "epoch_wall_s", ",.1f"),
    ("CPU s an epoch", "epoch_cpu_s", ",.1f"),
    ("cores that others used", "others_cores", ".2f"),
)
COMPARED = {  # figures that are compared as ratios, and their descriptions
    "image_ms": "the time of an image",
    "image_ms_wall": "the time of an image, with pauses",
    "image_cpu_ms": "the CPU time of an image",
    "latency_ms_median": "the time for one image alone",
}


@dataclass(frozen=True)
class Measured:
    """Measurements of a side. facts: description of the side, in plain values. rounds: figures, one row per round."""

    name: str
    facts: Mapping[str, Any]
    rounds: Sequence[Figures]

    def plain(self) -> dict[str, Any]:
        figures = summary(self.rounds, [name for _, name, _ in ROWS])
        return {"name": self.name, **self.facts, "summary": figures, "rounds": list(self.rounds)}


def described(measured: Sequence[Measured]) -> dict[str, Any]:
    """Return the sides as plain values; for two sides also the ratios of their figures, the first over the second."""
    record: dict[str, Any] = {"sides": [side.plain() for side in measured]}
    if len(measured) == 2:
        record["ratios"] = ratios(measured[0].rounds, measured[1].rounds, list(COMPARED))
    return record


def device_facts(device: torch.device) -> dict[str, Any]:
    """Return name, memory, software and clocks of a GPU at the time of the call; for a CPU only the name.

    Driver, clocks, power and temperature are from nvidia-smi, and are left out if it fails.
    """
    if device.type != "cuda":
        return {"name": device.type}
    properties = torch.cuda.get_device_properties(device)
    facts: dict[str, Any] = {"name": properties.name, "count": torch.cuda.device_count()}
    facts |= {"memory_gib": properties.total_memory / 2**30}
    facts |= {"cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}
    asked = ("driver_version", "clocks.sm", "clocks.mem", "power.draw", "power.limit", "temperature.gpu")
    with suppress(OSError, subprocess.CalledProcessError):
        query = ["nvidia-smi", f"--query-gpu={','.join(asked)}", "--format=csv,noheader"]
        line = subprocess.run(query, capture_output=True, text=True, check=True).stdout.splitlines()[0]
        facts |= dict(zip(asked, map(str.strip, line.split(",")), strict=True))
        facts["driver"] = facts.pop("driver_version")
    return facts


def table(record: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of the table of a record: the settings, the sides, their figures, and the ratios."""
    sides, settings = record["sides"], record["settings"]
    letters = "AB"[: len(sides)]
    yield f"{record['mode']}, {settings['rounds']} rounds{spelled(settings)}; {place(record)}"
    yield from (f"{letter}  {side['name']}" for letter, side in zip(letters, sides, strict=True))
    yield ""
    yield f"| median of the rounds (least to largest) | {' | '.join(letters)} |"
    yield "|---|" + "---:|" * len(sides)
    for label, name, how in ROWS:
        cells = [cell(side["summary"].get(name), how) for side in sides]
        if any(cells):
            yield f"| {label} | {' | '.join(cells)} |"
    if record.get("ratios"):
        yield ""
        yield from (f"A / B, {COMPARED[name]}: {spell_ratio(ratio)}" for name, ratio in record["ratios"].items())
    if record["settings"]["peer"] not in (None, "timm"):
        yield overhead(record)


def overhead(record: Mapping[str, Any]) -> str:
    """Describe how much the framework adds to a training image: wall time on a GPU, CPU time on a CPU."""
    on_gpu = record["sides"][0]["conditions"]["device"] == "cuda"
    ratio = record["ratios"]["image_ms_wall" if on_gpu else "image_cpu_ms"]
    of = "wall time" if on_gpu else "CPU time"
    amounts = [f"{ratio[name] - 1:+.1%}" for name in ("median", "low", "high")]
    peer = record["sides"][1]["name"]
    return f"framework overhead per training image, beside {peer}: {amounts[0]} of {of} ({amounts[1]} to {amounts[2]})"


def spelled(settings: Mapping[str, Any]) -> str:
    if settings["peer"] == "timm":
        return f", the cost of {settings['epochs']} epochs beside one"
    return f" of {settings['steps']} steps after {settings['warmup']}"


def place(record: Mapping[str, Any]) -> str:
    """Describe the device, with the number of threads on a CPU, the version of torch, and the commit of a record."""
    environment, name = record["environment"], record["device"]["name"]
    machine = environment["machine"]
    threads = f"{record['threads']} thread{'s' * (record['threads'] != 1)}"
    device = f"{machine['cores']} cores of {machine['cpu']}, {threads}" if name == "cpu" else name
    commit, _, changed = str(environment["commit"]).partition("-")
    at = f"commit {commit[:10]}{', changed' * bool(changed)}"
    return f"{device}, torch {environment['versions']['torch']}, {at}"


def cell(figures: Mapping[str, float] | None, how: str) -> str:
    """Format a figure over the rounds: median, least and largest value. Return an empty text if there is none."""
    if figures is None:
        return ""
    median, low, high = (format(figures[name], how) for name in ("median", "low", "high"))
    return median if low == high else f"{median} ({low} to {high})"


def spell_ratio(ratio: Mapping[str, Any]) -> str:
    """Format a ratio: its median, its interval, and the ratio of the fastest rounds."""
    many = len(ratio["rounds"]) >= 6
    how = "95 % interval " if many else "least and largest "
    middle = f"{ratio['median']:.3f} ({how}{ratio['low']:.3f} to {ratio['high']:.3f})"
    return f"{middle}; of the fastest rounds {ratio['fastest']:.3f}"


def command_line(script: str, arguments: Sequence[str]) -> str:
    """Return the command that makes a record, quoted for a shell."""
    return shlex.join(["python", f"scripts/{script}.py", *arguments])
