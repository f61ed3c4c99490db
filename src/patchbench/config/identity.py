"""Identity of a run: names of options and values of knobs that its result depends on, and nothing else.

Neither the layout of the code, nor where data lie, nor how a run is executed. Code is provenance: runs/provenance.py.
"""

import functools
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from patchbench.config.compose import composed
from patchbench.config.knobs import BUILDING
from patchbench.config.options import GROUPS, Compared
from patchbench.data.fingerprint import fingerprint
from patchbench.machine import as_text
from patchbench.redact import HIDDEN, without_secrets
from patchbench.runs.metrics import FACTORS

READERS = {  # by option
    "embed": ["model"],
    "pos": ["model"],
    "patch": ["model", "embed"],
    "residual": ["model"],
    "epochs": ["budget"],
}
PLACES = ("data.root", "data.index_dir")  # knobs that say where data lie
LIMITS = ("data.max_skipped",)  # knobs that may end a run, and change no figure of one that is not ended
TRAINER = ("trainer.max_time", "trainer.limit_val_batches")  # how it is run, but of these the result depends; null: off
SIZES = ("patch", "data.img_size")  # S and [S,S] are one size
OFF: tuple[Any, ...] = (None, False, 0, "", [], {})
BASELINE = Path(__file__).with_name("baseline.json")


@functools.cache
def baseline() -> dict[str, dict[str, Any]]:
    """Values at which knobs add nothing to an identity, by option (`train`, or group/name) and path.

    They are the defaults of the time when an option was listed: a default that changes later makes another run.
    """
    return json.loads(BASELINE.read_text())


def compared(cfg: DictConfig, choices: Mapping[str, str]) -> dict[str, Any]:
    """Options and knobs that the result of this run depends on, by path: `embed`, `embed.pad`, `optim.lr`.

    choices: the option taken in each group. An interpolation counts by its value, unless an option of the baseline
    brings it along: then the value counts where it points to. An interpolation of the seed counts as it stands, since
    the seed counts beside it: runs that differ in their seed differ in nothing else. A `_target_` counts where it is
    not that of the option. Options that are not read drop out, `epochs` by the budget, the input stage by the network,
    so that two cells of a sweep that differ only there are the same run. `data.content` is the fingerprint of a folder
    of data, wherever it lies; a file of weights counts by its content as well. Passwords and tokens count for nothing.
    """
    tree: Any = OmegaConf.to_container(OmegaConf.masked_copy(cfg, [f.name for f in fields(Compared)]), resolve=False)
    own = defaults(cfg, choices)
    found: dict[str, Any] = {}
    for name, part in tree.items():
        if name in READERS and not reads(cfg, name):
            continue
        if name in GROUPS:
            found[name] = "+".join(sorted(part)) or "none" if name == "pos" else choices[name]
        for path, value in leaves(part, name):
            if path in (*PLACES, *LIMITS) or (path.rpartition(".")[2] in BUILDING and value == own.get(path)):
                continue
            if "${" in str(value) and value != "${seed}":
                known = listed(path, choices)
                if known and value == known.get(path, own.get(path)):
                    continue
                value = plain(OmegaConf.select(cfg, path))
            found[path] = square(value) if path in SIZES else value
    found |= {path: value for path in TRAINER if (value := OmegaConf.select(cfg, path)) is not None}
    if root := root_of_data(cfg, choices):
        if found.get("data.name") == root:
            del found["data.name"]
        try:
            found["data.content"] = content(root)
        except OSError as error:  # refused, with its cure, by whoever reads the data
            found["data.content"] = type(error).__name__
    if (weights := found.get("model.init_from")) and (file := Path(str(weights)).expanduser()).is_file():
        found["model.init_from"] = f"file {digest(file, file.stat().st_mtime_ns, file.stat().st_size)}"
    return without_secrets(found)


@functools.cache
def content(root: str) -> str:
    """Fingerprint of a folder of data, read once by a process: a million files take seconds."""
    return fingerprint(root)


@functools.cache
def digest(path: Path, modified: int, size: int) -> str:
    """Eight hexadecimal digits of the content of a file; read again when it was modified."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:8]


def identity_of(cfg: DictConfig, choices: Mapping[str, str]) -> str:
    """Eight hexadecimal digits, equal for equal comparisons, in whatever order schemes and keys are named.

    A knob at its value of the baseline adds nothing. A knob that the baseline does not know adds nothing at its
    default: in an option of the baseline whatever that is, in other options where it is off (null, false, 0, empty).
    So an option may get a new knob, with a default that changes nothing, and every run stays the run that it is.
    """
    return identify(compared(cfg, choices), cfg, choices)


def identify(found: Mapping[str, Any], cfg: DictConfig, choices: Mapping[str, str]) -> str:
    """Identity of the options and knobs that `compared` found; see `identity_of`."""
    own = defaults(cfg, choices)

    def counts(path: str, value: Any) -> bool:
        if path in GROUPS or path not in own:
            return True
        known = listed(path, choices)
        return not same(value, known.get(path, own[path])) or (not known and own[path] not in OFF)

    counted = {path: whole(value) for path, value in found.items() if counts(path, value)}
    return hashlib.sha256(json.dumps(counted, sort_keys=True).encode()).hexdigest()[:8]


def reads(cfg: DictConfig, option: str) -> bool:
    """True if a group that may read this option names it in its YAML, and is itself read.

    cfg: as it was composed, with its interpolations.
    """
    groups = [cfg[group] for group in READERS[option] if group not in READERS or reads(cfg, group)]
    return any(f"${{{option}}}" in json.dumps(OmegaConf.to_container(group, resolve=False)) for group in groups)


def factors_of(cfg: DictConfig, choices: Mapping[str, str]) -> dict[str, Any]:
    """Levels of this run by factor: the options chosen in each group, the patch and the seed.

    A data set is called by its folder or name as well. None where the network does not read the factor.
    """
    groups = {name: choices[name] for name in ("embed", "model", "data", "augment", "optim")}
    root = root_of_data(cfg, choices)
    if root and "://" not in root:
        root = os.path.realpath(os.path.expanduser(root))  # a link and `.` are called by the folder that they lead to
    if name := root or OmegaConf.select(cfg, "data.name", throw_on_missing=False):
        path = str(name)
        if "://" in path:  # without login and parameters
            path = without_secrets(path).replace(f"{HIDDEN}@", "").partition("?")[0]
        short = as_text(path.rstrip("/").rpartition("/")[2])
        groups["data"] = f"{groups['data']}-{short}" if short.lower() != groups["data"] else groups["data"]
    network = OmegaConf.select(cfg, "model.name", throw_on_missing=False)  # of timm
    if network and not network.startswith(groups["model"]):
        groups["model"] = f"{groups['model']}-{network}"
    levels = groups | {"patch": square(plain(cfg.patch)), "pos": "+".join(sorted(cfg.pos)) or "none", "seed": cfg.seed}
    levels |= {option: None for option in ("embed", "patch", "pos") if not reads(cfg, option)}
    return {name: levels[name] for name in FACTORS}


def root_of_data(cfg: DictConfig, choices: Mapping[str, str]) -> str | None:
    """Folder or URL that a data set is read from; None for a set that is known by its name wherever it lies."""
    own = defaults(cfg, choices)
    if own.get("data.root") == "${data_dir}" or "data.root" not in own:  # downloaded by name into data_dir, or made
        return None
    root = OmegaConf.select(cfg, "data.root", throw_on_missing=False)
    name = OmegaConf.select(cfg, "data.name", throw_on_missing=False)
    if root is None and name and os.path.isdir(os.path.expanduser(str(name))):
        root = name
    return None if root is None else str(root)


def asked(cfg: DictConfig) -> dict[str, Any]:
    """The options `eval.*`. Where the network reads no patch, `patch` is no part of the run, but of the question."""
    views: Any = OmegaConf.to_container(cfg.eval, resolve=True)
    if views["patch"] is None and not reads(cfg, "patch"):
        views["patch"] = square(plain(cfg.patch))
    return views


def answered(record: Mapping[str, Any], cfg: DictConfig) -> bool:
    """True if the record of a run has all figures that the options `eval.*` ask for."""
    wanted = asked(cfg)
    return wanted == record["eval"] or not any(wanted[name] for name in ("img_size", "shuffle", "move"))


def analysed(record: Mapping[str, Any], cfg: DictConfig) -> bool:
    """True if the record of a run has the numbers that `analyze=true` asks for."""
    return not cfg.analyze or any(name.startswith("analysis/") for name in record["result"])


DEFAULTS: dict[str, dict[str, Any]] = {}  # of options that were composed before, by `group=option`


def defaults(cfg: DictConfig, choices: Mapping[str, str]) -> dict[str, Any]:
    """Defaults of the options of this run, by path, with their interpolations."""
    options = [f"{group}={choices[group]}" for group in GROUPS if group != "pos"]
    options.append(f"pos=[{','.join(sorted(cfg.pos))}]" if cfg.pos else "pos=none")
    if new := [option for option in options if option not in DEFAULTS]:
        tree: Any = OmegaConf.to_container(composed(new), resolve=False)
        for option in new:
            group = option.partition("=")[0]
            DEFAULTS[option] = dict(leaves(tree[group], group))
        top = {f.name: tree[f.name] for f in fields(Compared) if f.name not in GROUPS}
        DEFAULTS.setdefault("", top)
    return {path: value for option in ("", *options) for path, value in DEFAULTS[option].items()}


def listed(path: str, choices: Mapping[str, str]) -> dict[str, Any]:
    """The baseline of the option that a knob belongs to; empty where the option is not listed."""
    group, *inner = path.split(".")
    option = "train" if group not in GROUPS else f"{group}/{inner[0] if group == 'pos' else choices[group]}"
    return baseline().get(option, {})


def leaves(tree: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Paths and values of a nested mapping; lists are values."""
    if isinstance(tree, dict) and tree:
        for name, value in tree.items():
            yield from leaves(value, f"{path}.{name}")
    elif path != "pos":
        yield path, tree


def plain(value: Any) -> Any:
    """A list or mapping of OmegaConf's as one of Python's; any other value as it is."""
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value


def square(value: Any) -> Any:
    """S in place of [S,S]."""
    return value[0] if isinstance(value, list) and len(value) == 2 and value[0] == value[1] else value


def same(one: Any, other: Any) -> bool:
    """True if two values of a knob are equal; 0 and false are not."""
    return one == other and isinstance(one, bool) == isinstance(other, bool)


def whole(value: Any) -> Any:
    """A float that is whole as an integer, so that `0.0` and `0` are one value."""
    if isinstance(value, list):
        return [whole(each) for each in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
