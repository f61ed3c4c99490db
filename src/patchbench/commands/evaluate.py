"""From a checkpoint to figures: of its test split, of further questions, of its input stage."""

from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from patchbench.commands.build import (
    asked,
    build_duration,
    build_net,
    build_task,
    check_asked,
    network_cost,
    prepare_data,
    restore,
    split_at_size,
)
from patchbench.config.errors import refusing
from patchbench.config.identity import display_name
from patchbench.data.pictures import BadImage
from patchbench.evaluate.robustness import ask
from patchbench.evaluate.test import test
from patchbench.runs.record import write_record
from patchbench.track.terminal import print_result
from patchbench.train.checkpoint import read_checkpoint


def evaluate(
    ckpt: Path,
    trainer_cfg: DictConfig,
    eval_cfg: DictConfig,
    *,
    workers: int | str,
    resident: float,
    data_root: str | None,
    silent: bool = False,
) -> dict[str, Any]:
    """The figures of the test split, from the checkpoint alone. Refused where it or its data cannot be read."""
    with refusing():
        checkpoint = read_checkpoint(ckpt)
        origin = checkpoint["patchbench"]
        cfg, source = restore(checkpoint, data_root)
        cfg.workers, cfg.resident, cfg.eval = workers, resident, eval_cfg
        check_asked(cfg, source)
        trainer = instantiate(trainer_cfg)(max_epochs=0, out_dir=ckpt.parent, callbacks=[])
        data = prepare_data(cfg, source, trainer)
        costs = network_cost(cfg, source)
        task = build_task(cfg, build_net(cfg, source), data, build_duration(cfg, data, costs))
    with refusing(BadImage):
        result = test(trainer, task, data, ckpt) | ask(trainer, task, data, asked(cfg), split_at_size(cfg))
    result |= costs.facts()
    if not silent:
        print_result(display_name(origin["factors"]), result)
    return origin | {"result": result}


def ask_again(cfg: DictConfig, done: dict[str, Any], out_dir: Path) -> dict[str, Any]:
    """Put the questions of `cfg.eval` to a run that was done with others, and add the answers to its record."""
    how: dict[str, Any] = {"workers": cfg.workers, "resident": cfg.resident}
    more = evaluate(out_dir / "best.ckpt", cfg.trainer, cfg.eval, **how, data_root=None, silent=True)
    done |= {"asked": OmegaConf.to_container(cfg.eval, resolve=True), "result": done["result"] | more["result"]}
    write_record(out_dir / "run.json", done)
    return done


def analyze_again(cfg: DictConfig, done: dict[str, Any], out_dir: Path) -> dict[str, Any]:
    """Of a run that was done without."""
    from patchbench.commands.analyze import analyze

    how: dict[str, Any] = {"workers": cfg.workers, "resident": cfg.resident}
    found = analyze(out_dir / "best.ckpt", out_dir, cfg.trainer, **how, images=None, data_root=None)
    done |= {"result": done["result"] | found.numbers}
    write_record(out_dir / "run.json", done)
    return done
