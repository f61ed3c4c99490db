"""Evaluation of a checkpoint on its test split, and on other views of the test images."""

from contextlib import nullcontext
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from patchbench.commands.loading import loading
from patchbench.commands.reopen import Machine, naming_own_options, reopen
from patchbench.config.errors import refusing
from patchbench.config.identity import eval_options
from patchbench.data.statistics import check_identical
from patchbench.evaluate.robustness import evaluate_views
from patchbench.evaluate.test import test, test_is_shared
from patchbench.runs.record import write_record
from patchbench.track.terminal import print_result, say


def evaluate(ckpt: Path, machine: Machine, views: DictConfig, *, of: dict[str, Any] | None = None) -> dict[str, Any]:
    """Test a network again, from its checkpoint alone; return its origin with `result`, `viewed` and `hits`.

    result, hits: as in a record. viewed: names of the metrics of views. views: the options `eval.*`. of: record of the
    run to which the checkpoint must belong, and to which the caller adds the metrics; then nothing is printed.
    Refused if the checkpoint or its data cannot be read.
    """
    silent = of is not None
    names = nullcontext if silent else naming_own_options
    with refusing(), names():
        run = reopen(ckpt, machine, views, of)
        _, same = ("", "") if silent else check_identical(run.data.splits["test"], "test")
    for remark in () if silent else getattr(run.draft.source, "remarks", ()):
        say(remark)
    if same:
        say(f"{same}: the results mean nothing; images are read with the data.range of training, see run.json")
    with loading(), names():
        tested, hits = test(run.trainer, run.task, run.data)
        viewed = evaluate_views(run.trainer, run.task, run.data, run.draft.views(), run.draft.test_at)
    result = tested | viewed | run.draft.cost.facts()
    if not silent:
        print_result(run.origin["name"], result)
    shared = test_is_shared(run.data.source, run.draft.cfg.seed)
    return run.origin | {"result": result, "viewed": list(viewed), "hits": hits.packed() if shared else None}


def evaluate_again(cfg: DictConfig, done: dict[str, Any], out_dir: Path) -> dict[str, Any]:
    """Evaluate a finished run in the views of `cfg.eval`, add the metrics to its record, and return the record.

    Metrics of these views replace those in the record; all other metrics of the record stay.
    """
    machine = Machine(cfg.trainer, cfg.workers, cfg.resident, cfg.data.get("root"), cfg.data.get("max_skipped"))
    views = eval_options(cfg)
    more = evaluate(out_dir / f"{cfg.tested}.ckpt", machine, OmegaConf.create(views), of=done)
    own = done["result"]
    new = {name: value for name, value in more["result"].items() if name not in own or name in more["viewed"]}
    done |= {"eval": views, "result": own | new, "hits": done.get("hits") or more["hits"]}
    write_record(out_dir / "run.json", done)
    return done
