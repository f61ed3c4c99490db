"""Evidence from a GPU in one file: the tests that need a GPU, and the speed and memory of training.

python scripts/gpu_evidence.py                  within 8 minutes, into benchmarks/<device>-<date>.json
python scripts/gpu_evidence.py device=cpu       tiny networks on the CPU, to see that it runs; its figures mean nothing
python scripts/gpu_evidence.py out=<folder>     the file into another folder

Every row of the table is a run of train.py on random images, with the largest batch of a short list that fits.
"""

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

from patchbench.checks import one_of
from patchbench.config.arguments import errors_in_one_line, read

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


def main(arguments: list[str]) -> None:
    with errors_in_one_line():
        options = read(__doc__, arguments, {"device": "cuda", "out": None}).options
        kind, folder = options["device"], Path(options["out"] or ROOT / "benchmarks")
        one_of("device", kind, ("cuda", "cpu"))
        import torch  # seconds of imports, not needed for --help

        from patchbench.machine import whole_file
        from patchbench.runs.provenance import environment

        if kind == "cuda" and not torch.cuda.is_available():
            raise ValueError("torch sees no CUDA GPU here: use device=cpu to see that this command runs")
    started = time.perf_counter()
    date = datetime.now(UTC)
    rehearsal = kind == "cpu"
    rows = [
        measure(name, command, sizes, kind, started + TABLE_S)
        for name, (command, sizes) in (REHEARSAL if rehearsal else ROWS).items()
    ]
    tests = run_tests(kind, started + LIMIT_S)
    evidence = {
        "date": date.isoformat(timespec="seconds"),
        "rehearsal": rehearsal,
        "device": device(kind),
        **environment(),
        "rows": rows,
        "tests": tests,
        "wall_s": time.perf_counter() - started,
    }
    name = re.sub(r"[^a-z0-9]+", "-", evidence["device"]["name"].lower()).strip("-")
    path = folder / f"{name}-{date:%Y-%m-%d}.json"
    with whole_file(path) as file:
        file.write(json.dumps(evidence, indent=2) + "\n")
    print(f"wrote {path}: {sum('images_per_s' in row for row in rows)} of {len(rows)} rows, {tests['counts']}")


def measure(name: str, arguments: str, sizes: list[int], device: str, deadline: float) -> dict[str, Any]:
    """Return a row of the table: its figures, or the reason why there are none."""
    row: dict[str, Any] = {"name": name, "arguments": arguments}
    for size in sizes:
        left = deadline - time.perf_counter()
        if left < 5:
            return row | {"left_out": "no time was left"}
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
    """Return the output of a command on stdout and stderr; None if its time ran out."""
    with suppress(subprocess.TimeoutExpired):
        done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=seconds, check=False)
        return done.stdout + done.stderr
    return None


def reason(output: str) -> str:
    """Return the last line of an output that names an error."""
    lines = [line for line in output.splitlines() if re.search(r"error: |OutOfMemory|Error: ", line)]
    return (lines or output.splitlines() or ["no output"])[-1][:300]


def run_tests(device: str, deadline: float) -> dict[str, Any]:
    """Run the tests marked `gpu`, as many as there is time for; on a CPU two tests of the same kind."""
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
        output = out.read()
    outcomes = {}
    for test, outcome in re.findall(r"(tests/\S+::[^\s\[]+(?:\[[^\]]*\])?) (PASSED|FAILED|ERROR|SKIPPED)", output):
        outcomes[test] = outcome
    for outcome, test in re.findall(r"(PASSED|FAILED|ERROR|SKIPPED) (tests/\S+::[^\s\[]+(?:\[[^\]]*\])?)", output):
        outcomes[test] = outcome  # the order of xdist
    counts = {o.lower(): sum(v == o for v in outcomes.values()) for o in ("PASSED", "FAILED", "ERROR", "SKIPPED")}
    return {
        "command": " ".join(["python", *line[1:]]),
        "exit_code": code,
        "ended": "all were run" if code is not None else "stopped when the time was over",
        "counts": counts,
        "not_passed": {test: outcome for test, outcome in outcomes.items() if outcome != "PASSED"},
        "output": [] if code == 0 else output.splitlines()[-60:],
    }


def device(kind: str) -> dict[str, Any]:
    """Return name and software of the device."""
    import torch

    if kind == "cpu":
        return {"name": "cpu"}
    properties = torch.cuda.get_device_properties(0)
    facts = {"name": properties.name, "count": torch.cuda.device_count(), "memory_gib": properties.total_memory / 2**30}
    facts |= {"cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}
    with suppress(OSError, subprocess.CalledProcessError):
        query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        facts["driver"] = subprocess.run(query, capture_output=True, text=True, check=True).stdout.splitlines()[0]
    return facts


if __name__ == "__main__":
    main(sys.argv[1:])
