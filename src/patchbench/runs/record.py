"""The record of a finished run, run.json: written once, as a whole or not at all."""

import json
from pathlib import Path

from pytorch_lightning.utilities import rank_zero_only

from patchbench.machine import whole_file


@rank_zero_only
def write_record(path: Path, record: dict) -> None:
    """Write the record as JSON, on the first rank only."""
    with whole_file(path) as file:
        json.dump(record, file, indent=2)
