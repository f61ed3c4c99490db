"""Make the runs of a study, or those that are missing, and write its report.

python scripts/study.py position                    at scale=cpu: the runs, then experiments/position/report.html
python scripts/study.py position scale=smoke        a few steps of every arm, to see that it runs
python scripts/study.py position --dry-run          every run and its cost; nothing is trained
python scripts/study.py position part=digits        only the runs of one part, without the report
python scripts/study.py position tune=false         without tuning: every arm has the settings of the study
python scripts/study.py position jobs=4 runs_dir=/scratch/runs hydra/launcher=slurm      and other options of train.py
"""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from patchbench.config.arguments import errors_in_one_line, read
from patchbench.words import count

ROOT = Path(__file__).resolve().parents[1]
KNOWN = {"scale": "cpu", "part": None, "tune": "auto", "jobs": None, "runs_dir": Path("runs")}


def main(arguments: list[str]) -> None:
    with errors_in_one_line():
        given = read(__doc__, arguments, KNOWN, most_names=1, flags=["dry-run"], others=True)
        if not given.names:
            raise ValueError("give the name of a study under experiments/; --help shows examples")
        from patchbench.commands import report  # seconds of imports, not needed for --help
        from patchbench.config import plan, tuning

        [name], dry_run = given.names, "dry-run" in given.flags
        scale, part, runs_dir = (given.options[option] for option in ("scale", "part", "runs_dir"))
        study = plan.only_part(plan.read_study(name), part)
        if study.of_costs:
            raise ValueError(
                f"study {name} trains nothing: python scripts/costs.py {name} scale={scale} measures its arms on an "
                f"idle machine, and python scripts/report.py {name} scale={scale} writes its page"
            )
        tune = tuned(given.options["tune"], study)
        planned = plan.cells(study, scale)
        plan.identities(study, planned)  # checks that Hydra accepts every arm
        counts = {part.name: len(part.arms) for part in plan.parts_at(study, scale)}
        arms = ", ".join(f"{part} {number}" for part, number in counts.items())
        print(f"{study.question}\n{count(len(planned), 'run')}: arms of {arms}; scale {scale}", flush=True)
        jobs = jobs_at_a_time(given.options["jobs"], planned, given.others)
        rest = [*jobs, f"runs_dir={runs_dir}", *given.others, *(["--dry-run"] * dry_run)]
        if tune and not tuning.is_tuned(study, scale, plan.settings_folder(study, scale, runs_dir)):
            tuning.refuse_borrowed_settings(study, scale)
            sweep(name, scale, part, "grid", rest)
            if dry_run:
                return
            path = tuning.tune(name, scale, runs_dir, part)
            print(f"chosen for every arm: {path}", flush=True)
        sweep(name, scale, part, "best" if tune else "none", rest)
        if part and not dry_run:
            print(f"part {part} is done: python scripts/study.py {name} makes the other runs and the report")
        elif not dry_run:
            print(report.report_study(name, runs_dir, scale, tuned=tune, show=True))


def tuned(given: str, study: Any) -> bool:
    """True if arms are tuned before they are trained with all seeds. ValueError for a wrong value of tune=."""
    if given not in ("auto", "true", "false"):
        raise ValueError(f"tune={given} must be auto, true or false")
    if given == "true" and not study.grid:
        raise ValueError(f"tune=true: study {study.name} says tune: false, so it has no settings to try")
    return bool(study.grid) and given != "false"


def jobs_at_a_time(jobs: str | None, planned: Sequence[Any], others: Sequence[str]) -> list[str]:
    """Return the option for the number of simultaneous runs; its name depends on the launcher.

    ValueError if the launcher has no such option.
    """
    launcher = next((o.partition("=")[2] for o in others if o.startswith("hydra/launcher=")), "processes")
    if launcher == "processes":
        return [f"hydra.launcher.jobs={jobs or default_jobs(planned, others)}"]
    if jobs and not launcher.startswith("slurm"):
        raise ValueError(f"jobs={jobs} is not read by hydra/launcher={launcher}: leave out one of the two")
    return [f"hydra.launcher.array_parallelism={jobs}"] if jobs else []


def default_jobs(planned: Sequence[Any], others: Sequence[str]) -> str:
    """Return the number of jobs: one per core for runs on the CPU, or else `auto`, by the number of GPUs."""
    from patchbench.machine import cores

    on_cpu = any("trainer=cpu" in cell.overrides for cell in planned)
    return str(cores()) if on_cpu and not any(o.startswith("trainer=") for o in others) else "auto"


def sweep(name: str, scale: str, part: str | None, tuning: str, rest: list[str]) -> None:
    """Run train.py -m. Exit with its code unless it is 0, or 1 for failed runs, which the report names."""
    study = ["hydra/sweeper=study", f"hydra.sweeper.name={name}", f"hydra.sweeper.scale={scale}"]
    study += [f"hydra.sweeper.part={part}"] if part else []
    line = [sys.executable, str(ROOT / "train.py"), "-m", *study, f"hydra.sweeper.tuning={tuning}", *rest]
    group = f"study-{name}-{scale}" + ("-grid" if tuning == "grid" else "")
    with subprocess.Popen(line, env={**os.environ, "PATCHBENCH_SWEEP": group}) as running:
        signal.signal(signal.SIGINT, lambda *_: None)  # the sweep receives it too, and saves
        signal.signal(signal.SIGTERM, lambda *_: running.terminate())
        code = running.wait()
    if code not in (0, 1):
        raise SystemExit(code)


if __name__ == "__main__":
    main(sys.argv[1:])
