"""Speed and memory of training, measured for every arm of a study: one run at a time, on an idle machine.

Each measurement is train.py itself in a process of its own, for a few steps; its figures are those of track/meter.py.
Rounds are interleaved, so that a machine that changes its speed changes that of all arms. Arms whose steps compute the
same are measured once.
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
from patchbench.config.mistakes import OBJECTIONS, explain
from patchbench.config.names import SWEEP
from patchbench.config.options import CONF, EXPERIMENTS
from patchbench.config.plan import folder_of, overrides, parts_at, read_study, rungs
from patchbench.machine import cores, write_whole
from patchbench.runs.provenance import commit, environment
from patchbench.runs.records import device
from patchbench.runs.sums import write_sums
from patchbench.sweep.pool import RANK_VARIABLES, cause, kill, warm, warm_context
from patchbench.track.busy import counting

PARTIAL = "costs.partial.csv"  # beside FILE, until all is measured
ATTEMPTS, PATIENCE_S, LOOK_S = 3, 60.0, 0.5
RUN = ("logger=none", "keep_checkpoints=none", "analyze=false", "eval.img_size=[]", "eval.shuffle=[]", "eval.move=[]")


@dataclass(frozen=True)
class Arm:
    """An arm of a part, with its computation; see `computation`."""

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
    """Measure what costs.csv lacks, and write it whole; returns its path. What was measured before an end is kept.

    again: measure every arm anew. busy: measure though other processes run, which the column busy then shows.
    ValueError where the study cannot be, where an arm does not run, and, without `busy`, where the machine is not idle.
    """
    if rounds < 1 or steps < 20:
        raise ValueError(f"rounds={rounds} steps={steps}: give rounds=1 or more, and steps=20 or more")
    arms = arms_of(name, scale, experiments)
    folder = folder_of(name, scale, runs_dir, experiments)
    here = this_device()
    rows = known(folder, arms, here, rounds, again=again)
    first: dict[str, Arm] = {}
    for arm in arms:
        first.setdefault(arm.computation, arm)
    report_sharing(arms, first)
    missing = [(n, arm) for n in range(rounds) for arm in first.values() if (arm.computation, n) not in rows]
    began = time.monotonic()
    for done, (n, arm) in enumerate(missing):
        row = measured(arm, n, steps, busy=busy) | {"commit": commit(), "device": here}
        rows[arm.computation, n] = row
        write(folder / PARTIAL, list(rows.values()))
        left = (time.monotonic() - began) / (done + 1) * (len(missing) - done - 1)
        print(
            f"{done + 1}/{len(missing)}  {arm.part}, {arm.name}, round {n + 1}: {row['images_per_s']:,.0f} images/s, "
            f"{row['step_ms']:.3g} ms a step, {row['memory']:.2f} GiB; others used {row['busy']:.2f} cores; "
            f"about {left:.0f} s left",
            flush=True,
        )
    found = [rows[arm.computation, n] | {"part": arm.part, "arm": arm.name} for arm in arms for n in range(rounds)]
    write(folder / FILE, found)
    write_sums(folder, [FILE])
    (folder / PARTIAL).unlink(missing_ok=True)
    report(pd.DataFrame(found))
    return folder / FILE


def arms_of(name: str, scale: str, experiments: Path) -> list[Arm]:
    """Every arm of every part of a study at a scale."""
    study = read_study(name, experiments)
    found = []
    for part in parts_at(study, scale):
        for arm in part.arms:
            rung = rungs(part, study.scales[scale])[0]  # all budgets have one speed
            given = overrides(study, scale, part, arm, rung)
            try:
                cfg = composed(given)
            except OBJECTIONS as error:
                raise ValueError(f"study {name}: part {part.name}, arm {arm}: {explain(error, given)}") from error
            found.append(Arm(part.name, arm, given, computation(cfg, cfg.hydra.runtime.choices), cfg.batch_size))
    return found


def this_device() -> str:
    """The device as records name it; on a CPU, with the number of threads that a run has when it runs alone."""
    machine = environment()["machine"]
    threads = os.environ.get("OMP_NUM_THREADS") or str(cores())
    return device(machine) if machine["gpus"] else f"{device(machine)}, {threads} thread{'s' * (threads != '1')}"


def known(
    folder: Path, arms: list[Arm], here: str, rounds: int, *, again: bool
) -> dict[tuple[str, int], dict[str, Any]]:
    """Rows that need not be measured, by computation and round: those of costs.csv, and those of a start cut off.

    again: of the latter alone. ValueError where costs.csv is of another device: to mix two would compare machines.
    """
    partial = read_costs(folder, PARTIAL)
    tables = [partial[partial["device"] == here]]
    if not again:
        tables.insert(0, read_costs(folder))
    found: dict[tuple[str, int], dict[str, Any]] = {}
    for table in tables:
        rows = table[table["computation"].isin({arm.computation for arm in arms}) & (table["round"] < rounds)]
        if other := set(rows["device"]) - {here}:
            raise ValueError(
                f"{folder / FILE} was measured on {', '.join(sorted(other))}, and this is {here}: --again measures "
                "every arm here, and changes the budgets of arms that train for equal time"
            )
        found |= {(row["computation"], int(row["round"])): row for row in rows.to_dict("records")}
    return found


def measured(arm: Arm, number: int, steps: int, *, busy: bool) -> dict[str, Any]:
    """One measurement of an arm, made again where other processes began to run meanwhile. number: of the round."""
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
    """Train an arm for so many steps; the figures of its record, and the cores that others used meanwhile."""
    with tempfile.TemporaryDirectory() as folder, counting() as used:
        own = ("budget=steps", f"budget.value={steps}", f"limit_batches={steps}", f"seed={number}")
        arguments = [*arm.overrides, *RUN, *own, f"runs_dir={folder}", f"hydra.run.dir={folder}/run"]
        env = {name: value for name, value in os.environ.items() if name not in RANK_VARIABLES}
        env[SWEEP] = FILE  # as in a sweep, options that this budget does not read are no mistake
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
    said = False
    while True:
        with counting() as used:
            time.sleep(LOOK_S)
        if used[0] <= IDLE:
            return
        if time.monotonic() > until:
            raise ValueError(not_idle(used[0]))
        if not said:
            print(f"other processes use {used[0]:.2f} cores: waiting for an idle machine", flush=True)
            said = True


def not_idle(used: float) -> str:
    return (
        f"other processes use {used:.2f} of {cores()} cores, more than {IDLE:g}, so speed cannot be measured: "
        "end them and start again, which goes on from here; --busy measures nevertheless, and the column busy shows it"
    )


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    table = pd.DataFrame(rows)
    write_whole(path, table[[name for name in COLUMNS if name in table]].to_csv(index=False, lineterminator="\n"))


def report_sharing(arms: list[Arm], first: Mapping[str, Arm]) -> None:
    """Print which arms are measured as another."""
    for key, arm in first.items():
        alike = [f"{other.part}, {other.name}" for other in arms if other.computation == key]
        if len(alike) > 1:
            print(f"measured once, as {arm.part}, {arm.name}, since their steps compute the same: {'; '.join(alike)}")


def report(table: pd.DataFrame) -> None:
    """Print the median and the range of every arm."""
    for (part, arm), rows in table.groupby(["part", "arm"], sort=False):
        speed = rows["images_per_s"]
        print(
            f"{part}, {arm}: {speed.median():,.0f} images/s ({speed.min():,.0f} to {speed.max():,.0f}), "
            f"{rows['step_ms'].median():.3g} ms a step, {rows['memory'].median():.2f} GiB"
        )
    if (disturbed := int((table["busy"] > IDLE).sum())) > 0:
        print(f"NOT IDLE: in {disturbed} of {len(table)} rows other processes used more than {IDLE:g} cores, see busy")
