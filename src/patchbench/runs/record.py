"""The record of a finished run, run.json: written as a whole or not at all, with a digest of its bytes."""

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
HEAD = re.compile(rb'\{\n  "digest": "([0-9a-f]{64})",')  # of a file; the digest is that of all bytes after it
WITHOUT_DIGEST = b'{\n  "identity": "'  # as records of an earlier version begin
WITHIN: dict[str, dict[str, Any]] = {  # what readers of many records need of the parts
    "config": {"epochs": int, "batch_size": int},
    "environment": {"versions": dict, "machine": dict, "commit": str | None},
    "environment.machine": {"cpu": str, "cores": int | None, "gpus": list},
}


def read_record(path: Path) -> dict[str, Any]:
    """Read a record. FileNotFoundError where there is none, ValueError where it is damaged or of an earlier version."""
    cure = "remove its folder, or train it again by rerun=true"
    try:
        text = path.read_bytes()
        record = json.loads(text.decode("utf-8"))
    except FileNotFoundError:
        raise
    except (ValueError, OSError, RecursionError) as error:
        why = getattr(error, "strerror", None) or error
        raise ValueError(f"{path} is damaged ({why}): {cure}") from error
    if not isinstance(record, dict) or (missing := PARTS.keys() - record.keys()):
        lost = ", ".join(sorted(missing)) if isinstance(record, dict) else "all of it"
        raise ValueError(f"{path} is of an earlier version or damaged, it lacks {lost}: {cure}")
    if wrong := next(misfits(record), None):
        raise ValueError(f"{path} is of an earlier version or damaged, {wrong}: {cure}")
    head = HEAD.match(text)
    if not head and not text.startswith(WITHOUT_DIGEST):
        raise ValueError(f"{path} is damaged or was edited, it does not begin with its digest: {cure}")
    if head and digest(text[head.end() :]) != head[1].decode():
        raise ValueError(f"{path} is damaged or was edited, its digest is that of other bytes: {cure}")
    return record


def misfits(record: Mapping[str, Any]) -> Iterator[str]:
    """Say which parts of a record, and which figures, are not of their kind."""
    for name, kind in PARTS.items():
        if not isinstance(record[name], kind):
            yield f"its {name} is no {'text' if kind is str else 'mapping'}"
            return
    for place, kinds in WITHIN.items():
        part: Any = record
        for name in place.split("."):
            part = part[name]
        for name, kind in kinds.items():
            if not isinstance(part.get(name), kind):
                yield f"its {place}.{name} is {part.get(name)!r:.40}"
                return
    versions = record["environment"]["versions"]
    for part in (record["factors"], record["result"], versions):
        for name in part.keys() & RESERVED:  # they say which run this is, and where
            yield f"it has an entry {name} among factors, figures or versions"
    if not all(isinstance(value, str | None) for value in versions.values()):
        yield "its environment.versions are no texts"
    for name, value in record["result"].items():
        if not is_figure(value) and not (isinstance(value, str) and name.startswith("model/")):
            yield f"its figure {name} is {value!r:.40}"
    for name in ("eval", "hits", "execution"):
        if not isinstance(record.get(name), dict | None):
            yield f"its {name} is no mapping"


def is_figure(value: object) -> bool:
    """True for a number that can be computed with."""
    with suppress(OverflowError):
        return isinstance(value, int | float) and not isinstance(value, bool) and isinstance(float(value), float)
    return False


@contextmanager
def leaving_out() -> Iterator[None]:
    """Name a file that is damaged in a line, and go on without it: one of many must not cost all others."""
    try:
        yield
    except FileNotFoundError:
        raise
    except ValueError as error:
        print(f"left out: {error}", file=sys.stderr)


def validation_accuracy(record: Mapping[str, Any]) -> float:
    """Validation accuracy of the weights that were tested: those of the best epoch, or the last."""
    return record["result"]["val/acc" if record["config"].get("tested") == "last" else "val/acc_best"]


def write_record(path: Path, record: dict[str, Any]) -> None:
    """Write the record as JSON, without passwords and tokens, on the first rank only."""
    from pytorch_lightning.utilities import rank_zero_only  # seconds of imports, not needed to read

    if rank_zero_only.rank == 0:  # type: ignore[attr-defined]
        write_whole(path, text_of(without_secrets(record)))


def text_of(record: Mapping[str, Any]) -> str:
    """Return the text of run.json: the digest, then all else."""
    rest = json.dumps({name: value for name, value in record.items() if name != "digest"}, indent=2).removeprefix("{")
    return f'{{\n  "digest": "{digest(rest.encode())}",{rest}'


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
