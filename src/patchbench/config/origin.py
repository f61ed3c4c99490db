"""Origin of a run: the description of its configuration in records and checkpoints, and the way back from there."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from patchbench.config.compose import composed, without_hydra
from patchbench.config.identity import baseline_of, compared, equal_values, factors_of, identify, leaves, to_plain
from patchbench.config.knobs import BUILDING
from patchbench.config.names import display_name
from patchbench.config.options import GROUPS
from patchbench.config.trusted import check_options, check_target, check_targets, check_value
from patchbench.data.source import Source
from patchbench.redact import HIDDEN, without_secrets
from patchbench.runs.provenance import changed, code, module_of

OWN_FOLDER = "give hydra.run.dir (in a sweep, hydra.sweep.subdir) a folder of its own, or leave it out"
MEASURED = ("channels", "range", "mean", "std")  # knobs of a data set that are measured if they are null or auto
TRUNK = (  # code of every run, in addition to the targets of its options
    "patchbench.train.task.Classify",
    "patchbench.train.trainer.make_trainer",
    "patchbench.data.batches.Batches",
    "patchbench.evaluate.test.test",
    "patchbench.weights.load.load",
    "patchbench.nets.freeze.freeze",
)


def origin_of(cfg: DictConfig, choices: Mapping[str, str]) -> dict[str, Any]:
    """Describe a run by plain values: identity, name, factors, options, knobs, code and the whole configuration.

    Passwords and tokens, such as those in a URL of data, are removed, since records and checkpoints are shared.
    choices: the option chosen in each group.
    """
    levels, knobs, parts = factors_of(cfg, choices), compared(cfg, choices), dict(targets(cfg))
    return {
        "identity": identify(knobs, cfg, choices),
        "name": display_name(levels),
        "factors": levels,
        "options": {group: choices[group] for group in GROUPS if group != "pos"} | {"pos": sorted(cfg.pos)},
        "compared": knobs,
        "targets": {path: name if module_of(name) is None else name.rpartition(".")[2] for path, name in parts.items()},
        "code": code([*parts.values(), *TRUNK]),
        "config": without_secrets(OmegaConf.to_container(without_hydra(cfg), resolve=True)),
    }


def with_measured(origin: Mapping[str, Any], source: Source) -> dict[str, Any]:
    """Add the measured knobs and the class names of a data set to an origin, so that other images are read alike."""
    data = origin["config"]["data"]
    values = {name: getattr(source, name) for name in MEASURED if name in data}
    values = {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
    classes = getattr(source, "classes", None) if "classes" in data else None
    names = {} if classes is None else {"classes": list(classes)}
    return {**origin, **names, "config": origin["config"] | {"data": data | values}}


def targets(cfg: DictConfig) -> Iterator[tuple[str, str]]:
    """Return path and dotted name of each `_target_` in the options of a run."""
    tree = OmegaConf.to_container(OmegaConf.masked_copy(cfg, list(GROUPS)), resolve=False)
    return ((path[1:], str(value)) for path, value in leaves(tree, "") if path.endswith("._target_"))


def changes(earlier: Mapping[str, Any], current: Mapping[str, Any]) -> list[str]:
    """List the modules, targets and values of knobs that differ between two origins of equal identity.

    A knob that only one origin has is no change.
    """
    knobs = [
        f"{path}={value} then, {current['compared'][path]} now"
        for path, value in earlier["compared"].items()
        if path in current["compared"] and current["compared"][path] != value
    ]
    parts = [
        f"{path}={earlier['targets'][path]} then, {name} now"
        for path, name in current["targets"].items()
        if earlier["targets"].get(path, name) != name
    ]
    return [*changed(earlier["code"], current["code"]), *parts, *knobs]


def differences(current: Mapping[str, Any], stored: Mapping[str, Any]) -> str:
    """List the options and knobs in which two runs differ, at most four."""
    new, old = current["compared"], stored["compared"]
    differing = [path for path in {**old, **new} if new.get(path) != old.get(path)]
    listed = ", ".join(f"{path}={old.get(path)} there, {new.get(path)} here" for path in differing[:4])
    return listed + ", ..." * (len(differing) > 4)


def other_run_message(folder: Path, current: Mapping[str, Any], stored: Mapping[str, Any]) -> str:
    """Say that a folder contains another run, list the differences, and name the cure."""
    return f"{folder} holds another run ({differences(current, stored)}): {OWN_FOLDER}"


def restored(origin: Mapping[str, Any], data_root: str | None = None) -> DictConfig:
    """Compose the present options of a run, and set its knobs to their stored values.

    A knob that is newer than the run has its value of the baseline, or its default, and a class may have been moved:
    neither changes the computation. data_root: present folder of the data. ValueError for an option or a knob that no
    longer exists, and for data_root if the data set has no folder.
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
    settings = [
        (path.lstrip("."), value) for path, value in leaves(stored, "") if path.rpartition(".")[2] not in BUILDING
    ]
    known = {path for path, _ in settings}
    listed = {path: value for group in options for path, value in baseline_of(f"{group}.", options).items()}
    settings = [*((path, value) for path, value in listed.items() if path not in known), *settings]
    settings += [(path, value) for path, value in origin["compared"].items() if path.endswith("._target_")]
    for follows in (False, True):  # plain values first; then the interpolations that do not already follow from them
        for path, value in settings:
            if is_interpolated(cfg, path) == follows:
                set_knob(cfg, path, value, origin)
    check_targets(OmegaConf.to_container(cfg, resolve=False))  # type: ignore[arg-type]
    if "pretrained" in cfg.embed:
        cfg.embed.pretrained = False  # the trained weights are in the checkpoint
    if "classes" in cfg.data and "classes" in origin:
        cfg.data.classes = origin["classes"]
    if data_root is not None and "root" not in cfg.data.keys():  # noqa: SIM118
        raise ValueError(f"data_root={data_root}: data={origin['options']['data']} has no folder: leave it out")
    if data_root is not None:
        cfg.data.root = data_root
    if hidden := [path for path, value in leaves(to_plain(cfg.data), "data") if HIDDEN in str(value)]:
        shown = f"{hidden[0]}={OmegaConf.select(cfg, hidden[0])}"
        cure = "give data_root=<its folder or URL>" if hidden[0] == "data.root" else "train.py alone can be given it"
        raise ValueError(f"the checkpoint contains no passwords and tokens, only {shown}: {cure}")
    return cfg


def check_origin(origin: Mapping[str, Any]) -> None:
    """Raise ValueError for an origin that no run writes, and that could make this program run foreign code."""
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


def set_knob(cfg: DictConfig, path: str, value: Any, origin: Mapping[str, Any]) -> None:
    """Set one value, unless it is equal. ValueError if the knob no longer exists and the run depends on its value."""
    parent, _, key = path.rpartition(".")
    node = OmegaConf.select(cfg, parent) if parent else cfg
    if OmegaConf.is_dict(node) and key in node.keys():  # noqa: SIM118, `in node` is false for a missing value
        if OmegaConf.select(cfg, path, throw_on_missing=False) != value:
            OmegaConf.update(cfg, path, value)
    elif node is None:  # a mapping in place of null, for example data.options
        OmegaConf.update(cfg, path, value, force_add=True)
    elif path in origin["compared"] and not equal_values(value, baseline_of(path, origin["options"]).get(path)):
        raise ValueError(f"the run was trained with {path}={value}, a knob that this version does not have")
