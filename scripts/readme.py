"""Write the figures of a run into README.md, between its markers.

python scripts/readme.py runs/<run>/run.json
"""

import json
import re
import sys
from pathlib import Path

from patchbench.track.table import rows

README = Path(__file__).parents[1] / "README.md"
BLOCK = re.compile(r"(<!-- main job -->\n).*?(<!-- end -->)", re.DOTALL)


def main(path: str) -> None:
    record = json.loads(Path(path).read_text())
    machine, versions = record["environment"]["machine"], record["environment"]["versions"]
    lines = ["| | |", "|---|---|", *(f"| {label} | {value} |" for label, value in rows(record["result"]).items())]
    device = ", ".join(machine["gpus"]) or f"{machine['cores']} cores of {machine['cpu']}"
    made = f"Commit {str(record['environment']['commit'])[:10]}, {device}, torch {versions['torch']}."
    block = "\n".join([*lines, "", made, ""])
    README.write_text(BLOCK.sub(lambda found: found[1] + block + found[2], README.read_text()))


if __name__ == "__main__":
    main(*sys.argv[1:])
