"""Identity of a run: names of the options and values of the knobs on which its result depends, and nothing else.

The identity depends neither on the layout of the code, nor on the location of the data, nor on how the run is executed.
The version of the code is part of the provenance: runs/provenance.py.
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
from patchbench.machine import printable
from patchbench.redact import HIDDEN, without_secrets
from patchbench.runs.metrics import FACTORS

READERS = {  # groups that may read an option
    "embed": ["model"],
    "pos": ["model"],
    "patch": ["model", "embed"],
    "residual": ["model"],
    "epochs": ["budget"],
}
PLACES = ("data.root", "data.index_dir")  # knobs with the location of the data
LIMITS = ("data.max_skipped",)  # knobs that may end a run with an error, but change no result
TRAINER = ("trainer.max_time", "trainer.limit_val_batches")  # knobs of the trainer that change the result
SIZES = ("patch", "data.img_size")  # S and [S,S] are equal
OFF: tuple[Any, ...] = (None, False, 0, "", [], {})
BASELINE = Path(__file__).with_name("baseline.json")


@functools.cache
def baseline() -> dict[str, dict[str, Any]]:
    """Read the values at which knobs add nothing to an identity, by option (`train`, or group/name) and path.

    They are the defaults at the time when an option was listed. A default that changes later makes another run.
    """
    return json.loads(BASELINE.read_text())


def compared(cfg: DictConfig, choices: Mapping[str, str]) -> dict[str, Any]:
    """Return the options and knobs on which the result of this run depends, by path: `embed`, `embed.pad`, `optim.lr`.

    choices: the option chosen in each group.

    - An interpolation is replaced by its value. It is left out if it is a default of a listed option, since the value
      counts at the path to which it points. An interpolation of the seed stays as it is, since the seed counts itself:
      runs of different seeds differ in nothing else.
    - A `_target_` counts if it is not that of the option.
    - Options that are not read are left out, such as `epochs` with another budget, or the input stage of a network
      without one. Two cells of a sweep that differ only in such options are the same run.
    - `data.content` is the fingerprint of the folder of data, at any location. A file of weights counts by its content.
    - Knobs of the trainer that change the result count unless they are null.
    - Passwords and tokens are removed.
    """
    tree: Any = OmegaConf.to_container(OmegaConf.masked_copy(cfg, [f.name for f in fields(Compared)]), resolve=False)
    default_of = defaults(cfg, choices)
    knobs: dict[str, Any] = {}
    for name, part in tree.items():
        if name in READERS and not reads(cfg, name):
            continue
        if name in GROUPS:
            knobs[name] = "+".join(sorted(part)) or "none" if name == "pos" else choices[name]
        for path, value in leaves(part, name):
            if path in (*PLACES, *LIMITS) or (path.rpartition(".")[2] in BUILDING and value == default_of.get(path)):
                continue
            if "${" in str(value) and value != "${seed}":
                known = baseline_of(path, choices)
                if known and value == known.get(path, default_of.get(path)):
                    continue
                value = to_plain(OmegaConf.select(cfg, path))
            knobs[path] = short_size(value) if path in SIZES else value
    knobs |= {path: value for path in TRAINER if (value := OmegaConf.select(cfg, path)) is not None}
    if root := root_of_data(cfg, choices):
        if knobs.get("data.name") == root:
            del knobs["data.name"]
        try:
            knobs["data.content"] = content_of(root)
        except OSError as error:  # the data set raises the error, with its cure, when it is built
            knobs["data.content"] = type(error).__name__
    if (weights := knobs.get("model.init_from")) and (file := Path(str(weights)).expanduser()).is_file():
        knobs["model.init_from"] = f"file {digest(file, file.stat().st_mtime_ns, file.stat().st_size)}"
    return without_secrets(knobs)


@functools.cache
def content_of(root: str) -> str:
    """Fingerprint of a folder of data. It is cached in the process, since a million files take seconds."""
    return fingerprint(root)


@functools.cache
def digest(path: Path, modified: int, size: int) -> str:
    """Eight hexadecimal digits of the content of a file. modified, size: keys of the cache: an altered file is read."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:8]


def identity_of(cfg: DictConfig, choices: Mapping[str, str]) -> str:
    """Return eight hexadecimal digits that are equal for runs with equal `compared`, in any order of schemes and keys.

    A knob adds nothing at its value of the baseline. A knob that is not in the baseline adds nothing at its default if
    its option is listed there; in an option that is not listed, only if the default is off (null, false, 0, empty).
    So an option can get a new knob with a neutral default, and the identities of earlier runs stay the same.
    """
    return identify(compared(cfg, choices), cfg, choices)


def identify(knobs: Mapping[str, Any], cfg: DictConfig, choices: Mapping[str, str]) -> str:
    """Return the identity of the options and knobs that `compared` returned; see `identity_of`."""
    default_of = defaults(cfg, choices)

    def counts(path: str, value: Any) -> bool:
        if path in GROUPS or path not in default_of:
            return True
        known = baseline_of(path, choices)
        return not equal_values(value, known.get(path, default_of[path])) or (not known and default_of[path] not in OFF)

    counted = {path: integer_if_whole(value) for path, value in knobs.items() if counts(path, value)}
    return hashlib.sha256(json.dumps(counted, sort_keys=True).encode()).hexdigest()[:8]


def reads(cfg: DictConfig, option: str) -> bool:
    """True if a group that may read this option refers to it in its YAML, and is itself read.

    cfg: composed configuration, with its interpolations.
    """
    groups = [cfg[group] for group in READERS[option] if group not in READERS or reads(cfg, group)]
    return any(f"${{{option}}}" in json.dumps(OmegaConf.to_container(group, resolve=False)) for group in groups)


def factors_of(cfg: DictConfig, choices: Mapping[str, str]) -> dict[str, Any]:
    """Return the levels of this run by factor: the options chosen in each group, the patch and the seed.

    The level of a data set also contains its folder or name. None for a factor that the network does not read.
    """
    groups = {name: choices[name] for name in ("embed", "model", "data", "augment", "optim")}
    root = root_of_data(cfg, choices)
    if root and "://" not in root:
        root = os.path.realpath(os.path.expanduser(root))  # a link, or `.`, gets the name of its folder
    if name := root or OmegaConf.select(cfg, "data.name", throw_on_missing=False):
        path = str(name)
        if "://" in path:  # a URL: its login and parameters are removed
            path = without_secrets(path).replace(f"{HIDDEN}@", "").partition("?")[0]
        short = printable(path.rstrip("/").rpartition("/")[2])
        groups["data"] = f"{groups['data']}-{short}" if short.lower() != groups["data"] else groups["data"]
    network = OmegaConf.select(cfg, "model.name", throw_on_missing=False)  # of timm
    if network and not network.startswith(groups["model"]):
        groups["model"] = f"{groups['model']}-{network}"
    patch, pos = short_size(to_plain(cfg.patch)), "+".join(sorted(cfg.pos)) or "none"
    levels = groups | {"patch": patch, "pos": pos, "seed": cfg.seed}
    levels |= {option: None for option in ("embed", "patch", "pos") if not reads(cfg, option)}
    return {name: levels[name] for name in FACTORS}


def root_of_data(cfg: DictConfig, choices: Mapping[str, str]) -> str | None:
    """Folder or URL from which a data set is read; None for a set that its name alone identifies."""
    default = defaults(cfg, choices).get("data.root")
    if default == "${data_dir}" or "data.root" not in defaults(cfg, choices):  # downloaded into data_dir, or generated
        return None
    root = OmegaConf.select(cfg, "data.root", throw_on_missing=False)
    name = OmegaConf.select(cfg, "data.name", throw_on_missing=False)
    if root is None and name and os.path.isdir(os.path.expanduser(str(name))):
        root = name
    return None if root is None else str(root)


def eval_options(cfg: DictConfig) -> dict[str, Any]:
    """Return the options `eval.*`, with the patch of the command line if the network does not read it."""
    options: Any = OmegaConf.to_container(cfg.eval, resolve=True)
    if options["patch"] is None and not reads(cfg, "patch"):
        options["patch"] = short_size(to_plain(cfg.patch))
    return options


def has_eval_results(record: Mapping[str, Any], cfg: DictConfig) -> bool:
    """True if the record of a run has all results that the options `eval.*` ask for."""
    asked_for = eval_options(cfg)
    return asked_for == record["eval"] or not any(asked_for[name] for name in ("img_size", "shuffle", "move"))


def has_analysis(record: Mapping[str, Any], cfg: DictConfig) -> bool:
    """True if the record of a run has the results that `analyze` asks for."""
    return not cfg.analyze or any(name.startswith("analysis/") for name in record["result"])


DEFAULTS: dict[str, dict[str, Any]] = {}  # cache of `defaults`, by `group=option`


def defaults(cfg: DictConfig, choices: Mapping[str, str]) -> dict[str, Any]:
    """Return the defaults of the options of this run, by path, with their interpolations."""
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


def baseline_of(path: str, choices: Mapping[str, str]) -> dict[str, Any]:
    """Return the baseline of the option to which a knob belongs; empty if the option is not listed."""
    group, *inner = path.split(".")
    option = "train" if group not in GROUPS else f"{group}/{inner[0] if group == 'pos' else choices[group]}"
    return baseline().get(option, {})


def leaves(tree: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Yield path and value of each leaf of a nested mapping; lists are leaves."""
    if isinstance(tree, dict) and tree:
        for name, value in tree.items():
            yield from leaves(value, f"{path}.{name}")
    elif path != "pos":
        yield path, tree


def to_plain(value: Any) -> Any:
    """Convert a list or mapping of OmegaConf to one of Python, and resolve it; return other values as they are."""
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value


def short_size(value: Any) -> Any:
    """Return S for [S,S], and any other value as it is."""
    return value[0] if isinstance(value, list) and len(value) == 2 and value[0] == value[1] else value


def equal_values(one: Any, other: Any) -> bool:
    """True if two values of a knob are equal; 0 and false are different values."""
    return one == other and isinstance(one, bool) == isinstance(other, bool)


def integer_if_whole(value: Any) -> Any:
    """Convert whole floats to integers, also in lists, so that `0.0` and `0` are equal as JSON."""
    if isinstance(value, list):
        return [integer_if_whole(each) for each in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
