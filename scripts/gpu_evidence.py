"""What this code does on this GPU, in one file: the tests that need one, and how fast and how large training is.

python scripts/gpu_evidence.py                  within 8 minutes, into benchmarks/<device>-<date>.json
python scripts/gpu_evidence.py --device cpu     the same of tiny networks, to see that it runs; its figures mean nothing

Every row of the table is a run of train.py on random images, with the largest batch of a short list that fits.
"""

import argparse
import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from patchbench.runs.record import environment

ROOT = Path(__file__).parents[1]
LIMIT_S = 470.0  # of 8 minutes; the rest is for imports
TABLE_S = 270.0  # of these, what the table may take
STEPS = 23  # of which 3 warm up

IMAGENET = "data=random data.img_size=224 patch=16"
ROWS: dict[str, tuple[str, list[int]]] = {
    "Ti/16": (f"model=tiny {IMAGENET}", [1024, 512, 256]),
    "S/16": (f"model=small {IMAGENET}", [1024, 512, 256]),
    "B/16": (f"model=base {IMAGENET}", [512, 256, 128, 64]),
    "L/16": (f"model=large {IMAGENET}", [256, 128, 64, 32]),
    "B/8": (f"model=base {IMAGENET} patch=8", [128, 64, 32, 16]),
    "Ti, 5x5 stride 2, 32 px": ("model=tiny embed=overlap data=random data.img_size=32", [1024, 512, 256]),
    "Ti, 5x5 stride 2, 224 px": (
        "model=tiny embed=overlap data=random data.img_size=224 max_gmacs=1000",
        [64, 32, 16, 8],
    ),
}
REHEARSAL: dict[str, tuple[str, list[int]]] = {
    "micro/8": ("model=micro data=random data.img_size=32 patch=8 max_gmacs=1e-6", [64, 16]),
    "micro, 5x5 stride 2": ("model=micro embed=overlap data=random data.img_size=16 compile=false", [2**20, 16]),
}
FIGURES = ("images_per_s", "tokens_per_s", "step_ms_median", "step_ms_p95", "data_wait_frac", "tflops_per_gpu", "mfu")
MEMORY = ("gpu_peak_allocated_gib", "gpu_peak_reserved_gib", "gpu_alloc_retries", "cpu_rss_gib")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks", help="folder of the file")
    asked = parser.parse_args()
    if asked.device == "cuda" and not torch.cuda.is_available():
        print("error: torch sees no CUDA GPU here: use --device cpu to see that this command runs", file=sys.stderr)
        raise SystemExit(2)
    started = time.perf_counter()
    date = datetime.now(UTC)
    rehearsal = asked.device == "cpu"
    rows = [
        measure(name, arguments, sizes, asked.device, started + TABLE_S)
        for name, (arguments, sizes) in (REHEARSAL if rehearsal else ROWS).items()
    ]
    tested = run_tests(asked.device, started + LIMIT_S)
    evidence = {
        "date": date.isoformat(timespec="seconds"),
        "rehearsal": rehearsal,
        "device": device(asked.device),
        **environment(),
        "rows": rows,
        "tests": tested,
        "wall_s": time.perf_counter() - started,
    }
    asked.out.mkdir(parents=True, exist_ok=True)
    name = re.sub(r"[^a-z0-9]+", "-", evidence["device"]["name"].lower()).strip("-")
    path = asked.out / f"{name}-{date:%Y-%m-%d}.json"
    path.write_text(json.dumps(evidence, indent=2) + "\n")
    print(f"wrote {path}: {sum('images_per_s' in row for row in rows)} of {len(rows)} rows, {tested['counts']}")


def measure(name: str, arguments: str, sizes: list[int], device: str, deadline: float) -> dict[str, Any]:
    """A row of the table: the figures, or why there are none."""
    row: dict[str, Any] = {"name": name, "arguments": arguments}
    for size in sizes:
        left = deadline - time.perf_counter()
        if left < 5:
            return row | {"left_out": "there was no time left"}
        more = [f"batch_size={size}", f"data.train_size={STEPS * size}", f"data.eval_size={min(size, 64)}"]
        more += [
            "epochs=1",
            "log_every=10",
            "logger=none",
            f"trainer.accelerator={'gpu' if device == 'cuda' else device}",
        ]
        with tempfile.TemporaryDirectory() as folder:
            line = [sys.executable, str(ROOT / "train.py"), *arguments.split(), *more, f"runs_dir={folder}"]
            done = finished(line, left)
            records = list(Path(folder).rglob("run.json"))
            if records:
                result = json.loads(records[0].read_text())["result"]
                figures = {k: result[f"final/{k}"] for k in (*FIGURES, *MEMORY) if f"final/{k}" in result}
                model = {k: result[f"model/{k}"] for k in ("tokens", "params_m", "gmacs")}
                print(f"{name}: {figures['images_per_s']:,.0f} images/s at {size} images a step", flush=True)
                return row | {"batch_size": size} | model | figures
        if done is None:
            return row | {"left_out": f"{size} images a step took longer than the {left:.0f} s that were left"}
        row["larger"] = f"{size} images a step: {reason(done)}"
    return row | {"left_out": "none of the batches fits"}


def finished(line: list[str], seconds: float) -> str | None:
    """What a command said on stderr and stdout, None if it was stopped for its time."""
    with suppress(subprocess.TimeoutExpired):
        done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=seconds, check=False)
        return done.stdout + done.stderr
    return None


def reason(said: str) -> str:
    """The line of an error that says most."""
    lines = [line for line in said.splitlines() if re.search(r"error: |OutOfMemory|Error: ", line)]
    return (lines or said.splitlines() or ["it said nothing"])[-1][:300]


def run_tests(device: str, deadline: float) -> dict[str, Any]:
    """The tests marked `gpu`, as many as there is time for; of a CPU, two of those that go the same way."""
    chosen = ["-m", "gpu"] if device == "cuda" else ["-k", "step_in_bf16 and conv and rope", "-m", "not gpu"]
    line = [sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider", "--color=no", "tests/test_gpu.py", *chosen]
    workers = min(8, (os.cpu_count() or 1) // 2)
    if device == "cuda" and workers > 1 and importlib.util.find_spec("xdist"):
        line += ["-n", str(workers)]
    with tempfile.TemporaryFile("w+") as out:
        try:
            left = max(1.0, deadline - time.perf_counter())
            code = subprocess.run(line, cwd=ROOT, stdout=out, stderr=out, timeout=left, check=False).returncode
        except subprocess.TimeoutExpired:
            code = None
        out.seek(0)
        said = out.read()
    outcomes = {}
    for test, outcome in re.findall(r"(tests/\S+::[^\s\[]+(?:\[[^\]]*\])?) (PASSED|FAILED|ERROR|SKIPPED)", said):
        outcomes[test] = outcome
    for outcome, test in re.findall(r"(PASSED|FAILED|ERROR|SKIPPED) (tests/\S+::[^\s\[]+(?:\[[^\]]*\])?)", said):
        outcomes[test] = outcome  # as xdist says it
    counts = {o.lower(): sum(v == o for v in outcomes.values()) for o in ("PASSED", "FAILED", "ERROR", "SKIPPED")}
    return {
        "command": " ".join(["python", *line[1:]]),
        "exit_code": code,
        "ended": "all were run" if code is not None else "stopped for their time",
        "counts": counts,
        "not_passed": {test: outcome for test, outcome in outcomes.items() if outcome != "PASSED"},
        "said": [] if code == 0 else said.splitlines()[-60:],
    }


def device(kind: str) -> dict[str, Any]:
    """Name and software of the device."""
    if kind == "cpu":
        return {"name": "cpu"}
    properties = torch.cuda.get_device_properties(0)
    found = {"name": properties.name, "count": torch.cuda.device_count(), "memory_gib": properties.total_memory / 2**30}
    found |= {"cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}
    with suppress(OSError, subprocess.CalledProcessError):
        query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        found["driver"] = subprocess.run(query, capture_output=True, text=True, check=True).stdout.splitlines()[0]
    return found


if __name__ == "__main__":
    main()
