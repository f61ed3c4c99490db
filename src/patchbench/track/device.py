"""Peak speed of a device, times on it, and its memory."""

import functools
import re
import subprocess
import sys
import time
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import psutil
import torch

GIB = 2**30

# Dense bf16 peak of one device in FLOP/s, from the vendors' data sheets, without sparsity. The first name that
# matches counts. V100 and T4 have no units for bf16, so they have no peak here.
PEAKS = {
    "gb300": 2.5e15,
    "gb200": 2.5e15,
    "b300": 2.25e15,
    "b200": 2.25e15,
    "gh200": 989e12,
    "h200 nvl": 835e12,
    "h200": 989e12,
    "h100 nvl": 835e12,
    "h100 pcie": 756e12,
    "h100": 989e12,
    "h20": 148e12,
    "h800": 989e12,
    "a100": 312e12,
    "a800": 312e12,
    "l40s": 362e12,
    "l40": 181e12,
    "l4": 121e12,
    "a10g": 70e12,
    "a10": 125e12,
    "a30": 165e12,
    "a40": 149.7e12,
    "a6000": 154.8e12,
    "rtx 6000 ada": 364.2e12,
    "rtx 5090": 209.5e12,
    "rtx 4090": 165.2e12,
    "rtx 3090": 71e12,
    "mi300x": 1307e12,
    "mi325x": 1307e12,
}


class Laps:
    """Times between marks in the work of a device. `mark` does not wait for the device, `read` does."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.marks: list = []

    def mark(self) -> None:
        """Set a mark."""
        if self.device.type == "cuda":
            event = torch.cuda.Event(enable_timing=True)
            event.record()
            self.marks.append(event)
        else:
            self.marks.append(time.perf_counter())

    def read(self) -> list[float]:
        """Return the seconds from each mark to the next, and remove the marks."""
        marks, self.marks = self.marks, []
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
            return [a.elapsed_time(b) / 1000 for a, b in pairwise(marks)]
        return [b - a for a, b in pairwise(marks)]


def bf16_peak(device: torch.device) -> float | None:
    """Dense bf16 peak of a device in FLOP/s; None if it is unknown."""
    if device.type != "cuda":
        return None
    return peak_of(torch.cuda.get_device_name(device))


def peak_of(name: str) -> float | None:
    """Return the peak of a GPU by its name, compared by whole words; None if unknown, and for a slice (MIG)."""
    if "mig" in name.lower().split():
        return None
    return next((peak for model, peak in PEAKS.items() if re.search(rf"\b{model}\b", name.lower())), None)


def reset_peak_resident() -> None:
    """Reset the peak of the resident memory of this process."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # Linux: resets the high-water mark


def peak_resident_bytes() -> int:
    """Peak resident memory of this process since the last reset, plus the present memory of its data workers.

    Outside of Linux, the present memory of the process replaces its peak. The first rank starts other ranks as child
    processes; they are left out, since they report their own memory.
    """
    process = psutil.Process()
    own, rank = process.memory_info().rss, process.environ().get("LOCAL_RANK")
    with suppress(OSError):
        lines = Path("/proc/self/status").read_text().splitlines()
        own = next((1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM")), own)
    for child in process.children(recursive=True):
        with suppress(psutil.Error):  # the child has ended meanwhile
            if child.environ().get("LOCAL_RANK") == rank:
                own += child.memory_info().rss
    return own


@functools.cache
def free_memory_of_gpus() -> int:
    """Free bytes on the GPU with the most free memory, from nvidia-smi, so that no CUDA context is created."""
    query = ["nvidia-smi", "--query-gpu=memory.free", "--format=csv,noheader,nounits"]
    with suppress(OSError, subprocess.CalledProcessError, ValueError):
        done = subprocess.run(query, capture_output=True, text=True, check=True)
        return max(int(line) for line in done.stdout.split()) * 2**20
    return sys.maxsize  # unknown: training itself finds out


def free_memory(device: torch.device, processes: int) -> int:
    """Free bytes for this process: on its GPU, or its share of the free memory of the machine or container.

    processes: number of processes that share the memory.
    """
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    free = psutil.virtual_memory().available
    with suppress(OSError, ValueError):  # Linux, in a container with a limit
        limit, used = (int(Path(f"/sys/fs/cgroup/memory.{n}").read_text()) for n in ("max", "current"))
        free = min(free, max(0, limit - used))
    return free // processes
