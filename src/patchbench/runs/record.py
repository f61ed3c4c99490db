"""The record of a finished run: run.json, written once, whole or not at all."""

import json
from pathlib import Path

from pytorch_lightning.utilities import rank_zero_only

from patchbench.machine import whole_file


@rank_zero_only
def write_record(path: Path, record: dict) -> None:
    """Write a record as JSON; the file appears under its name only when all of it is on the disk."""
    with whole_file(path) as file:
        json.dump(record, file, indent=2)
