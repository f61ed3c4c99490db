"""Run a study, or what is left of it, and write its report.

python scripts/study.py position                    at scale=cpu: the runs, then experiments/position/report.html
python scripts/study.py position scale=smoke        a few steps of every arm, to see that it runs
python scripts/study.py position --dry-run          every run and what it costs; nothing is trained
python scripts/study.py position tune=true          first learning rate x weight decay for each arm, then the seeds
python scripts/study.py position jobs=4 runs_dir=/scratch/runs hydra/launcher=slurm      and other options of train.py
"""

import argparse
import os
import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, usage="study.py name [key=value ...]"
    )
    parser.add_argument("name", help="a study under experiments/")
    parser.add_argument("options", nargs="*", metavar="key=value", help="scale= tune= jobs= runs_dir= and train.py's")
    parser.add_argument("--dry-run", action="store_true", help="show what would be run and what it costs")
    given = parser.parse_intermixed_args(arguments)
    if odd := [option for option in given.options if "=" not in option]:
        parser.error(f"{odd[0]} is no option: give key=value")
    options = dict(option.split("=", 1) for option in given.options)
    scale, tune = options.pop("scale", "cpu"), options.pop("tune", "false")
    if tune not in ("true", "false"):
        parser.error(f"tune={tune} must be true or false")
    from patchbench.commands import report  # seconds of imports, not needed for --help
    from patchbench.config import plan, tuning  # seconds of imports, not needed for --help
    from patchbench.machine import cores

    try:
        study = plan.read_study(given.name)
        planned = plan.cells(study, scale)
        plan.identities(study, planned)  # every arm is taken by Hydra
        counts = {part.name: len(part.arms) for part in plan.parts_at(study, scale)}
        seeds = len(study.scales[scale].seeds)
        arms = ", ".join(f"{name} {arms}" for name, arms in counts.items())
        print(f"{study.question}\n{len(planned)} runs: arms of {arms}; {seeds} seeds; scale {scale}", flush=True)
        runs_dir = Path(options.get("runs_dir", "runs"))
        on_cpu = "trainer=cpu" in {o for cell in planned for o in cell.overrides} and "trainer" not in options
        jobs = options.pop("jobs", str(cores()) if on_cpu else "auto")
        rest = [f"hydra.launcher.jobs={jobs}", *(f"{key}={value}" for key, value in options.items())]
        rest += ["--dry-run"] if given.dry_run else []
        if tune == "true":
            sweep(given.name, scale, "grid", rest)
            if given.dry_run:
                return
            path = tuning.tune(given.name, scale, runs_dir)
            print(f"chosen for every arm: {path}", flush=True)
        sweep(given.name, scale, "best" if tune == "true" else "none", rest)
        if not given.dry_run:
            print(report.report_study(given.name, runs_dir, scale, tuned=tune == "true"))
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None


def sweep(name: str, scale: str, tuning: str, rest: list[str]) -> None:
    """Its exit code ends this, unless it is 1: of runs that failed the report tells."""
    study = ["hydra/sweeper=study", f"hydra.sweeper.name={name}", f"hydra.sweeper.scale={scale}"]
    line = [sys.executable, str(ROOT / "train.py"), "-m", *study, f"hydra.sweeper.tuning={tuning}", *rest]
    group = f"study-{name}-{scale}" + ("-grid" if tuning == "grid" else "")
    with subprocess.Popen(line, env={**os.environ, "PATCHBENCH_SWEEP": group}) as running:
        signal.signal(signal.SIGINT, lambda *_: None)  # the sweep has it as well, and saves
        signal.signal(signal.SIGTERM, lambda *_: running.terminate())
        code = running.wait()
    if code not in (0, 1):
        raise SystemExit(code)


if __name__ == "__main__":
    main(sys.argv[1:])
