"""Messages for mistakes on the command line: one line, with the cure, for each error of Hydra and OmegaConf."""

import os
import re
import shlex
from collections.abc import Callable, Iterable, Sequence
from typing import Any, get_type_hints

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, OverrideParseException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from patchbench.checks import nearest
from patchbench.config.compose import SCHEMAS, composed, without_hydra
from patchbench.config.knobs import groups, knobs, paths
from patchbench.config.options import CONF
from patchbench.redact import without_secrets

HYDRA_ERRORS = HydraException, OmegaConfBaseException
EXTRAS = {"submitit_slurm": "slurm", "optuna": "optuna"}  # option of a plugin of Hydra: the extra that installs it
TYPE_WORDS = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "text"}
OMEGACONF_WORDS = {"Integer": "a whole number", "Float": "a number", "Boolean": "true or false"}
OPTION_ALIASES = {  # names in other tools: the option here
    "data=imagenet": "data=imagefolder data.root=<folder>",
    "data=mnist": "data=torchvision data.name=MNIST",
    "data=folder": "data=imagefolder data.root=<folder>",
    "optim=adam": "optim=adamw",
    "trainer=cuda": "trainer=auto",
    "trainer=default": "trainer=auto",
    "trainer=gpu": "trainer=auto",
}
FURTHER_OPTIONS = {  # hints at further options of a group
    "data": "; other sets by name: data=torchvision data.name=<name>, data=hf data.name=<name>",
    "model": "; other networks by name: model=timm model.name=<name>",
    "optim": "; others by a file of your own, conf/optim/<name>.yaml",
}
KNOB_ALIASES = {  # last part of the name in timm, Lightning and others: the name here
    "accumulate_grad_batches": "trainer.accumulate=",
    "amp": "trainer.precision=",
    "batch": "batch_size=",
    "bs": "batch_size=",
    "checkpoint": "ckpt=",
    "ckpt_path": "ckpt=",
    "default_root_dir": "runs_dir=",
    "data_path": "data.root=",
    "dataset": "data=",
    "drop_path_rate": "model.drop_path=",
    "enable_checkpointing": "keep_checkpoints=",
    "fast_dev_run": "trainer=fast",
    "gpus": "trainer.devices=",
    "gradient_clip_algorithm": "optim.clip_grad=",
    "gradient_clip_val": "optim.clip_grad=",
    "init_values": "model.layer_scale=",
    "learning_rate": "optim.lr=",
    "limit_predict_batches": "limit_batches=",
    "limit_test_batches": "limit_batches=",
    "limit_train_batches": "limit_batches=",
    "log_every_n_steps": "log_every=",
    "max_epochs": "epochs=",
    "max_steps": "budget=steps budget.value=",
    "num_epochs": "epochs=",
    "num_workers": "workers=",
    "optimizer": "optim=",
    "opt": "optim=",
    "output": "runs_dir=",
    "output_dir": "runs_dir=",
    "overfit_batches": "data.train_size=",
    "patch_size": "patch=",
    "pos_embed": "pos=",
    "pretrained": "model.init_from=",
    "resume": "ckpt=",
    "sched": "optim.schedule=",
    "smoothing": "optim.label_smoothing=",
    "steps": "budget=steps budget.value=",
    "wd": "optim.weight_decay=",
}

ENDS = "each epoch ends with a validation and a checkpoint: trainer.limit_val_batches= makes the validation shorter"
LENGTH = "a training is as long as its budget: epochs=, or budget=steps budget.value="
LIGHTNING = {  # arguments of Lightning's Trainer that no option of ours is like: why, or where to find the same
    "barebones": "for a run that keeps little, logger=none keep_checkpoints=none",
    "callbacks": "callbacks are code: commands/train.py lists them",
    "check_val_every_n_epoch": ENDS,
    "enable_autolog_hparams": "records and loggers have the whole configuration already",
    "enable_model_summary": "the first line of a run has it; scripts/explain.py shows the network",
    "enable_progress_bar": "the bar is drawn in a terminal alone",
    "inference_mode": "trainer.strategy decides on it",
    "min_epochs": LENGTH,
    "min_steps": LENGTH,
    "model_registry": "logger.checkpoints=true keeps checkpoints in W&B",
    "num_sanity_val_steps": "network and data are checked before every training",
    "plugins": "checkpoints and clusters depend on those that train/trainer.py sets",
    "reload_dataloaders_every_n_epochs": "the order of the images follows from seed and step",
    "sync_batchnorm": "batch norms see the images of all GPUs already",
    "use_distributed_sampler": "data/batches.py shares the images out among devices, without padding",
    "val_check_interval": ENDS,
}


def explain(error: BaseException, given: Sequence[str] = (), command: str = "train") -> str:
    """Return the message of an error of Hydra in one line, with the cure, and without passwords and tokens.

    given: arguments of the command line. command: name of the script, as in conf/<command>.yaml.
    """
    return without_secrets(explained(error, given, command))


def explained(error: BaseException, given: Sequence[str], command: str) -> str:
    """Return the message of an error of Hydra in one line, with secrets; see `explain`."""
    while isinstance(error, HYDRA_ERRORS) and isinstance(error.__cause__, HYDRA_ERRORS):
        if match := re.search(r"Could not override '(.+?)'", str(error)):
            return unknown_key(match[1], given, command)
        error = error.__cause__
    text = " ".join(str(error).split())
    if isinstance(error, OverrideParseException):
        return unreadable(str(error.override))
    if match := re.search(r"Could not (?:find|load) '([^']+)/([^'/]+)'", text):
        return unknown_option(*match.groups())
    if match := re.search(r"Could not override '(.+?)'", text) or re.search(r"Key '.+?' .*full_key: (\S+)", text):
        return unknown_key(match[1], given, command)
    if match := re.search(r"Could not append to config. An item is already at '(.+?)'", text):
        override = as_typed(match[1], given).lstrip("+")
        return f"+{override} adds an option that is there: change it by {override}"
    if match := re.search(r"Multiple values for (\S+)\. To override", text):
        override = as_typed(match[1], given).lstrip("+")
        return f"+{override} adds a choice to a group that has one: change it by {override}"
    refused = r"(?:Value '(.*)'|field '(\w+)' is not Optional|Non optional|Cannot convert '\w+' to)"
    if match := re.search(rf"{refused}.*full_key: (\S+)", text):
        shown = as_typed(match[3], given, f"{match[3]}={match[1]}")
        wanted = re.search(r"could not be converted to (Integer|Float|Boolean)", text)
        words = OMEGACONF_WORDS[wanted[1]] if wanted else type_of(match[3], command)
        return f"{shown} must be {words}{example(match[3])}"
    if match := re.search(r"Missing mandatory value: (\S+)", text):
        name = full[1] if (full := re.search(r"full_key: (\S+)", text)) else match[1]
        return f"{name} must be given: {name}=<value>"
    if match := re.search(r"Environment variable '(\S+)' not found.*full_key: (\S+)", text):
        shown = as_typed(match[2], given)
        return f"{shown}: the environment variable {match[1]} is not set: export {match[1]}=<value> first"
    if match := re.search(r"Interpolation key '(\S+)' not found.*full_key: (\S+)", text):
        return f"{as_typed(match[2], given)}: there is no option {match[1]}: {did_you_mean(match[1], given, command)}"
    if match := re.search(r"Unsupported interpolation type (\S+).*full_key: (\S+)", text):
        shown = as_typed(match[2], given)
        return f"{shown}: there is no ${{{match[1]}:...}}: an environment variable is ${{oc.env:NAME}}"
    if match := re.search(r"Ambiguous value for argument '(.*?)'", text):
        group, _, values = match[1].partition("=")
        both = f"; both in one network: '{group}=[{values}]'" if group == "pos" else ""
        return f"{match[1]} has several values, one run takes one: to sweep over them, add -m{both}"
    if match := re.search(r"Sweep parameters '(.*?)' requires --multirun", text):
        return f"{match[1]} has several values, one run takes one: to sweep over them, add -m"
    if "does not support sweep type" in text:
        shown = next((argument for argument in given if "interval(" in argument), "interval(...)")
        return f"{shown} has no single values: add hydra/sweeper=search, or list values, as in optim.lr=1e-4,1e-3"
    if match := re.search(r"Cannot find primary config '(.+?)'", text):
        own = "a file of your own begins with `defaults: [train, _self_]`"
        return f"--config-name={match[1]}: there is no conf/{match[1]}.yaml; {own}"
    return text


def unreadable(override: str) -> str:
    """Explain how to write an argument that Hydra cannot parse."""
    key, equals, value = override.partition("=")
    if not equals or not re.fullmatch(r"[+~\w./@-]+", key):
        return f"cannot read the argument {override!r}: write group=option, or knob=value"
    if value.startswith(("[", "{", "'", '"')) or re.match(r"\w+\(", value):
        return f"cannot read {override}: its brackets or quotes do not match; a list is written 'knob=[a,b]', in quotes"
    if len(words := override.replace(",", " ").split()) > 1 and all("=" in word and readable(word) for word in words):
        return f"cannot read {override}: write several options as separate arguments, {' '.join(words)}"
    if value.startswith("~"):
        value = os.path.expanduser(value)
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    if readable(f"{key}={value}"):
        return f"cannot read {override}: write {key}={value}"
    written = f'{key}="{escaped}"'
    return f"cannot read {override}: write {shlex.quote(written)}, quotes included"


def readable(override: str) -> bool:
    """True if Hydra can parse an argument."""
    try:
        OverridesParser.create().parse_override(override)
    except HydraException:
        return False
    return True


def unknown_option(group: str, option: str) -> str:
    """Say that a group has no such option, and list its options."""
    if option in EXTRAS:
        extra = EXTRAS[option]
        return f"{group}={extra} needs packages that are not installed: pip install -e '.[{extra}]'"
    options = sorted(path.stem for path in (CONF / group).glob("*.yaml"))
    if not options:
        return f"{group}={option} is no option: there is no group {group}; groups are {', '.join(groups())}"
    parts = [part for part in re.split(r"[\s+,;]+", option) if part]
    if group == "pos" and len(parts) > 1 and set(parts) <= set(options):
        return f"pos={option} is no option: several schemes are a list, 'pos=[{','.join(parts)}]'"
    alias = OPTION_ALIASES.get(f"{group}={option}")
    close = [alias] if alias else nearest(option.lower(), options)
    meant = close and (close[0] if "=" in close[0] else f"{group}={close[0]}")
    hint = f"did you mean {meant}? " if meant else ""
    return f"{group}={option} is no option: {hint}{group} may be {', '.join(options)}{FURTHER_OPTIONS.get(group, '')}"


def unknown_key(key: str, given: Sequence[str], command: str) -> str:
    """Say that there is no such option, and name the option that was probably meant."""
    return f"{as_typed(key, given)} is no option: {did_you_mean(key, given, command)}"


def did_you_mean(key: str, given: Sequence[str], command: str) -> str:
    """Name the option that was probably meant.

    In this order: a knob of another option of the group, the same name elsewhere, the name of another tool, a similar
    name, or all names.
    """
    key = key.replace("-", "_")
    name = key.rpartition(".")[2]
    keys = keys_of(key, given, command)
    if key == "data.root" and "data_root" in keys and "data" not in keys:
        return "did you mean data_root?"
    if (owners := knobs().get(key)) and (key.partition(".")[0] in keys or key.startswith("hydra")):
        several = f"it belongs to {first_four(owners)}: add one of these"
        return several if len(owners) > 1 else f"add {next(iter(owners))}"
    if same := sorted((k for k in keys if k.rpartition(".")[2] == name), key=len):
        return f"did you mean {' or '.join(same[:2])}?"
    if command in ("train", "explain"):
        if name in KNOB_ALIASES:
            return f"did you mean {KNOB_ALIASES[name]}?"
        if key.startswith("trainer.") and name in LIGHTNING:
            return LIGHTNING[name]
        if same := sorted((k for k in knobs() if k.rpartition(".")[2] == name and not k.startswith("hydra")), key=len):
            return f"did you mean {same[0]}, of {first_four(knobs()[same[0]])}?"
    parent = key.rpartition(".")[0]
    siblings = [k.rpartition(".")[2] for k in keys if k.rpartition(".")[0] == parent]
    others = {k.rpartition(".")[2]: k for k in knobs() if k.rpartition(".")[0] == parent}
    if siblings and parent:
        if close := nearest(name, siblings):
            return f"did you mean {parent}.{close[0]}?"
        if close := nearest(name, others):
            return f"did you mean {others[close[0]]}, of {first_four(knobs()[others[close[0]]])}?"
        return f"{parent} has {', '.join(siblings)}"
    if close := nearest(key, keys):
        return f"did you mean {close[0]}?"
    if close := nearest(name, {k.rpartition(".")[2]: k for k in keys}):
        return f"did you mean {min((k for k in keys if k.rpartition('.')[2] == close[0]), key=len)}?"
    if command not in ("train", "explain"):
        return f"options are {', '.join(k for k in keys if '.' not in k)}"
    return f"python {'train.py' if command == 'train' else 'scripts/explain.py'} --help lists all there are"


def keys_of(key: str, given: Sequence[str], command: str) -> list[str]:
    """List the options and knobs of the configuration of the other arguments, without those that are interpolations."""
    rest = [a for a in given if a[0] not in "+~-" and "," not in a and a.split("=")[0] != key]
    for arguments in (rest, []):
        try:
            cfg = composed(arguments, command)
        except (*HYDRA_ERRORS, ValueError):
            continue
        tree: Any = OmegaConf.to_container(cfg if key.startswith("hydra") else without_hydra(cfg), resolve=False)
        follows = re.compile(r"\$\{[\w.]+\}")
        direct = [path for path, value in paths(tree) if not (isinstance(value, str) and follows.fullmatch(value))]
        return [path for path in direct if not path.endswith("_target_")]
    return []


def first_four(owners: Iterable[str]) -> str:
    """List at most four options: `embed=overlap, embed=overlap_sum, ...`."""
    listed = list(owners)
    return ", ".join(listed[:4]) + ", ..." * (len(listed) > 4)


def as_typed(key: str, given: Sequence[str], otherwise: str = "") -> str:
    """Return the last argument that sets a key, as typed."""
    matching = [a for a in given if a.lstrip("+~").partition("=")[0] == key]
    return matching[-1] if matching else otherwise or key


def type_of(key: str, command: str) -> str:
    """Describe the type of an option outside of the groups."""
    hints = get_type_hints(SCHEMAS["schema" if command == "train" else f"{command}_schema"])
    names = re.findall(r"\w+", getattr(hints.get(key), "__name__", str(hints.get(key))))
    return " or ".join(TYPE_WORDS.get(name, "null") for name in names if name in (*TYPE_WORDS, "None")) or "given"


def example(key: str, suits: Callable[[Any], bool] = lambda default: True) -> str:
    """Return an example of a value, `, as in patch=16`; empty if no default of the option satisfies `suits`."""
    top: Any = OmegaConf.to_container(OmegaConf.load(CONF / "train.yaml"), resolve=False)
    usual = [
        f"{group}={option}" for entry in top["defaults"] if isinstance(entry, dict) for group, option in entry.items()
    ]
    defaults = knobs().get(key, {})
    values = [top.get(key), *(defaults.get(option) for option in usual), *defaults.values()]
    for value in values:
        hidden = value is None or value == "???" or isinstance(value, dict) or "$" in str(value)
        if not hidden and suits(value):
            return f", as in {key}={str(value).lower() if isinstance(value, bool) else str(value).replace(' ', '')}"
    return ""
