"""Write a page about the runs on disk: table, curves, scatter, parallel coordinates, a page for each run.

python scripts/dashboard.py                      all of runs/, into runs/dashboard.html: open it in a browser
python scripts/dashboard.py runs_dir=elsewhere   another folder
python scripts/dashboard.py out=/tmp/page.html   another file, to pass on: it contains the pictures too
"""

import sys
from pathlib import Path

from patchbench.config.arguments import errors_in_one_line, read
from patchbench.words import count


def main(arguments: list[str]) -> None:
    with errors_in_one_line():
        options = read(__doc__, arguments, {"runs_dir": Path("runs"), "out": None}).options
        from patchbench.pages.dashboard.page import write  # seconds of imports, not needed for --help

        path, runs = write(options["runs_dir"], Path(options["out"]) if options["out"] else None)
    print(f"{count(runs, 'run')}, {path.stat().st_size / 1e6:.1f} MB: open {path} in a browser")


if __name__ == "__main__":
    main(sys.argv[1:])
