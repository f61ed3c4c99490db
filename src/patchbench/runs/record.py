"""The record of a finished run, run.json: written whole or not at all, with a digest of its bytes."""

import hashlib
import json
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from patchbench.machine import write_whole
from patchbench.redact import without_secrets

PARTS: dict[str, type] = {
    "identity": str,
    "name": str,
    "factors": dict,
    "options": dict,
    "compared": dict,
    "targets": dict,
    "code": dict,
    "config": dict,
    "result": dict,
    "environment": dict,
}
RESERVED = {"run", "identity", "status", "commit", "device", "eval", "epochs", "batch_size"}  # columns of every table
HEAD = re.compile(rb'\{\n  "digest": "([0-9a-f]{64})",')  # start of a file, with the digest of all bytes after it
WITHOUT_DIGEST = b'{\n  "identity": "'  # start of a file of an earlier version
NESTED: dict[str, dict[str, Any]] = {  # entries of the parts that readers of many records need, with their types
    "config": {"epochs": int, "batch_size": int},
    "environment": {"versions": dict, "machine": dict, "commit": str | None},
    "environment.machine": {"cpu": str, "cores": int | None, "gpus": list},
}


def read_record(path: str | Path) -> dict[str, Any]:
    """Read a record. FileNotFoundError if there is none, ValueError if it is damaged or of an earlier version."""
    cure = "remove its folder, or train it again by rerun=true"
    try:
        with open(path, "rb") as file:
            text = file.read()
        record = json.loads(text.decode("utf-8"))
    except FileNotFoundError:
        raise
    except (ValueError, OSError, RecursionError) as error:
        why = getattr(error, "strerror", None) or error
        raise ValueError(f"{path} is damaged ({why}): {cure}") from error
    if not isinstance(record, dict) or (missing := PARTS.keys() - record.keys()):
        absent = ", ".join(sorted(missing)) if isinstance(record, dict) else "all of it"
        raise ValueError(f"{path} is of an earlier version or damaged, it lacks {absent}: {cure}")
    if wrong := next(type_errors(record), None):
        raise ValueError(f"{path} is of an earlier version or damaged, {wrong}: {cure}")
    head = HEAD.match(text)
    if not head and not text.startswith(WITHOUT_DIGEST):
        raise ValueError(f"{path} is damaged or was edited, it does not begin with its digest: {cure}")
    if head and digest(text[head.end() :]) != head[1].decode():
        raise ValueError(f"{path} is damaged or was edited, its bytes do not match its digest: {cure}")
    return record


def type_errors(record: Mapping[str, Any]) -> Iterator[str]:
    """Describe the parts and the results of a record that have the wrong type."""
    for name, kind in PARTS.items():
        if not isinstance(record[name], kind):
            yield f"its {name} is no {'text' if kind is str else 'mapping'}"
            return
    for place, kinds in NESTED.items():
        part: Any = record
        for name in place.split("."):
            part = part[name]
        for name, kind in kinds.items():
            if not isinstance(part.get(name), kind):
                yield f"its {place}.{name} is {part.get(name)!r:.40}"
                return
    versions = record["environment"]["versions"]
    for part in (record["factors"], record["result"], versions):
        for name in part.keys() & RESERVED:  # these columns identify the run in every table
            yield f"it has an entry {name} among factors, figures or versions"
    if not all(value is None or isinstance(value, str) for value in versions.values()):
        yield "its environment.versions are no texts"
    for name, value in record["result"].items():
        if not is_figure(value) and not (isinstance(value, str) and name.startswith("model/")):
            yield f"its figure {name} is {value!r:.40}"
    for name in ("eval", "hits", "execution"):
        if not isinstance(record.get(name), dict | None):
            yield f"its {name} is no mapping"


def is_figure(value: object) -> bool:
    """True for an integer or float that fits into a float."""
    if isinstance(value, int) and not isinstance(value, bool):
        with suppress(OverflowError):
            value = float(value)
    return isinstance(value, float)


@contextmanager
def skip_damaged() -> Iterator[None]:
    """Print a line for a damaged file, and go on: one damaged record must not hide all others."""
    try:
        yield
    except FileNotFoundError:
        raise
    except ValueError as error:
        print(f"left out: {error}", file=sys.stderr)


def validation_accuracy(record: Mapping[str, Any]) -> float:
    """Validation accuracy of the tested weights: those of the best epoch, or the last weights."""
    return record["result"]["val/acc" if record["config"].get("tested") == "last" else "val/acc_best"]


def write_record(path: Path, record: dict[str, Any]) -> None:
    """Write the record as JSON, without passwords and tokens; other ranks than the first write nothing."""
    from pytorch_lightning.utilities import rank_zero_only  # seconds of imports, not needed to read

    if rank_zero_only.rank == 0:  # type: ignore[attr-defined]
        write_whole(path, to_json(without_secrets(record)))


def to_json(record: Mapping[str, Any]) -> str:
    """Return the text of run.json: the digest, then the rest of the record."""
    rest = json.dumps({name: value for name, value in record.items() if name != "digest"}, indent=2).removeprefix("{")
    return f'{{\n  "digest": "{digest(rest.encode())}",{rest}'


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
