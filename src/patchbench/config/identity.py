"""What makes a run the run that it is: its identity, its levels, its name."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from omegaconf import DictConfig, OmegaConf

from patchbench.config.options import Compared
from patchbench.runs.metrics import FACTORS


def command_line(levels: Mapping[str, Any]) -> str:
    """The options as train.py takes them; knobs inside the groups are not repeated."""
    told = {name: levels[name] for name in ("embed", "patch", "pos", "data", "augment", "model", "seed")}
    if "+" in (told["pos"] or ""):
        told["pos"] = f"[{told['pos'].replace('+', ',')}]"
    if told["augment"] == "none":
        told["augment"] = None
    return " ".join(f"{name}={str(level).replace(' ', '')}" for name, level in told.items() if level is not None)


READERS = {"embed": ["model"], "pos": ["model"], "patch": ["model", "embed"], "epochs": ["budget"]}  # by option


def compared(cfg: DictConfig) -> dict[str, Any]:
    """The part of the configuration that is the run's identity, interpolations not followed.

    `${data_dir}` stays as it is: where data lies does not matter. What is not read drops out, `epochs` by the budget,
    the input stage by the network, so that two cells of a sweep that differ only there are the same run.
    """
    part = OmegaConf.to_container(OmegaConf.masked_copy(cfg, [f.name for f in fields(Compared)]), resolve=False)
    assert isinstance(part, dict)
    for option in READERS:
        if not reads(cfg, option):
            del part[option]
    return part  # type: ignore[return-value]


def reads(cfg: DictConfig, option: str) -> bool:
    """Whether the YAML of a group names it that may read this option, and is itself read.

    cfg: as it was composed, with its interpolations.
    """
    groups = [cfg[group] for group in READERS[option] if group not in READERS or reads(cfg, group)]
    return any(f"${{{option}}}" in json.dumps(OmegaConf.to_container(group, resolve=False)) for group in groups)


def identity_of(cfg: DictConfig) -> str:
    """Eight hexadecimal digits: equal for equal comparisons, whatever the order in which schemes or keys are named."""
    return hashlib.sha256(json.dumps(compared(cfg), sort_keys=True).encode()).hexdigest()[:8]


def answered(record: Mapping[str, Any], cfg: DictConfig) -> bool:
    """Whether the record of a run has the answers to `cfg.eval`, which asks for nothing or what was asked before."""
    wanted = OmegaConf.to_container(cfg.eval, resolve=True)
    assert isinstance(wanted, dict)
    return wanted == record["asked"] or not any(wanted[name] for name in ("img_size", "shuffle", "move"))


def analysed(record: Mapping[str, Any], cfg: DictConfig) -> bool:
    """Whether the record of a run has the numbers that `analyze=true` asks for."""
    return not cfg.analyze or any(name.startswith("analysis/") for name in record["result"])


def factors_of(cfg: DictConfig, choices: Mapping[str, str]) -> dict[str, Any]:
    """The levels of this run by factor: the options chosen in each group, the patch and the seed.

    None where the network does not read the factor.
    """
    groups = {name: choices.get(name, "?") for name in ("embed", "model", "data", "augment", "optim")}
    if set_name := OmegaConf.select(cfg, "data.name", throw_on_missing=False):
        short = str(set_name).rstrip("/").rpartition("/")[2]
        groups["data"] = f"{groups['data']}-{short}" if short.lower() != groups["data"] else groups["data"]
    network = OmegaConf.select(cfg, "model.name", throw_on_missing=False)  # of timm
    if network and not network.startswith(groups["model"]):
        groups["model"] = f"{groups['model']}-{network}"
    patch = OmegaConf.to_container(cfg.patch) if OmegaConf.is_list(cfg.patch) else cfg.patch
    levels = groups | {"patch": patch, "pos": "+".join(sorted(cfg.pos)) or "none", "seed": cfg.seed}
    levels |= {option: None for option in ("embed", "patch", "pos") if not reads(cfg, option)}
    return {name: levels[name] for name in FACTORS}


def display_name(levels: dict[str, Any]) -> str:
    """What a person calls the run: `conv/16 learned digits s0`; by its network where that reads no position."""
    patch = levels["patch"]
    shown = "" if patch is None else f"/{patch}" if not isinstance(patch, list) else f"/{'x'.join(map(str, patch))}"
    stage = [] if levels["embed"] is None else [f"{levels['embed']}{shown}"]
    stage = [levels["model"], *stage] if levels["pos"] is None else [*stage, levels["pos"]]
    return " ".join([*stage, levels["data"], f"s{levels['seed']}"])
