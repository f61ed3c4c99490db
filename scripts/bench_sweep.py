"""The CPU time of a cell of a sweep beyond the time of its training, beside that of the same run as a command.

python scripts/bench_sweep.py model=tiny      and other options of train.py; a cell trains one step
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
