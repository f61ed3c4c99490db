"""Measure a GPU, and write one file: limits of the device, speed and memory of training, peers, and the tests.

python scripts/gpu_evidence.py                  within 9 minutes, into benchmarks/<device>-<time>.json
python scripts/gpu_evidence.py seconds=300      as many items as this time allows, the most important first
python scripts/gpu_evidence.py device=cpu       tiny networks on the CPU, to test this command; into runs/benchmarks,
                                                since the figures mean nothing
python scripts/gpu_evidence.py rest=<file>      only items that this earlier file left out, or that failed
python scripts/gpu_evidence.py out=<folder>     write the file to another folder

The file is written after every item, so measured items remain if this command is interrupted.
"""

import json
import sys
from pathlib import Path

from patchbench.checks import one_of
from patchbench.config.arguments import errors_in_one_line, read

ROOT = Path(__file__).parents[1]


def items_in(path: Path) -> object:
    """Return the items of a file of this command; None for another file."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return None
    return content.get("items") if isinstance(content, dict) else None


def main(arguments: list[str]) -> None:
    with errors_in_one_line():
        options = read(__doc__, arguments, {"device": "cuda", "out": None, "rest": None, "seconds": "540"}).options
        kind = options["device"]
        folder = Path(options["out"] or (ROOT / "benchmarks" if kind == "cuda" else "runs/benchmarks"))
        one_of("device", kind, ("cuda", "cpu"))
        if not options["seconds"].isdigit():
            raise ValueError(f"seconds={options['seconds']} is no number of seconds: use seconds=300")
        rest = Path(options["rest"]) if options["rest"] else None
        if rest and not rest.is_file():
            raise ValueError(f"rest={rest}: there is no such file: give one that this command wrote")
        if rest and not isinstance(items_in(rest), dict):
            raise ValueError(f"rest={rest} was not written by this command: give a file that it wrote")
        import torch  # seconds of imports, not needed for --help

        if kind == "cuda" and not torch.cuda.is_available():
            raise ValueError("torch sees no CUDA GPU here: use device=cpu to see that this command runs")
    from patchbench.commands.gpu_evidence import evidence

    evidence(kind, folder, float(options["seconds"]), rest)


if __name__ == "__main__":
    main(sys.argv[1:])
