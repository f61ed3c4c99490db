"""Sides of a benchmark: a configuration, another configuration, a trained network, or a peer."""

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig

from patchbench.commands.bench import timm_train
from patchbench.commands.bench.bare import bare, check_plain
from patchbench.commands.bench.inference import Inference
from patchbench.commands.bench.lightning import lightning
from patchbench.commands.bench.rounds import Figures
from patchbench.commands.bench.training import trained
from patchbench.commands.build import build_net, build_trainer, check_options, compiles
from patchbench.commands.conditions import conditions
from patchbench.commands.draft import Draft, draft
from patchbench.commands.reopen import Machine, reopen
from patchbench.commands.values import check_values
from patchbench.config.compose import composed
from patchbench.config.identity import factors_of
from patchbench.config.names import title
from patchbench.config.typed import flags_last, refuse_added_options, refuse_options_of_the_other_mode
from patchbench.config.unread import remarks_on_unread
from patchbench.runs.record import read_record
from patchbench.track.terminal import say

ENDS = ("epochs", "budget", "ckpt", "rerun", "analyze", "eval")  # options of a run that a benchmark does not read
OF_THE_MACHINE = ("trainer", "workers", "resident", "batch_size", "compile")  # options that go together with run=
PEERS: dict[str, tuple[str, Callable[..., Figures]]] = {
    "bare": ("a bare loop with the same network", bare),
    "lightning": ("Lightning alone with the same network", lightning),
}
EPOCHS = 2  # measured with peer=timm, if epochs= is not given


@dataclass(frozen=True)
class Side:
    """A side of a benchmark. name: for the table. facts: description in plain values. measure: measures one round."""

    name: str
    facts: dict[str, Any]
    measure: Callable[[], Figures]


def sides_of(options: Mapping[str, Any], pair: Sequence["Asked"], scratch: Path) -> list[Side]:
    """Build and check the sides that the options ask for; nothing is measured yet.

    options: options of scripts/benchmark.py. pair: one side, or two sides that are compared. scratch: an empty folder
    that exists until everything is measured. ValueError, OSError or Refused if a side cannot be measured.
    """
    overrides = pair[0].overrides
    if options["peer"] == "timm":
        return beside_timm(options["timm"], overrides, scratch)
    for asked in pair:
        refuse_unread(asked.overrides)
    steps, warmup, several = options["steps"], options["warmup"], len(pair) > 1
    if options["mode"] == "infer":
        sides = [inference(asked, options["data_root"], steps, warmup, several=several) for asked in pair]
    else:
        sides = [training(asked.overrides, steps, warmup, several=several) for asked in pair]
    if options["peer"] in PEERS:
        check_plain(composed(overrides))
        name, loop = PEERS[options["peer"]]
        sides.append(Side(name, sides[0].facts, partial(loop, overrides, steps=steps, warmup=warmup)))
    if len(sides) == 2 and sides[0].name == sides[1].name:
        sides[1] = Side(f"{sides[1].name}, {options['compare']}", sides[1].facts, sides[1].measure)
    return sides


@dataclass(frozen=True)
class Asked:
    """A trained run or a configuration. run: folder or checkpoint of the run; None for a configuration."""

    run: str | None
    overrides: list[str]

    def changed(self, compare: str) -> "Asked":
        """Return a copy with further options after its own options; the last value of an option counts.

        compare: the options as typed in a shell. `run=` replaces the run.
        """
        words = shlex.split(compare)
        runs = [word.partition("=")[2] for word in words if word.startswith("run=")]
        others = checked([word for word in words if not word.startswith("run=")])
        return Asked(runs[-1] if runs else self.run, [*self.overrides, *others])


def checked(words: Sequence[str]) -> list[str]:
    """Return options of train.py with the flags last. Refused for an option that Hydra would ignore or misread."""
    overrides = flags_last(words, "train")
    refuse_options_of_the_other_mode(overrides)
    refuse_added_options(overrides)
    return overrides


def refuse_unread(overrides: Sequence[str]) -> None:
    """Raise ValueError for an option that a benchmark does not read: the options in ENDS."""
    for override in overrides:
        if override.lstrip("+").partition("=")[0].partition(".")[0] in ENDS:
            raise ValueError(f"{override} is not read by a benchmark, whose length is steps= and rounds=: leave it out")


def checked_draft(overrides: Sequence[str], *, several: bool = False) -> tuple[DictConfig, Draft]:
    """Return the configuration of a run, and its draft, with the network on the meta device.

    several: true for one of two sides: an option that it does not read is then no error, since the other side may read
    it. Refused, ValueError and the like if the run is not possible.
    """
    cfg = composed(["logger=csv", *overrides])
    for remark in remarks_on_unread(cfg, cfg.hydra.runtime.choices, overrides, in_sweep=several):
        say(remark)
    check_values(cfg)
    check_options(cfg)
    return cfg, draft(cfg)


def one_device(cfg: DictConfig) -> Any:
    """Return the trainer of a configuration. ValueError if it uses several devices."""
    trainer = build_trainer(cfg, Path(), [], epochs=1)
    if trainer.world_size > 1:
        raise ValueError(f"trainer.devices={cfg.trainer.devices}: a benchmark measures one device: leave it out")
    return trainer


def facts_of(cfg: DictConfig, plan: Draft, trainer: Any, overrides: Sequence[str]) -> dict[str, Any]:
    """Describe a side in plain values."""
    cost = plan.cost
    return {
        "overrides": list(overrides),
        "conditions": conditions(cfg, trainer),
        "batch_size": cfg.batch_size,
        "img_size": list(plan.source.img_size),
        "tokens": cost.num_tokens,
        "gmacs": cost.macs / 1e9,
        "params_m": cost.params / 1e6,
    }


def training(overrides: Sequence[str], steps: int, warmup: int, *, several: bool) -> Side:
    """Return the side that trains a configuration as train.py does."""
    cfg, plan = checked_draft(overrides, several=several)
    name = title(factors_of(cfg, cfg.hydra.runtime.choices))
    facts = facts_of(cfg, plan, one_device(cfg), overrides)
    return Side(name, facts, partial(trained, overrides, steps=steps, warmup=warmup))


def inference(asked: Asked, data_root: str | None, steps: int, warmup: int, *, several: bool) -> Side:
    """Return the side of inference: with the untrained network of a configuration, or with the network of a run.

    data_root: folder with the data of the run; None for the folder of its training.
    """
    if asked.run is None:
        cfg, plan = checked_draft(asked.overrides, several=several)
        trainer, name = one_device(cfg), title(factors_of(cfg, cfg.hydra.runtime.choices))
        torch.manual_seed(cfg.seed)
        net = build_net(cfg, plan.source)
        facts = facts_of(cfg, plan, trainer, asked.overrides)
    else:
        refuse_another_network(asked.overrides)
        cfg = composed(asked.overrides)
        one_device(cfg)
        ckpt, done = checkpoint_of(Path(asked.run))
        run = reopen(ckpt, Machine(cfg.trainer, cfg.workers, cfg.resident, data_root), of=done)
        plan, trainer, net, name = run.draft, run.trainer, run.task.net, title(run.origin["factors"])
        if not any(override.startswith("batch_size=") for override in asked.overrides):
            cfg.batch_size = run.origin["config"]["batch_size"]
        cfg.residual = plan.cfg.residual
        facts = facts_of(cfg, plan, trainer, asked.overrides)
        facts |= {"run": asked.run, "identity": run.origin["identity"]}
    measured = Inference(
        net,
        plan.cost,
        in_chans=plan.source.in_chans,
        img_size=plan.source.img_size,
        batch_size=cfg.batch_size,
        device=trainer.strategy.root_device,
        bf16="bf16" in str(trainer.precision),
        compiled=compiles(cfg, trainer),
    )
    return Side(name, facts, partial(measured.measure, steps, warmup))


def refuse_another_network(overrides: Sequence[str]) -> None:
    """Raise ValueError for an option that is not in OF_THE_MACHINE: a trained run has its own network and data."""
    for override in overrides:
        if override.lstrip("+").partition("=")[0].partition(".")[0] not in OF_THE_MACHINE:
            raise ValueError(
                f"{override} is of the network, which run= already defines: leave it out; options that go together "
                f"with run= are {', '.join(f'{name}=' for name in OF_THE_MACHINE)}"
            )


def checkpoint_of(run: Path) -> tuple[Path, dict[str, Any] | None]:
    """Return the checkpoint of a run, and the record next to it, or None. run: folder of a run, or a checkpoint.

    ValueError if there is no such path, or if the folder has no run.json.
    """
    if not run.exists():
        raise ValueError(f"run={run}: there is no such folder or file; python scripts/runs.py lists the runs")
    folder = run if run.is_dir() else run.parent
    record = folder / "run.json"
    if run.is_dir() and not record.exists():
        raise ValueError(
            f"run={run} holds no run.json: it is no finished run; give its checkpoint, run={run}/last.ckpt"
        )
    done = read_record(record) if record.exists() else None
    return (folder / f"{done['config']['tested']}.ckpt" if run.is_dir() and done else run), done


def beside_timm(folder: str | None, overrides: Sequence[str], scratch: Path) -> list[Side]:
    """Return two sides, measured in epochs: training by our train.py and by timm's train.py.

    folder: checkout of timm. scratch: see `sides_of`.
    """
    peer = timm_train.checkout(folder)
    rest = [override for override in overrides if not override.startswith("epochs=")]
    refuse_unread(rest)
    cfg, plan = checked_draft(rest)
    trainer, name = one_device(cfg), title(factors_of(cfg, cfg.hydra.runtime.choices))
    ours, theirs = timm_train.both(rest, peer, epochs_of(overrides), scratch)
    facts = facts_of(cfg, plan, trainer, rest)
    sides = []
    for called, epochs in ((name, ours), (f"timm {peer.version}, train.py", theirs)):
        line = [*epochs.line(1, Path("<folder>"))]
        more = {"images": epochs.images, "val_images": epochs.val_images, "command": shlex.join(["python", *line[1:]])}
        sides.append(Side(called, facts | more, epochs.measure))
    return sides


def epochs_of(overrides: Sequence[str]) -> int:
    """Return the number of epochs that are measured with peer=timm. ValueError unless it is a whole number above 0."""
    values = [override.partition("=")[2] for override in overrides if override.startswith("epochs=")]
    if values and not (values[-1].isdecimal() and int(values[-1])):
        raise ValueError(f"epochs={values[-1]} must be a whole number, 1 or more")
    return int(values[-1]) if values else EPOCHS
