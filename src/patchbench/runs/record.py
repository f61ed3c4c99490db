"""The record of a finished run, run.json: written once, as a whole or not at all."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from patchbench.machine import whole_file
from patchbench.redact import without_secrets

PARTS = {"identity", "name", "factors", "options", "compared", "targets", "code", "config", "result", "environment"}


def read_record(path: Path) -> dict[str, Any]:
    """Read a record. FileNotFoundError where there is none, ValueError where it is damaged or of an earlier version."""
    cure = "remove its folder, or train it again by rerun=true"
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is damaged ({error}): {cure}") from error
    if not isinstance(record, dict) or (missing := PARTS - record.keys()):
        lost = ", ".join(sorted(missing)) if isinstance(record, dict) else "all of it"
        raise ValueError(f"{path} is of an earlier version or damaged, it lacks {lost}: {cure}")
    return record


def validation_accuracy(record: Mapping[str, Any]) -> float:
    """Validation accuracy of the weights that were tested: those of the best epoch, or the last."""
    return record["result"]["val/acc" if record["config"].get("tested") == "last" else "val/acc_best"]


def write_record(path: Path, record: dict[str, Any]) -> None:
    """Write the record as JSON, without passwords and tokens, on the first rank only."""
    from pytorch_lightning.utilities import rank_zero_only  # seconds of imports, not needed to read

    if rank_zero_only.rank == 0:  # type: ignore[attr-defined]
        with whole_file(path) as file:
            json.dump(without_secrets(record), file, indent=2)
