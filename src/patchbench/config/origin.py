"""Origin of a run: what its record and its checkpoints keep of the configuration, and the way back from there."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from patchbench.config.compose import composed, without_hydra
from patchbench.config.identity import compared, factors_of, identify, leaves, listed, plain, same
from patchbench.config.knobs import BUILDING
from patchbench.config.names import display_name
from patchbench.config.options import GROUPS
from patchbench.config.trusted import check_options, check_target, check_targets, check_value
from patchbench.data.source import Source
from patchbench.redact import HIDDEN, without_secrets
from patchbench.runs.provenance import changed, code, module_of

ELSEWHERE = "give hydra.run.dir (in a sweep, hydra.sweep.subdir) a folder of its own, or leave it out"
MEASURED = ("channels", "range", "mean", "std")  # knobs of a data set whose null or auto is measured
TRUNK = (  # beside the parts that the options name
    "patchbench.train.task.Classify",
    "patchbench.train.trainer.make_trainer",
    "patchbench.data.batches.Batches",
    "patchbench.evaluate.test.test",
    "patchbench.weights.load.load",
)


def origin_of(cfg: DictConfig, choices: Mapping[str, str]) -> dict[str, Any]:
    """Describe a run in plain values: its identity, name, factors, options, knobs, code and whole configuration.

    Records and checkpoints are passed on: passwords and tokens, as of a URL of data, are left out.
    choices: the option taken in each group.
    """
    levels, found, parts = factors_of(cfg, choices), compared(cfg, choices), dict(targets(cfg))
    return {
        "identity": identify(found, cfg, choices),
        "name": display_name(levels),
        "factors": levels,
        "options": {group: choices[group] for group in GROUPS if group != "pos"} | {"pos": sorted(cfg.pos)},
        "compared": found,
        "targets": {path: name if module_of(name) is None else name.rpartition(".")[2] for path, name in parts.items()},
        "code": code([*parts.values(), *TRUNK]),
        "config": without_secrets(OmegaConf.to_container(without_hydra(cfg), resolve=True)),
    }


def measured(origin: Mapping[str, Any], source: Source) -> dict[str, Any]:
    """Add to an origin what its data set was found to be: other images are read, scaled and labelled alike."""
    data = origin["config"]["data"]
    found = {name: getattr(source, name) for name in MEASURED if name in data}
    found = {name: list(value) if isinstance(value, tuple) else value for name, value in found.items()}
    classes = getattr(source, "classes", None) if "classes" in data else None
    names = {} if classes is None else {"classes": list(classes)}
    return {**origin, **names, "config": origin["config"] | {"data": data | found}}


def targets(cfg: DictConfig) -> Iterator[tuple[str, str]]:
    """Paths and names of the classes and functions that the options of a run are built from."""
    tree = OmegaConf.to_container(OmegaConf.masked_copy(cfg, list(GROUPS)), resolve=False)
    return ((path[1:], str(value)) for path, value in leaves(tree, "") if path.endswith("._target_"))


def changes(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """List the modules, parts and defaults that have changed between two origins of equal identity.

    A knob that only one of them knows changes nothing.
    """
    knobs = [
        f"{path}={value} then, {now['compared'][path]} now"
        for path, value in then["compared"].items()
        if path in now["compared"] and now["compared"][path] != value
    ]
    parts = [
        f"{path}={then['targets'][path]} then, {name} now"
        for path, name in now["targets"].items()
        if then["targets"].get(path, name) != name
    ]
    return [*changed(then["code"], now["code"]), *parts, *knobs]


def differences(here: Mapping[str, Any], there: Mapping[str, Any]) -> str:
    """Options and knobs that two runs differ in, four at most."""
    ours, theirs = here["compared"], there["compared"]
    differing = [path for path in {**theirs, **ours} if ours.get(path) != theirs.get(path)]
    listed = ", ".join(f"{path}={theirs.get(path)} there, {ours.get(path)} here" for path in differing[:4])
    return listed + ", ..." * (len(differing) > 4)


def another_run(folder: Path, here: Mapping[str, Any], there: Mapping[str, Any]) -> str:
    """Say that a folder holds another run, what differs, and the cure."""
    return f"{folder} holds another run ({differences(here, there)}): {ELSEWHERE}"


def restored(origin: Mapping[str, Any], data_root: str | None = None) -> DictConfig:
    """Compose the options of a run as they are today, and lay the values of its knobs over them.

    A knob that is newer than the run stands at its value of the baseline, or at its default, and a part may have moved:
    neither changes what the run computes. data_root: where the data lie now. ValueError for an option or a knob that
    there is no more, and for a data_root of a set that has none.
    """
    check_origin(origin)
    options = dict(origin["options"])
    schemes = ",".join(options.pop("pos"))
    chosen = [
        f"pos=[{schemes}]" if schemes else "pos=none",
        *(f"{group}={option}" for group, option in options.items()),
    ]
    cfg = without_hydra(composed(chosen))
    stored = {name: part for name, part in origin["config"].items() if name not in ("trainer", "logger", "eval")}
    values = [
        (path.lstrip("."), value) for path, value in leaves(stored, "") if path.rpartition(".")[2] not in BUILDING
    ]
    known = {path for path, _ in values}
    values = [
        *((path, old) for group in options for path, old in listed(f"{group}.", options).items() if path not in known),
        *values,
    ]
    values += [(path, value) for path, value in origin["compared"].items() if path.endswith("._target_")]
    for follows in (False, True):  # first what others point to; after that, only what does not follow from it
        for path, value in values:
            if is_interpolated(cfg, path) == follows:
                lay(cfg, path, value, origin)
    check_targets(OmegaConf.to_container(cfg, resolve=False))  # type: ignore[arg-type]
    if "pretrained" in cfg.embed:
        cfg.embed.pretrained = False  # the checkpoint holds what training made of those weights
    if "classes" in cfg.data and "classes" in origin:
        cfg.data.classes = origin["classes"]
    if data_root is not None and "root" not in cfg.data.keys():  # noqa: SIM118
        raise ValueError(f"data_root={data_root}: data={origin['options']['data']} has no folder: leave it out")
    if data_root is not None:
        cfg.data.root = data_root
    if hidden := [path for path, value in leaves(plain(cfg.data), "data") if HIDDEN in str(value)]:
        kept = f"{hidden[0]}={OmegaConf.select(cfg, hidden[0])}"
        cure = "give data_root=<its folder or URL>" if hidden[0] == "data.root" else "train.py alone can be given it"
        raise ValueError(f"the checkpoint keeps no passwords and tokens, and says {kept}: {cure}")
    return cfg


def check_origin(origin: Mapping[str, Any]) -> None:
    """ValueError for an origin that no run of ours leaves behind, whatever it would make this program do."""
    check_options(origin["options"])
    for path, value in origin["compared"].items():
        if path.endswith("._target_"):
            check_target(path, str(value))
    check_value("config", origin["config"])
    check_value("data.classes", origin.get("classes", []))


def is_interpolated(cfg: DictConfig, path: str) -> bool:
    """True if a value, or a mapping around it, is an interpolation."""
    node: Any = cfg
    for key in path.split("."):
        if not OmegaConf.is_dict(node) or key not in node:
            return False
        if OmegaConf.is_interpolation(node, key):
            return True
        node = node._get_node(key)
    return False


def lay(cfg: DictConfig, path: str, value: Any, origin: Mapping[str, Any]) -> None:
    """Set one value, unless it is there. ValueError where there is no such knob any more, and the run depends on it."""
    parent, _, key = path.rpartition(".")
    node = OmegaConf.select(cfg, parent) if parent else cfg
    if OmegaConf.is_dict(node) and key in node.keys():  # noqa: SIM118, a value to be given is no member
        if OmegaConf.select(cfg, path, throw_on_missing=False) != value:
            OmegaConf.update(cfg, path, value)
    elif node is None:  # a mapping in place of null, as data.options
        OmegaConf.update(cfg, path, value, force_add=True)
    elif path in origin["compared"] and not same(value, listed(path, origin["options"]).get(path)):
        raise ValueError(f"the run was trained with {path}={value}, a knob that this version does not have")
