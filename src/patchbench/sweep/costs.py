"""Speed and memory of training, measured for every arm of a study: one run at a time, on an idle machine.

Each measurement runs train.py in a process of its own for a few steps, with the metrics of track/meter.py. All arms are
measured in each round, so that a change of the speed of the machine affects all arms. Arms with equal computations are
measured once.
"""

import json
import os
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from patchbench.config.compose import composed
from patchbench.config.equal_time import COLUMNS, FILE, IDLE, computation, read_costs
from patchbench.config.mistakes import HYDRA_ERRORS, explain
from patchbench.config.names import SWEEP
from patchbench.config.options import CONF, EXPERIMENTS
from patchbench.config.plan import folder_of, overrides, parts_at, read_study, rungs
from patchbench.machine import cores, write_whole
from patchbench.runs.provenance import commit, environment
from patchbench.runs.records import device
from patchbench.runs.sums import write_sums
from patchbench.sweep.pool import RANK_VARIABLES, cause, kill, warm, warm_context
from patchbench.track.busy import count_busy_cores

PARTIAL = "costs.partial.csv"  # in the folder of FILE, until all measurements are done
ATTEMPTS, PATIENCE_S, LOOK_S = 3, 60.0, 0.5
RUN = ("logger=none", "keep_checkpoints=none", "analyze=false", "eval.img_size=[]", "eval.shuffle=[]", "eval.move=[]")


@dataclass(frozen=True)
class Arm:
    """An arm of a part. computation: see `computation` in config/equal_time.py."""

    part: str
    name: str
    overrides: tuple[str, ...]
    computation: str
    batch_size: int


def measure(
    name: str,
    scale: str,
    *,
    rounds: int,
    steps: int,
    again: bool,
    busy: bool,
    runs_dir: Path,
    experiments: Path = EXPERIMENTS,
) -> Path:
    """Make the measurements that are missing in costs.csv, write the file, and return its path.

    If the process is interrupted, its measurements are kept, and the next start continues. again: measure all arms
    anew. busy: measure although other processes run; the column busy shows them. ValueError for a wrong study or scale,
    for an arm that does not run, and, without `busy`, if the machine is not idle.
    """
    if rounds < 1 or steps < 20:
        raise ValueError(f"rounds={rounds} steps={steps}: give rounds=1 or more, and steps=20 or more")
    arms = arms_of(name, scale, experiments)
    folder = folder_of(name, scale, runs_dir, experiments)
    this = this_device()
    rows = measured_rows(folder, arms, this, rounds, again=again)
    first: dict[str, Arm] = {}
    for arm in arms:
        first.setdefault(arm.computation, arm)
    print_sharing(arms, first)
    missing = [(n, arm) for n in range(rounds) for arm in first.values() if (arm.computation, n) not in rows]
    began = time.monotonic()
    for done, (n, arm) in enumerate(missing):
        row = measured(arm, n, steps, busy=busy) | {"commit": commit(), "device": this}
        rows[arm.computation, n] = row
        write(folder / PARTIAL, list(rows.values()))
        left = (time.monotonic() - began) / (done + 1) * (len(missing) - done - 1)
        print(
            f"{done + 1}/{len(missing)}  {arm.part}, {arm.name}, round {n + 1}: {row['images_per_s']:,.0f} images/s, "
            f"{row['step_ms']:.3g} ms a step, {row['memory']:.2f} GiB; others used {row['busy']:.2f} cores; "
            f"about {left:.0f} s left",
            flush=True,
        )
    lines = [rows[arm.computation, n] | {"part": arm.part, "arm": arm.name} for arm in arms for n in range(rounds)]
    write(folder / FILE, lines)
    write_sums(folder, [FILE])
    (folder / PARTIAL).unlink(missing_ok=True)
    print_summary(pd.DataFrame(lines))
    return folder / FILE


def arms_of(name: str, scale: str, experiments: Path) -> list[Arm]:
    """List all arms of all parts of a study at a scale."""
    study = read_study(name, experiments)
    arms = []
    for part in parts_at(study, scale):
        for arm in part.arms:
            rung = rungs(part, study.scales[scale])[0]  # speed is the same for all budgets
            given = overrides(study, scale, part, arm, rung)
            try:
                cfg = composed(given)
            except HYDRA_ERRORS as error:
                raise ValueError(f"study {name}: part {part.name}, arm {arm}: {explain(error, given)}") from error
            arms.append(Arm(part.name, arm, given, computation(cfg, cfg.hydra.runtime.choices), cfg.batch_size))
    return arms


def this_device() -> str:
    """Name the device as in a record; for a CPU with the number of threads of a single run."""
    machine = environment()["machine"]
    threads = os.environ.get("OMP_NUM_THREADS") or str(cores())
    return device(machine) if machine["gpus"] else f"{device(machine)}, {threads} thread{'s' * (threads != '1')}"


def measured_rows(
    folder: Path, arms: list[Arm], this: str, rounds: int, *, again: bool
) -> dict[tuple[str, int], dict[str, Any]]:
    """Return the rows that are already measured, by computation and round: those of costs.csv and of PARTIAL.

    this: this device. again: only those of PARTIAL. ValueError if costs.csv is of another device, since arms must be
    compared on one device.
    """
    partial = read_costs(folder, PARTIAL)
    tables = [partial[partial["device"] == this]]
    if not again:
        tables.insert(0, read_costs(folder))
    measured: dict[tuple[str, int], dict[str, Any]] = {}
    for table in tables:
        rows = table[table["computation"].isin({arm.computation for arm in arms}) & (table["round"] < rounds)]
        if other := set(rows["device"]) - {this}:
            raise ValueError(
                f"{folder / FILE} was measured on {', '.join(sorted(other))}, and this is {this}: --again measures "
                "every arm here, and changes the budgets of arms that train for equal time"
            )
        measured |= {(row["computation"], int(row["round"])): row for row in rows.to_dict("records")}
    return measured


def measured(arm: Arm, number: int, steps: int, *, busy: bool) -> dict[str, Any]:
    """Measure an arm, and repeat the measurement if other processes have run meanwhile. number: number of the round."""
    for _ in range(ATTEMPTS):
        if not busy:
            wait_for_idle_machine()
        result, used = run(arm, number, steps)
        if busy or used <= IDLE:
            memory = result.get("final/gpu_peak_allocated_gib", result["final/cpu_rss_gib"])
            return {
                "round": number,
                "images_per_s": result["final/images_per_s"],
                "step_ms": result["final/step_ms_median"],
                "memory": memory,
                "tokens": result.get("model/tokens"),
                "gmacs": result.get("model/gmacs"),
                "busy": round(used, 3),
                "batch_size": arm.batch_size,
                "computation": arm.computation,
            }
        print(f"{arm.part}, {arm.name}: other processes used {used:.2f} cores meanwhile: once more", flush=True)
    raise ValueError(not_idle(used))


def run(arm: Arm, number: int, steps: int) -> tuple[dict[str, float], float]:
    """Train an arm for `steps` steps; return the results of its record, and the cores that other processes used."""
    with tempfile.TemporaryDirectory() as folder, count_busy_cores() as used:
        own = ("budget=steps", f"budget.value={steps}", f"limit_batches={steps}", f"seed={number}")
        arguments = [*arm.overrides, *RUN, *own, f"runs_dir={folder}", f"hydra.run.dir={folder}/run"]
        env = {name: value for name, value in os.environ.items() if name not in RANK_VARIABLES}
        env[SWEEP] = FILE  # as in a sweep, options that this budget does not read are no error
        log = Path(folder, "log.txt")
        job = ("warm:run_cell", str(CONF.parent / "train.py"), arguments, env, log, None, 0.0)
        process = warm_context().Process(target=warm, args=job)
        process.start()
        try:
            process.join()
        finally:
            kill(process)
        record = Path(folder, "run", "run.json")
        if process.exitcode or not record.exists():
            raise ValueError(f"part {arm.part}, arm {arm.name} does not run: {cause(process.exitcode, log, 0)}")
        result = json.loads(record.read_text())["result"]
    if "final/images_per_s" not in result:
        raise ValueError(f"part {arm.part}, arm {arm.name} has no steady step within steps={steps}: use more")
    return result, used[0]


def wait_for_idle_machine() -> None:
    """Wait until other processes use no more than IDLE cores. ValueError if they still do after PATIENCE_S seconds."""
    until = time.monotonic() + PATIENCE_S
    printed = False
    while True:
        with count_busy_cores() as used:
            time.sleep(LOOK_S)
        if used[0] <= IDLE:
            return
        if time.monotonic() > until:
            raise ValueError(not_idle(used[0]))
        if not printed:
            print(f"other processes use {used[0]:.2f} cores: waiting for an idle machine", flush=True)
            printed = True


def not_idle(used: float) -> str:
    return (
        f"other processes use {used:.2f} of {cores()} cores, more than {IDLE:g}, so speed cannot be measured: "
        "end them and start again, which continues here; --busy measures nevertheless, and the column busy shows it"
    )


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    table = pd.DataFrame(rows)
    write_whole(path, table[[name for name in COLUMNS if name in table]].to_csv(index=False, lineterminator="\n"))


def print_sharing(arms: list[Arm], first: Mapping[str, Arm]) -> None:
    """Print the arms that are measured once, since their computations are equal."""
    for key, arm in first.items():
        alike = [f"{other.part}, {other.name}" for other in arms if other.computation == key]
        if len(alike) > 1:
            print(f"measured once, as {arm.part}, {arm.name}, since their computations are equal: {'; '.join(alike)}")


def print_summary(table: pd.DataFrame) -> None:
    """Print median and range of the speed of each arm, and warn of measurements on a busy machine."""
    for (part, arm), rows in table.groupby(["part", "arm"], sort=False):
        speed = rows["images_per_s"]
        print(
            f"{part}, {arm}: {speed.median():,.0f} images/s ({speed.min():,.0f} to {speed.max():,.0f}), "
            f"{rows['step_ms'].median():.3g} ms a step, {rows['memory'].median():.2f} GiB"
        )
    if (disturbed := int((table["busy"] > IDLE).sum())) > 0:
        print(f"NOT IDLE: in {disturbed} of {len(table)} rows other processes used more than {IDLE:g} cores, see busy")
