"""Messages for mistakes at the command line: one line for what Hydra and OmegaConf say in a paragraph, and the cure."""

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

OBJECTIONS = HydraException, OmegaConfBaseException  # to a command line
EXTRAS = {"submitit_slurm": "slurm", "optuna": "optuna"}  # options of Hydra's plugins: the extra that brings them
WORDS = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "text"}  # of types
MEANT = {  # what other tools call an option of a group
    "data=imagenet": "data=imagefolder data.root=<folder>",
    "data=mnist": "data=torchvision data.name=MNIST",
    "data=folder": "data=imagefolder data.root=<folder>",
    "optim=adam": "optim=adamw",
    "trainer=cuda": "trainer=auto",
    "trainer=default": "trainer=auto",
    "trainer=gpu": "trainer=auto",
}
MORE = {  # where further options of a group come from
    "data": "; other sets by name: data=torchvision data.name=<name>, data=hf data.name=<name>",
    "model": "; other networks by name: model=timm model.name=<name>",
    "optim": "; others by a file of your own, conf/optim/<name>.yaml",
}
ELSEWHERE = {  # what timm, Lightning and others call an option, by its last part: what it is called here
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
    """Say in one line what Hydra says in a paragraph, without the passwords and tokens of URLs.

    given: the arguments; command: the script that they were given to, as conf/<command>.yaml is called.
    """
    return without_secrets(explained(error, given, command))


def explained(error: BaseException, given: Sequence[str], command: str) -> str:
    """Say in one line what Hydra says in a paragraph; see `explain`."""
    while isinstance(error, OBJECTIONS) and isinstance(error.__cause__, OBJECTIONS):
        if match := re.search(r"Could not override '(.+?)'", str(error)):
            return no_option(match[1], given, command)
        error = error.__cause__
    text = " ".join(str(error).split())
    if isinstance(error, OverrideParseException):
        return unreadable(str(error.override))
    if match := re.search(r"Could not (?:find|load) '([^']+)/([^'/]+)'", text):
        return no_option_of_group(*match.groups())
    if match := re.search(r"Could not override '(.+?)'", text) or re.search(r"Key '.+?' .*full_key: (\S+)", text):
        return no_option(match[1], given, command)
    if match := re.search(r"Could not append to config. An item is already at '(.+?)'", text):
        override = typed(match[1], given).lstrip("+")
        return f"+{override} adds an option that is there: change it by {override}"
    if match := re.search(r"Multiple values for (\S+)\. To override", text):
        override = typed(match[1], given).lstrip("+")
        return f"+{override} adds a choice to a group that has one: change it by {override}"
    refused = r"(?:Value '(.*)'|field '(\w+)' is not Optional|Non optional|Cannot convert '\w+' to)"
    if match := re.search(rf"{refused}.*full_key: (\S+)", text):
        shown = typed(match[3], given, f"{match[3]}={match[1]}")
        return f"{shown} must be {type_of(match[3], command)}{example(match[3])}"
    if match := re.search(r"Missing mandatory value: (\S+)", text):
        return f"{match[1]} must be given: {match[1]}=<value>"
    if match := re.search(r"Environment variable '(\S+)' not found.*full_key: (\S+)", text):
        shown = typed(match[2], given)
        return f"{shown}: the environment variable {match[1]} is not set: export {match[1]}=<value> first"
    if match := re.search(r"Interpolation key '(\S+)' not found.*full_key: (\S+)", text):
        return f"{typed(match[2], given)}: there is no option {match[1]}: {did_you_mean(match[1], given, command)}"
    if match := re.search(r"Unsupported interpolation type (\S+).*full_key: (\S+)", text):
        return f"{typed(match[2], given)}: there is no ${{{match[1]}:...}}: an environment variable is ${{oc.env:NAME}}"
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
    """Tell how to write an argument that Hydra cannot read."""
    key, equals, value = override.partition("=")
    if not equals or not re.fullmatch(r"[+~\w./@-]+", key):
        return f"cannot read the argument {override!r}: write group=option, or knob=value"
    if value.startswith(("[", "{", "'", '"')) or re.match(r"\w+\(", value):
        return f"cannot read {override}: its brackets or quotes do not match; a list is written 'knob=[a,b]', in quotes"
    if value.startswith("~"):
        value = os.path.expanduser(value)
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    if readable(f"{key}={value}"):
        return f"cannot read {override}: write {key}={value}"
    written = f'{key}="{escaped}"'
    return f"cannot read {override}: write {shlex.quote(written)}, quotes included"


def readable(override: str) -> bool:
    """True if Hydra reads an argument."""
    try:
        OverridesParser.create().parse_override(override)
    except HydraException:
        return False
    return True


def no_option_of_group(group: str, option: str) -> str:
    """Say that a group has no such option, and which it has."""
    if option in EXTRAS:
        extra = EXTRAS[option]
        return f"{group}={extra} needs packages that are not installed: pip install -e '.[{extra}]'"
    options = sorted(path.stem for path in (CONF / group).glob("*.yaml"))
    if not options:
        return f"{group}={option} is no option: there is no group {group}; groups are {', '.join(groups())}"
    parts = [part for part in re.split(r"[\s+,;]+", option) if part]
    if group == "pos" and len(parts) > 1 and set(parts) <= set(options):
        return f"pos={option} is no option: several schemes are a list, 'pos=[{','.join(parts)}]'"
    close = [MEANT[f"{group}={option}"]] if f"{group}={option}" in MEANT else nearest(option.lower(), options)
    meant = close and (close[0] if "=" in close[0] else f"{group}={close[0]}")
    hint = f"did you mean {meant}? " if meant else ""
    return f"{group}={option} is no option: {hint}{group} may be {', '.join(options)}{MORE.get(group, '')}"


def no_option(key: str, given: Sequence[str], command: str) -> str:
    """Say that there is no such option, and which was meant."""
    return f"{typed(key, given)} is no option: {did_you_mean(key, given, command)}"


def did_you_mean(key: str, given: Sequence[str], command: str) -> str:
    """Name the option that was meant: of another option of its group, of the same or a near name, or all there are."""
    key = key.replace("-", "_")
    name = key.rpartition(".")[2]
    keys = present(key, given, command)
    if key == "data.root" and "data_root" in keys and "data" not in keys:
        return "did you mean data_root?"
    if (owners := knobs().get(key)) and (key.partition(".")[0] in keys or key.startswith("hydra")):
        return f"it belongs to {among(owners)}: add one of these" if len(owners) > 1 else f"add {next(iter(owners))}"
    if same := sorted((k for k in keys if k.rpartition(".")[2] == name), key=len):
        return f"did you mean {' or '.join(same[:2])}?"
    if command in ("train", "explain"):
        if name in ELSEWHERE:
            return f"did you mean {ELSEWHERE[name]}?"
        if key.startswith("trainer.") and name in LIGHTNING:
            return LIGHTNING[name]
        if same := sorted((k for k in knobs() if k.rpartition(".")[2] == name and not k.startswith("hydra")), key=len):
            return f"did you mean {same[0]}, of {among(knobs()[same[0]])}?"
    parent = key.rpartition(".")[0]
    siblings = [k.rpartition(".")[2] for k in keys if k.rpartition(".")[0] == parent]
    cousins = {k.rpartition(".")[2]: k for k in knobs() if k.rpartition(".")[0] == parent}
    if siblings and parent:
        if close := nearest(name, siblings):
            return f"did you mean {parent}.{close[0]}?"
        if close := nearest(name, cousins):
            return f"did you mean {cousins[close[0]]}, of {among(knobs()[cousins[close[0]]])}?"
        return f"{parent} has {', '.join(siblings)}"
    if close := nearest(key, keys):
        return f"did you mean {close[0]}?"
    if close := nearest(name, {k.rpartition(".")[2]: k for k in keys}):
        return f"did you mean {min((k for k in keys if k.rpartition('.')[2] == close[0]), key=len)}?"
    if command not in ("train", "explain"):
        return f"options are {', '.join(k for k in keys if '.' not in k)}"
    return f"python {'train.py' if command == 'train' else 'scripts/explain.py'} --help lists all there are"


def present(key: str, given: Sequence[str], command: str) -> list[str]:
    """Options and knobs of the configuration that the other arguments make; those that follow another are left out."""
    rest = [a for a in given if a[0] not in "+~-" and "," not in a and a.split("=")[0] != key]
    for arguments in (rest, []):
        try:
            cfg = composed(arguments, command)
        except (*OBJECTIONS, ValueError):
            continue
        tree: Any = OmegaConf.to_container(cfg if key.startswith("hydra") else without_hydra(cfg), resolve=False)
        follows = re.compile(r"\$\{[\w.]+\}")
        own = [path for path, value in paths(tree) if not (isinstance(value, str) and follows.fullmatch(value))]
        return [path for path in own if not path.endswith("_target_")]
    return []


def among(owners: Iterable[str]) -> str:
    """Options of one group, four at most, as in `embed=overlap, embed=overlap_sum`."""
    listed = list(owners)
    return ", ".join(listed[:4]) + ", ..." * (len(listed) > 4)


def typed(key: str, given: Sequence[str], otherwise: str = "") -> str:
    """The last argument that sets a key, as it was typed."""
    found = [a for a in given if a.lstrip("+~").partition("=")[0] == key]
    return found[-1] if found else otherwise or key


def type_of(key: str, command: str) -> str:
    """The type of an option outside the groups, in words."""
    hints = get_type_hints(SCHEMAS["schema" if command == "train" else f"{command}_schema"])
    names = re.findall(r"\w+", getattr(hints.get(key), "__name__", str(hints.get(key))))
    return " or ".join(WORDS.get(name, "null") for name in names if name in (*WORDS, "None")) or "given"


def example(key: str, suits: Callable[[Any], bool] = lambda default: True) -> str:
    """A value that an option takes, as in `, as in patch=16`; empty where no default of it suits."""
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
