"""Files of a cache: <split>.images.npy (n c H W) and <split>.labels.npy (n) for numpy.load, and meta.json.

meta.json is written last and holds a checksum of each part of the arrays. While the cache is being made, plan.json and
done.jsonl take its place. `FORMAT` is the version of all files; other versions are refused.
"""

import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FORMAT = 1
META, PLAN, DONE = "meta.json", "plan.json", "done.jsonl"
PREPARE = "python scripts/prepare_data.py"


def images_file(folder: Path, split: str) -> Path:
    return folder / f"{split}.images.npy"


def labels_file(folder: Path, split: str) -> Path:
    return folder / f"{split}.labels.npy"


def read_meta(folder: Path, option: str) -> dict[str, Any]:
    """Read the meta.json of a finished cache. FileNotFoundError if there is none, ValueError if it cannot be read.

    option: name of the option that gives the folder, for messages.
    """
    path = folder / META
    if not path.is_file() and (folder / PLAN).is_file():
        command = read_plan(folder)["command"]
        raise FileNotFoundError(f"{option}={folder} is a cache that is not finished: complete it with {command}")
    if not path.is_file():
        raise FileNotFoundError(
            f"{option}={folder} is no cache, it has no {META}: make one with {PREPARE} data=... out={folder}"
        )
    try:
        meta = json.loads(path.read_text(encoding="utf-8"))
        version = meta["format"]
        if version == FORMAT and meta.pop("crc32") != crc32(meta):
            raise ValueError("its own checksum differs")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise damaged_file(path, error) from error
    if version != FORMAT:
        raise ValueError(
            f"{option}={folder} is a cache of format {version}, this version reads format {FORMAT}: remove it and "
            f"run {PREPARE} again, or use the version that made it"
        )
    return meta


def read_plan(folder: Path) -> dict[str, Any]:
    """Read the plan.json of a cache that is not finished. ValueError if it cannot be read."""
    path = folder / PLAN
    try:
        plan = json.loads(path.read_text(encoding="utf-8"))
        return {"made_from": plan["made_from"], "command": plan["command"]}
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise damaged_file(path, error) from error


def damaged_file(path: Path, error: Exception) -> ValueError:
    """Return the error for a file of a cache that cannot be read."""
    return ValueError(f"{path} is damaged ({error}): remove {path.parent} and run {PREPARE} again")


def crc32(meta: Mapping[str, Any]) -> int:
    """Compute the checksum of the content of meta.json, given without its own checksum."""
    return zlib.crc32(json.dumps(meta).encode())
