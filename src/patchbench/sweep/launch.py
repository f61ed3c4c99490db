"""A sweep on one machine: compose and check all cells, then run each cell in a process of its own."""

import math
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

from hydra.core.override_parser.types import Quote, QuotedString
from omegaconf import DictConfig, OmegaConf

from patchbench.config import errors
from patchbench.config.errors import Refused, refusing
from patchbench.config.identity import has_analysis, has_eval_results
from patchbench.config.names import SWEEP, sweep_name, sweep_name_of_command
from patchbench.config.origin import changes, other_run_message
from patchbench.config.unread import remarks_on_sweep
from patchbench.machine import cores, ignored_under_nohup
from patchbench.redact import without_secrets
from patchbench.runs import wandb_files
from patchbench.runs.record import read_record, validation_accuracy
from patchbench.sweep.cell import Cell, Composed, Facts
from patchbench.sweep.estimate import Estimate
from patchbench.sweep.knobs import Knobs
from patchbench.sweep.pool import ENDING, RANK_VARIABLES, Pool, warm, warm_context
from patchbench.sweep.view import (
    View,
    console,
    print_cells,
    print_costs,
    print_invalid,
    print_report_command,
    print_results,
)
from patchbench.words import count

Result = tuple[str | None, float | None, str]  # directory, validation accuracy, error
SWEEP_OPTIONS = ("hydra.mode", "hydra.launcher", "hydra/launcher", "hydra.sweep", "hydra/sweep", "hydra.run.dir")


@contextmanager
def environment_of_cells() -> Iterator[None]:
    """Set the environment variables that warm processes, and so the cells, inherit."""
    os.environ[SWEEP] = sweep_name() or sweep_name_of_command()  # group of the runs in W&B
    if "WANDB_SWEEP_ID" not in os.environ and (exported := os.environ.pop("WANDB_RUN_ID", None)):
        print(f"W&B: WANDB_RUN_ID={exported} is left out: each run of a sweep has an id of its own", file=sys.stderr)
    for name in RANK_VARIABLES:
        os.environ.pop(name, None)
    full_error = os.environ.pop("HYDRA_FULL_ERROR", None)  # set by `one_line_errors` for this process
    if errors.TRACEBACK:
        os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        yield
    finally:
        if full_error:
            os.environ["HYDRA_FULL_ERROR"] = full_error


@contextmanager
def exit_on_signals() -> Iterator[None]:
    """Exit on SIGHUP, SIGTERM or Ctrl-C in this block without a traceback; for use before the first cell starts."""

    def leave(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, leave) for number in ENDING if not ignored_under_nohup(number)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@environment_of_cells()
def launch(overrides: list[list[str]], first: int, config: DictConfig, knobs: Knobs) -> list[Result]:
    """Run all cells, and return their results. Refused if cells are invalid, SystemExit after a signal or a dry run.

    first: number of the first cell; a search launches a few cells at a time.
    """
    with refusing():
        knobs.check()
    given: Any = OmegaConf.to_container(config.hydra.overrides, resolve=False)  # interpolations differ between cells
    settings = [o for o in given["hydra"] if not o.startswith(SWEEP_OPTIONS)]
    where = folder_options(config)
    cells = cells_of(overrides, first, config)
    with exit_on_signals():
        gpus = check_cells(cells, settings + where, knobs)
    invalid = [cell for cell in cells if cell.state == "invalid"]
    jobs = number_of_jobs(knobs, cells, len(gpus))
    estimate = Estimate({cell.folder.parent for cell in cells if cell.composed})
    if knobs.dry_run:
        print_cells(cells, estimate.seconds, jobs)
    remarks = remarks_on_sweep(
        [cell.composed.unread for cell in cells if cell.composed],
        given["task"],
        grid=config.hydra.runtime.choices["hydra/sweeper"] in ("grid", "study"),
    )
    for remark in remarks:
        print(remark)
    if invalid:
        print_invalid(invalid)
        if knobs.on_invalid == "raise":
            raise Refused(
                f"{len(invalid)} of {count(len(cells), 'cell')} cannot run, see above: correct them, or skip them with "
                "hydra.launcher.on_invalid=skip"
            )
    if knobs.dry_run:
        raise SystemExit(0)

    def arguments(cell: Cell) -> list[str]:
        assert cell.composed
        # With rerun=true, the second attempt resumes from the checkpoint of the first.
        resume = ["rerun=false"] if cell.composed.rerun and cell.attempts > 1 and not cell.record.exists() else []
        folder = QuotedString(str(cell.folder), Quote.single).with_quotes()
        own = ["hydra.mode=RUN", f"hydra.job.num={cell.number}", f"hydra.run.dir={folder}"]
        return [f"--config-name={cell.config_name}", *cell.overrides, *resume, *settings, *own]

    if len(cells) > 1:
        print_costs(cells, estimate.seconds, jobs)
    pool = Pool(os.path.abspath(sys.argv[0]), arguments, knobs, gpus, jobs)
    with View(sweep_name() or "", cells, pool.running, estimate.seconds, jobs) as view:

        def ended(cell: Cell) -> None:
            if cell.state == "done":
                read_result(cell)
                estimate.learn(cell.record)
            view.ended(cell)

        for cell in cells:
            if cell.state == "skipped":
                view.ended(cell)
        received = pool.run([cell for cell in cells if cell.state == "waiting"], ended)
    print_results(cells)
    if config.hydra.runtime.choices["hydra/sweeper"] == "grid" and len(cells) > 1 and not received:
        print_report_command(config.runs_dir)
    print_unsynced(cells)
    if other := sum(cell.state == "skipped" and cell.other_code for cell in cells):
        print(f"{other} of the cells that were done before used other code than today; rerun=true trains them again")
    if received:
        print("stopped by a signal; the same command resumes the sweep")
        raise SystemExit(128 + received)
    return [result(cell.same_as or cell) for cell in cells]


def print_unsynced(cells: Sequence[Cell]) -> None:
    """Print the command that uploads the offline runs of this sweep to W&B."""
    run_ids_by_folder: dict[Path, list[str]] = {}
    for cell in cells:
        if cell.composed and cell.attempts and (run_id := wandb_files.run_id(cell.folder)):
            run_ids_by_folder.setdefault(wandb_files.wandb_dir(Path(cell.composed.cfg.runs_dir)), []).append(run_id)
    for place, run_ids in run_ids_by_folder.items():
        if line := wandb_files.sync_command(place, run_ids):
            print(f"W&B: offline; `wandb login`, then `{line}`, uploads the runs")


def result(cell: Cell) -> Result:
    """Return folder, accuracy and error of a cell that has ended."""
    if cell.state == "invalid":
        return None, math.nan, ""  # skipped on request: no failure, and no value for a sweeper
    return str(cell.folder), cell.value, cell.error


def folder_options(config: DictConfig) -> list[str]:
    """Return the overrides of the command line that name the folders of the cells."""
    given: Any = OmegaConf.to_container(config.hydra.overrides.hydra, resolve=False)
    return [override for override in given if override.startswith("hydra.sweep.")]


def cells_of(overrides: list[list[str]], first: int, config: DictConfig) -> list[Cell]:
    """Return the cells with these overrides, numbered from `first`."""
    names = titles(overrides, set(config.hydra.overrides.task))
    numbered = enumerate(zip(overrides, names, strict=True), first)
    return [Cell(own, title, n, config.hydra.job.config_name) for n, (own, title) in numbered]


def titles(overrides: Sequence[Sequence[str]], fixed: set[str]) -> list[str]:
    """Name each cell by the overrides in which the cells differ, or, if there are none, by all of its overrides.

    fixed: overrides of the command line; in a search, a single cell differs from the others by its further overrides.
    """
    shared = set.intersection(*map(set, overrides)) if len(overrides) > 1 else fixed
    if set().union(*overrides) <= shared:
        shared = set()
    return [without_secrets(" ".join(o for o in own if o not in shared)) or "defaults" for own in overrides]


def check_cells(cells: list[Cell], settings: list[str], knobs: Knobs) -> list[str]:
    """Compose and check all cells, set the state of cells that need not or cannot run, and return the GPU names."""
    what = f"checking {count(len(cells), 'cell')}"
    with warm_workers(len(cells)) as workers, console(stderr=True).status(what):  # printed in a terminal only
        num_gpus = workers.submit(warm, "check:gpus")
        compose_cells(cells, settings, workers)
        gpus = name_gpus(num_gpus.result())
        refuse_too_few_gpus(cells, len(gpus), knobs)
        build_cells(cells, workers)
    return gpus


@contextmanager
def warm_workers(tasks: int) -> Iterator[Executor]:
    """Yield warm processes that share this number of tasks; an error in the block ends them without waiting."""
    processes = min(cores(), tasks)
    initial: Any = {"initializer": warm, "initargs": ("warm:exit_with_parent",)}
    with ProcessPoolExecutor(processes, warm_context(), **initial) as workers:
        try:
            yield workers
        except BaseException:
            workers.shutdown(wait=False, cancel_futures=True)
            raise


def compose_cells(cells: list[Cell], settings: list[str], workers: Executor) -> None:
    """Compose the configurations of all cells, and find the cells that are done or that cannot be composed."""
    composing = [
        workers.submit(warm, "check:compose_cell", [*cell.overrides, *settings], cell.number, cell.config_name)
        for cell in cells
    ]
    for cell, future in zip(cells, composing, strict=True):
        store_outcome(cell, future.result())
    mark_done_and_duplicates(cells)


def build_cells(cells: list[Cell], workers: Executor) -> None:
    """Build each waiting cell once per group of cells that differ only in their seed, to find those that fail."""
    to_check: dict[str, list[Cell]] = {}  # groups of cells that differ only in their seed, which are checked once
    for cell in cells:
        if cell.state == "waiting" and cell.composed:
            to_check.setdefault(cell.composed.all_but_seed, []).append(cell)
    first_of_data: dict[str, str] = {}  # the first cell of each data set, so that one process alone downloads the set
    for key, (cell, *_) in to_check.items():
        assert cell.composed
        first_of_data.setdefault(cell.composed.data, key)
    first_of_each_set = set(first_of_data.values())
    for keys in (first_of_each_set, to_check.keys() - first_of_each_set):
        checks = {key: workers.submit(warm, "check:check_cell", to_check[key][0].composed) for key in keys}
        for key, check in checks.items():
            for cell in to_check[key]:
                store_outcome(cell, check.result())


def store_outcome(cell: Cell, outcome: Composed | Facts | str) -> None:
    """Store the outcome of a check in its cell; a text is the reason why the cell cannot run."""
    if isinstance(outcome, str):
        cell.state, cell.error = "invalid", outcome
    elif isinstance(outcome, Composed):
        cell.composed = outcome
    else:
        cell.facts = outcome


def mark_done_and_duplicates(cells: list[Cell]) -> None:
    """Set the state of cells that have a record, and of cells that are the same run as an earlier cell.

    A cell is invalid if its folder is that of another run, since the runs could be confused.
    """
    runs: dict[str, Cell] = {}
    folders: dict[str, Cell] = {}
    for cell in cells:
        if not cell.composed:
            continue
        identity = cell.composed.origin["identity"]
        cell.same_as = runs.get(identity)
        runs.setdefault(identity, cell)
        other = folders.setdefault(str(cell.folder), cell)
        if cell.same_as:
            cell.state = "same"
        elif other is not cell:
            cell.state = "invalid"
            cell.error = (
                f"its folder {cell.folder} is that of the cell {other.title}, which is another run: leave "
                "hydra.sweep.dir and hydra.sweep.subdir out, or let them name every cell differently"
            )
        else:
            mark_by_record(cell, cell.composed)


def mark_by_record(cell: Cell, composed: Composed) -> None:
    """Skip a cell if its record has all results asked for; mark it invalid if the record is that of another run."""
    try:
        record = read_record(cell.record)
    except (FileNotFoundError, ValueError):  # the cell itself reports a damaged record
        return
    if record["identity"] != composed.origin["identity"]:
        cell.state, cell.error = "invalid", other_run_message(cell.folder, composed.origin, record)
    elif not composed.rerun and has_eval_results(record, composed.cfg) and has_analysis(record, composed.cfg):
        cell.state, cell.other_code = "skipped", bool(changes(record, composed.origin))
        read_result(cell)


def read_result(cell: Cell) -> None:
    """Read accuracy and cost of a cell from its record."""
    with suppress(OSError, ValueError, KeyError):
        record = read_record(cell.record)
        result, cell.value = record["result"], validation_accuracy(record)
        params, gmacs = result["model/params"], result["model/gmacs"]
        cell.facts = Facts(result.get("model/grid", ""), result.get("model/tokens"), params, gmacs)


def name_gpus(count: int) -> list[str]:
    """Return the names of the GPUs for CUDA_VISIBLE_DEVICES. count: number of GPUs that torch sees."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return visible.split(",")[:count] if visible else [str(i) for i in range(count)]


def refuse_too_few_gpus(cells: list[Cell], gpus: int, knobs: Knobs) -> None:
    """Mark cells invalid that need more GPUs than a job has. Refused if a job has more GPUs than the machine.

    gpus: number of GPUs of the machine.
    """
    share = knobs.gpus_per_job
    if share == "auto" or not gpus:
        return
    assert isinstance(share, int | float)
    if share > gpus:
        raise Refused(f"hydra.launcher.gpus_per_job={share}, but torch sees {gpus} GPU(s) here: use {gpus} or less")
    for cell in cells:
        if cell.state == "waiting" and cell.composed and cell.composed.accelerator != "cpu":
            devices = cell.composed.devices
            if devices != "auto" and devices > max(1, share):
                cell.state = "invalid"
                cell.error = (
                    f"trainer.devices={devices}, but hydra.launcher.gpus_per_job={share}: use "
                    f"hydra.launcher.gpus_per_job={devices}"
                )


def number_of_jobs(knobs: Knobs, cells: list[Cell], gpus: int) -> int:
    """Return the number of cells that run at a time. gpus: number of GPUs of the machine."""
    if knobs.jobs != "auto":
        return int(knobs.jobs)
    share = knobs.gpus_per_job
    on_gpu = any(cell.composed and cell.composed.accelerator != "cpu" for cell in cells)
    if not (gpus and on_gpu and share):
        return 1
    if not isinstance(share, int | float):  # auto
        return gpus
    return round(gpus / share) if share < 1 else int(gpus // share)
