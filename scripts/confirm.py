"""Repeat studies on fresh seeds, after their predictions were frozen, and list which answers are found again.

python scripts/confirm.py --freeze              write the predictions to experiments/frozen.csv; commit the file, then
python scripts/confirm.py                       make the missing runs at scale=confirm, and experiments/confirmation.md
python scripts/confirm.py position overlap      only for these studies; also with --freeze
python scripts/confirm.py --dry-run             list the missing runs and their cost; nothing is trained
python scripts/confirm.py --table               only write the page, from the files of the studies
python scripts/confirm.py position jobs=4 runs_dir=/scratch/runs     and other options of scripts/study.py
"""

import subprocess
import sys
from pathlib import Path

from patchbench.config.arguments import errors_in_one_line, read

STUDY = Path(__file__).resolve().with_name("study.py")


def main(arguments: list[str]) -> None:
    with errors_in_one_line():
        given = read(
            __doc__, arguments, {"scale": "confirm"}, most_names=99, flags=["freeze", "table", "dry-run"], others=True
        )
        from patchbench.commands import confirm  # seconds of imports, not needed for --help

        scale = given.options["scale"]
        names_of_scale = confirm.repeatable(scale)
        if not names_of_scale:
            raise ValueError(f"scale={scale}: no study has a scale of this name that repeats another scale")
        for name in given.names:
            if name not in names_of_scale:
                raise ValueError(f"{name} is no study with scale={scale}: use {', '.join(names_of_scale)}")
        names = given.names or confirm.ready(names_of_scale, scale)
        if "freeze" in given.flags:
            print(confirm.freeze(names, scale))
            return
        dry_run = "dry-run" in given.flags
        if dry_run or "table" not in given.flags:
            if not dry_run:
                confirm.check_frozen(names, scale)
            for name in names:
                line = [name, f"scale={scale}", *["--dry-run"] * dry_run, *given.others]
                done = subprocess.run([sys.executable, str(STUDY), *line])
                if done.returncode:
                    raise SystemExit(done.returncode)
        if not dry_run:
            print(confirm.confirmation(scale))


if __name__ == "__main__":
    main(sys.argv[1:])
