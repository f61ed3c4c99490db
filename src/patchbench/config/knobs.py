"""Index of the knobs of all options in conf/, for hints. It reads the files, since composing them takes seconds."""

import functools
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from patchbench.config.options import CONF

BUILDING = ("_target_", "_partial_", "_convert_")  # keys by which Hydra builds a part
GROUPS = ("hydra/launcher", "hydra/sweeper")  # nested groups


@functools.cache
def knobs() -> dict[str, dict[str, Any]]:
    """Return the default of each knob in each option that has it: `{"embed.kernel_size": {"embed=overlap": 5}}`."""
    index: dict[str, dict[str, Any]] = {}
    for group in groups():
        for path in sorted((CONF / group).glob("*.yaml")):
            package = re.search(r"^# @package (\S+)", path.read_text(encoding="utf-8"))
            if package and package[1] == "_global_":
                continue  # its keys are options of other groups
            prefix = package[1] if package else group.replace("/", ".")
            for knob, value in paths(tree(path), f"{prefix}."):
                index.setdefault(knob, {})[f"{group}={path.stem}"] = value
    return index


def check_schemes() -> None:
    """Raise ValueError for a file of conf/pos that does not begin with the line `# @package pos.<name>`."""
    for path in sorted((CONF / "pos").glob("*.yaml")):
        first = path.read_text(encoding="utf-8").partition("\n")[0]
        if path.stem != "none" and first != f"# @package pos.{path.stem}":
            raise ValueError(f"conf/pos/{path.name} must begin with the line `# @package pos.{path.stem}`, not {first}")


def groups() -> list[str]:
    """List the groups of options in conf/."""
    return [*sorted(path.name for path in CONF.iterdir() if path.is_dir() and path.name != "hydra"), *GROUPS]


def tree(path: Path) -> dict[str, Any]:
    """Read a file of conf/, merged with the files in its `defaults`; files of other packages are left out."""
    own: Any = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    inherited: dict[str, Any] = {}
    for entry in own.pop("defaults", ()):
        name = str(entry).removesuffix("@_here_")
        file = CONF / f"{name[1:]}.yaml" if name.startswith("/") else path.with_name(f"{name}.yaml")
        inherited = {**inherited, **tree(file)} if file.exists() else inherited
    return {**inherited, **own}


def paths(node: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield path and value of each key of a nested mapping, without `_partial_` and `_convert_`."""
    for name, value in node.items():
        if name in BUILDING[1:]:
            continue
        yield f"{prefix}{name}", value
        if isinstance(value, Mapping):
            yield from paths(value, f"{prefix}{name}.")
