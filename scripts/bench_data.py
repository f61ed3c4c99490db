"""Measure how many images per second one core reads from each kind of data set and from torchvision's ImageFolder.

python scripts/bench_data.py                    write benchmarks/data.json and print the table
python scripts/bench_data.py images=64 rounds=1 with fewer images and fewer rounds

images, height, width, quality   number, size and quality of the JPEGs that are made
copies    number of copies of each image, so that the pixels exceed the caches of the CPU
cache     image size of the cache that crops are read from; size: of the crops
batch     images per read
rounds    each round measures all ways of reading; the fastest round of each way counts
workers   number of processes of the data loaders that are measured
"""

import sys
from pathlib import Path

from patchbench.checks import at_least
from patchbench.config.arguments import errors_in_one_line, read

SETTINGS = {"images": 256, "height": 375, "width": 500, "quality": 90, "copies": 8, "cache": 256, "size": 224}
SETTINGS |= {"batch": 64, "rounds": 7, "workers": 2}


def main(arguments: list[str]) -> None:
    with errors_in_one_line():
        given = read(__doc__, arguments, {**SETTINGS, "out": Path("benchmarks/data.json")})
        at_least(1, **{name: given.options[name] for name in SETTINGS if name != "workers"})
    from patchbench.commands.bench_data import bench  # seconds of imports, not needed for --help and for refusals

    bench(given.options)


if __name__ == "__main__":
    main(sys.argv[1:])
