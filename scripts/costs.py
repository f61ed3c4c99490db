"""Measure speed and memory of every arm of a study, one run at a time on an idle machine, and write costs.csv.

python scripts/costs.py patch_size                  the arms that experiments/patch_size/costs.csv lacks, at scale=cpu
python scripts/costs.py patch_size scale=gpu rounds=5 steps=500
python scripts/costs.py patch_size --again          measure every arm again
python scripts/costs.py patch_size --busy           measure although other processes run; see the column busy
"""

import sys
from pathlib import Path

from patchbench.config.arguments import errors_in_one_line, read

KNOWN = {"scale": "cpu", "rounds": 3, "steps": 200, "runs_dir": Path("runs")}


def main(arguments: list[str]) -> None:
    with errors_in_one_line():
        given = read(__doc__, arguments, KNOWN, most_names=1, flags=["again", "busy"])
        if not given.names:
            raise ValueError("give the name of a study under experiments/; --help shows examples")
        from patchbench.sweep.costs import measure  # seconds of imports, not needed for --help

        flags = {name: name in given.flags for name in ("again", "busy")}
        print(measure(given.names[0], **given.options, **flags))


if __name__ == "__main__":
    main(sys.argv[1:])
