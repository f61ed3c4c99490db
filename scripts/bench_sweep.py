"""Measure the CPU time that a run costs in addition to its training: as a cell of a sweep, and as a single command.

python scripts/bench_sweep.py model=tiny      options of train.py; each run trains one step
"""

import sys

from patchbench.config.arguments import errors_in_one_line, read


def main(arguments: list[str]) -> None:
    with errors_in_one_line():
        given = read(__doc__, arguments, {}, others=True)
    from patchbench.commands.bench_sweep import bench  # seconds of imports, not needed for --help
    from patchbench.config.errors import one_line_errors

    one_line_errors(bench)(given.others)


if __name__ == "__main__":
    main(sys.argv[1:])
