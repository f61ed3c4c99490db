"""The time that a training step takes more than a step of a plain loop: same network, data, optimizer, one CPU thread.

python scripts/bench_loop.py model=micro data.img_size=16 patch=4      and other options of train.py
"""

import sys

from patchbench.config.arguments import errors_in_one_line, read


def main(arguments: list[str]) -> None:
    with errors_in_one_line():
        given = read(__doc__, arguments, {}, others=True)
    from patchbench.commands.bench_loop import bench  # seconds of imports, not needed for --help
    from patchbench.config.errors import one_line_errors

    one_line_errors(bench)(given.others)


if __name__ == "__main__":
    main(sys.argv[1:])
