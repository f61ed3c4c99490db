"""Evidence from a GPU in one file: limits of the device, speed and memory of training, peers, and the tests.

python scripts/gpu_evidence.py                  within 9 minutes, into benchmarks/<device>-<time>.json
python scripts/gpu_evidence.py seconds=300      what there is time for; the goal's row comes first
python scripts/gpu_evidence.py device=cpu       tiny networks on the CPU, to see that it runs; its figures mean nothing
python scripts/gpu_evidence.py out=<folder>     the file into another folder

The file is written after every item, so whatever ends this early leaves what was measured.
"""

import importlib.util
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from patchbench.checks import one_of
from patchbench.config.arguments import errors_in_one_line, read

ROOT = Path(__file__).parents[1]
Item = tuple[str, float, Callable[[], Any]]  # a name, about how many seconds it takes, and what measures it


def main(arguments: list[str]) -> None:
    began = time.perf_counter()
    with errors_in_one_line():
        options = read(__doc__, arguments, {"device": "cuda", "out": None, "seconds": "540"}).options
        kind, folder = options["device"], Path(options["out"] or ROOT / "benchmarks")
        one_of("device", kind, ("cuda", "cpu"))
        if not options["seconds"].isdigit():
            raise ValueError(f"seconds={options['seconds']} is no number of seconds: use seconds=300")
        import torch  # seconds of imports, not needed for --help

        if kind == "cuda" and not torch.cuda.is_available():
            raise ValueError("torch sees no CUDA GPU here: use device=cpu to see that this command runs")
    from patchbench.commands.bench_gpu import Evidence
    from patchbench.config.names import register
    from patchbench.runs.provenance import environment

    register()
    date = datetime.now(UTC)
    facts = {
        "date": date.isoformat(timespec="seconds"),
        "rehearsal": kind == "cpu",
        "device": device(kind),
        **environment(),
    }
    name = re.sub(r"[^a-z0-9]+", "-", facts["device"]["name"].lower()).strip("-")
    evidence = Evidence(folder / f"{name}-{date:%Y-%m-%d-%H%M}.json", facts, began + float(options["seconds"]))
    for item in items(kind, evidence):
        evidence.add(*item)
    evidence.facts["wall_s"] = time.perf_counter() - began
    evidence.write()
    done = [item for item in facts["items"].values() if not {"error", "left_out"} & set(map(str, item))]
    print(f"wrote {evidence.path}: {len(done)} of {len(facts['items'])} items")


def items(kind: str, evidence: Any) -> list[Item]:
    """List what is measured, the most important first."""
    import torch

    from patchbench.commands import bench_gpu as bench

    on, real = torch.device(kind), kind == "cuda"
    base = f"model=base {bench.IMAGENET}" if real else "model=micro data=random data.img_size=32 patch=8"
    size, steps = (256, 150) if real else (16, 12)

    def run(more: str = "", of: str = base, batch: int = size, steps: int = 40) -> Callable[[], Any]:
        short = steps if real else 12
        return partial(bench.trained, f"{of} {more}", batch_size=batch if real else 16, steps=short, device=kind)

    def model(name: str, patch: int = 16, img_size: int = 224) -> str:
        shape = f"data=random data.num_classes=1000 data.img_size={img_size} patch={patch}"
        return f"model={name} {shape}" if real else base

    def alone(peer: str | None = None) -> Callable[[], Any]:
        return partial(bench.bare, base, batch_size=size, steps=30 if real else 3, device=kind, peer=peer)

    temporary = tempfile.mkdtemp()
    return [
        ("ceilings", 8, partial(bench.ceilings, on, 1 if real else 32)),
        ("B/16", 30, run(steps=steps)),
        ("B/16 profiled", 10, partial(bench.profiled, base, batch_size=size, device=kind)),
        ("B/16 bare loop", 6, alone()),
        ("B/16 timm, eager", 6, alone("vit_base_patch16_224" if real else "test_vit")),
        ("B/16 residual=bfloat16", 15, run("residual=bfloat16")),
        ("Ti/4 at 32 px, b128", 10, run(of=model("tiny", 4, 32), batch=128, steps=60)),
        ("Ti/4 at 32 px, b128, no graphs", 8, run("cuda_graphs=false", model("tiny", 4, 32), 128, 60)),
        ("Ti/4 at 32 px, b1024", 10, run(of=model("tiny", 4, 32), batch=1024, steps=60)),
        ("Ti/4 at 32 px, b1024, no graphs", 8, run("cuda_graphs=false", model("tiny", 4, 32), 1024, 60)),
        *((f"waits, augment={a}", 3, partial(bench.waits, f"{SMALL} augment={a}", device=kind)) for a in AUGMENTS),
        ("tests", 50, lambda: run_tests(kind, min(75.0, evidence.left() - 5))),
        ("processes", 45, partial(bench.runs_in_processes, ROOT, temporary, kind, 45.0)),
        ("Ti/16", 12, run(of=model("tiny"), batch=1024)),
        ("S/16", 12, run(of=model("small"), batch=512)),
        ("L/16", 18, run(of=model("large"), batch=256, steps=20)),
        ("B/16 pos=rope", 13, run("pos=rope")),
        ("B/16 pos=relbias", 14, run("pos=relbias")),
        ("Ti, 5x5 stride 2, 224 px", 15, run(of=f"{model('tiny')} embed=overlap max_gmacs=1000", batch=64, steps=8)),
        ("attention", 8, partial(bench.attention, on, 64 if real else 2, 12, TOKENS[: 5 if real else 1])),
        ("B/16 pos=alibi", 12, run("pos=alibi")),
        ("B/16 compile=false", 9, run("compile=false")),
    ]


SMALL = "model=micro data=random data.img_size=32 patch=8 compile=false"
TOKENS = (64, 65, 196, 197, 784)
AUGMENTS = ("none", "light", "deit", "three")


def run_tests(device: str, seconds: float) -> dict[str, Any]:
    """Run tests marked `gpu`: each scheme with one embedding, each embedding with one scheme; on a CPU two of them."""
    chosen = ["-m", "gpu", "-k", "conv or learned or memory"]
    if device == "cpu":
        chosen = ["-k", "step_in_bf16 and conv and rope", "-m", "not gpu"]
    quiet = ["-p", "no:cacheprovider", "-p", "no:benchmark", "--color=no", "--show-capture=no"]
    line = [sys.executable, "-m", "pytest", "-v", *quiet, "tests/test_gpu.py", *chosen]
    workers = min(8, (os.cpu_count() or 1) // 2)
    if device == "cuda" and workers > 1 and importlib.util.find_spec("xdist"):
        line += ["-n", str(workers)]
    with tempfile.TemporaryFile("w+") as out:
        try:
            code = subprocess.run(line, cwd=ROOT, stdout=out, stderr=out, timeout=seconds, check=False).returncode
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
    """Return name, software and clocks of the device, as it is before it works."""
    import torch

    if kind == "cpu":
        return {"name": "cpu"}
    properties = torch.cuda.get_device_properties(0)
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


if __name__ == "__main__":
    main(sys.argv[1:])
