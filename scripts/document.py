"""Answer a document sentence by sentence, from checks that are computed now and from the results of studies.

python scripts/document.py                                   the document of this project: experiments/README.md
python scripts/document.py my/statements.yaml                yours: my/statements.md and my/statements.html
python scripts/document.py my/statements.yaml experiments=my/experiments text=my/document.md

experiments  the folder of the studies that the statements refer to
text         the document itself: each quote must occur in it, word by word
"""

import sys
from pathlib import Path

from patchbench.config.arguments import errors_in_one_line, read

KNOWN = {"experiments": None, "text": None}


def main(arguments: list[str]) -> None:
    with errors_in_one_line():
        given = read(__doc__, arguments, KNOWN, most_names=1)
        from patchbench.commands import document  # seconds of imports, not needed for --help

        path = Path(given.names[0]) if given.names else document.STATEMENTS
        folder, text = given.options["experiments"], given.options["text"]
        print(document.document(path, Path(folder) if folder else document.EXPERIMENTS, Path(text) if text else None))


if __name__ == "__main__":
    main(sys.argv[1:])
