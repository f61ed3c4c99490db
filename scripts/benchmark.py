"""Measure a configuration: speed and memory of training or inference, alone, beside another one, or beside a peer.

python scripts/benchmark.py embed=conv patch=16 pos=learned        training, by any options of train.py
python scripts/benchmark.py model=micro compare="embed=overlap"    beside the same with other options, in turn
python scripts/benchmark.py model=micro peer=bare                  beside a loop that is written by hand
python scripts/benchmark.py data=imagefolder data.root=<folder> peer=timm timm=<checkout>      beside timm's train.py
python scripts/benchmark.py mode=infer model=small batch_size=64   inference: throughput, and latency of one image
python scripts/benchmark.py mode=infer run=runs/<run>              of a trained run, or of its checkpoint

mode      train or infer
rounds    of all sides in turn; each has its ratio
steps     of a round, or batches and single images with mode=infer; warmup: before them, not counted
compare   options of the second side, as after those of the first
peer      bare, the same network, data and optimizer without the framework; timm, with a checkout of
          pytorch-image-models: CPU and wall time of an epoch of both commands, epochs=2 of them
data_root where the data of run= lie now
out       file of the record, or a folder for a new one; without it <runs_dir>/benchmarks
"""

import sys

from patchbench.checks import at_least, one_of
from patchbench.config.arguments import Arguments, errors_in_one_line, read

KNOWN = {"mode": "train", "rounds": 9, "steps": 50, "warmup": 5, "compare": None, "peer": None, "timm": None}
KNOWN |= {"run": None, "data_root": None, "out": None}


def main(arguments: list[str]) -> None:
    with errors_in_one_line():
        given = read(__doc__, arguments, KNOWN, others=True)
        refuse(given)
    from patchbench.commands.benchmark import benchmark  # seconds of imports, not needed for --help and for refusals
    from patchbench.config.errors import one_line_errors

    one_line_errors(benchmark)(given.options, given.others, arguments)


def refuse(given: Arguments) -> None:
    """ValueError for options that do not go together, or of a wrong value."""
    options, typed = given.options, {argument.partition("=")[0]: argument for argument in given.typed}
    one_of("mode", options["mode"], ("train", "infer"))
    at_least(1, rounds=options["rounds"], steps=options["steps"], warmup=options["warmup"])
    if options["peer"] is not None:
        one_of("peer", options["peer"], ("bare", "timm"))
    infer, peer = options["mode"] == "infer", options["peer"]
    alone = {
        "run": (infer, "mode=infer"),
        "data_root": (options["run"] is not None, "run="),
        "timm": (peer == "timm", "peer=timm"),
    }
    for name, (read_there, needs) in alone.items():
        if name in typed and not read_there:
            raise ValueError(f"{typed[name]} is read with {needs} alone: add it, or leave this out")
    unread = {"peer": infer, "compare": peer is not None, "steps": peer == "timm", "warmup": peer == "timm"}
    for name, is_unread in unread.items():
        if name in typed and is_unread:
            other = "mode=infer" if name == "peer" else f"peer={peer}"
            raise ValueError(f"{typed[name]} does not go together with {other}: leave out one of the two")


if __name__ == "__main__":
    main(sys.argv[1:])
