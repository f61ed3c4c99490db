"""Measure speed and memory of training or inference: of one configuration, or of two sides that are compared.

python scripts/benchmark.py embed=conv patch=16 pos=learned        training; all options of train.py are allowed
python scripts/benchmark.py model=micro compare="embed=overlap"    compared with the same with other options
python scripts/benchmark.py model=micro peer=bare                  compared with a bare training loop
python scripts/benchmark.py data=imagefolder data.root=<folder> peer=timm timm=<checkout>    compared with timm
python scripts/benchmark.py mode=infer model=small batch_size=64   inference: throughput, and latency of one image
python scripts/benchmark.py mode=infer run=runs/<run>              inference of a trained run or of a checkpoint

mode      train or infer
rounds    number of rounds; each round measures all sides, and gives a ratio of two sides
steps     per round; with mode=infer: batches, and single images. warmup: steps before that do not count
compare   options of the second side, added to the options of the first side
peer      bare: the same network, data and optimizer in a loop of their own. lightning: the same, by Lightning's
          Trainer alone. timm: train.py of a checkout of pytorch-image-models; CPU and wall time of an epoch of both
          commands, measured over epochs=2
data_root folder with the data of run=, if it has moved
out       file of the record, or a folder for a new file; by default <runs_dir>/benchmarks
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
    """Raise ValueError for options that do not go together, and for wrong values."""
    options, typed = given.options, {argument.partition("=")[0]: argument for argument in given.typed}
    one_of("mode", options["mode"], ("train", "infer"))
    at_least(1, rounds=options["rounds"], steps=options["steps"], warmup=options["warmup"])
    if options["peer"] is not None:
        one_of("peer", options["peer"], ("bare", "lightning", "timm"))
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
