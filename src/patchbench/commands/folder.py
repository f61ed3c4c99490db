"""The folder of a run, with a finished run, an interrupted run, or a run that is being trained now."""

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from pytorch_lightning.utilities import rank_zero_only

from patchbench.commands.conditions import not_of
from patchbench.config.errors import Refused
from patchbench.config.identity import has_analysis, has_eval_results
from patchbench.config.origin import OWN_FOLDER, changes, differences, other_run_message
from patchbench.machine import remove_partial_files
from patchbench.runs.lock import locked
from patchbench.runs.provenance import commit
from patchbench.runs.record import read_record, validation_accuracy
from patchbench.runs.sealed import Damaged
from patchbench.runs.wandb_files import ID_FILE
from patchbench.track.terminal import print_result, say
from patchbench.train.checkpoint import CHECKPOINTS, PREVIOUS, drop_optimizer_states, kept_checkpoints, read_checkpoint

FILES = (
    "run.json",
    "metrics.csv",
    "predictions.csv",
    "confusion.csv",
    "last.ckpt",
    PREVIOUS,
    "best.ckpt",
    "analysis.html",
    "analysis",
    ID_FILE,
)
EARLIER = "earlier"  # folder that keeps a finished run while rerun=true replaces it


def alone_in(out_dir: Path) -> AbstractContextManager[None]:
    """Lock the folder, so that one process at a time trains a run: a second one waits, and then finds the record.

    Ranks other than the first take no lock. Refused in a second process if torchrun or SLURM has started its ranks.
    """
    if rank_zero_only.rank != 0:  # type: ignore[attr-defined]
        return nullcontext()

    def wait() -> None:
        tasks = os.environ.get("WORLD_SIZE") or os.environ.get("SLURM_NTASKS") or 1
        if int(tasks) > 1:  # the other ranks, which another program has started, would not wait
            raise Refused(f"another process trains {out_dir}: start this one again when that is done")
        say(f"another process trains {out_dir}: waiting for it")

    return locked(out_dir, wait)


def starts_anew(cfg: DictConfig) -> bool:
    """True for rerun=true, except in a SLURM job that was queued again: it resumes from its checkpoint."""
    return bool(cfg.rerun) and "SLURM_RESTART_COUNT" not in os.environ


def record_in(out_dir: Path, origin: dict[str, Any], *, anew: bool) -> dict[str, Any] | None:
    """Return the record of this run in its folder, or None. Refused if the record is damaged or of another run.

    anew: the run will be trained again; a damaged record then counts as None. Before, `recover` repairs the folder.
    """
    recover(out_dir)
    path = out_dir / "run.json"
    if not path.exists():
        return None
    try:
        done = read_record(path)
    except ValueError as error:
        if anew:
            return None
        raise Refused(str(error)) from error
    if done["identity"] != origin["identity"]:
        raise Refused(other_run_message(out_dir, origin, done))
    return done


def finished(cfg: DictConfig, origin: dict[str, Any], out_dir: Path, done: dict[str, Any]) -> float:
    """Print the results of a finished run, after adding missing evaluations and the analysis to its record.

    Return the validation accuracy of the tested weights.
    """
    drop_earlier(out_dir)
    other_code = changes(done, origin)
    if other_code:
        then, now = done["environment"]["commit"], commit()
        say(
            f"The figures below are of other code: {', '.join(other_code[:4])}{', ...' if len(other_code) > 4 else ''} "
            f"changed since{'' if then == now else f' (commit {then} then, {now} now)'}."
        )
    if not has_eval_results(done, cfg):
        from patchbench.commands.evaluate import evaluate_again

        done = evaluate_again(cfg, done, out_dir)
    if not has_analysis(done, cfg):
        from patchbench.commands.analyze import analyze_again

        done = analyze_again(cfg, done, out_dir)
    try:  # if the run was killed before it removed them
        drop_checkpoints(out_dir, done["config"].get("keep_checkpoints", "all"), cfg.tested)
    except (OSError, ValueError) as error:  # the results are printed even if the checkpoints are missing or damaged
        say(str(error))
    if cfg.ckpt:
        say(f"ckpt={cfg.ckpt} is not read: this run is done, and rerun=true trains it again from there.")
    for option in [*not_of(cfg, done), *unanswered(cfg, done["config"], out_dir)]:
        say(f"{option} is not read: this run is done, and only training it again, rerun=true, can do that.")
    print_result(done["name"], done["result"], out_dir, tested=cfg.tested)
    say(f"This run was done before{', by other code than today' * bool(other_code)}; rerun=true trains it again.")
    return validation_accuracy(done)


def unanswered(cfg: DictConfig, then: Mapping[str, Any], out_dir: Path) -> list[str]:
    """List the options that a finished run cannot satisfy without training. then: its configuration in the record."""
    logger, stored = then.get("logger") or {}, kept_checkpoints(then.get("keep_checkpoints", "all"), cfg.tested)
    asked = {
        "logger.tables=true": cfg.logger.tables and not (out_dir / "confusion.csv").exists(),
        "logger.checkpoints=true": cfg.logger.checkpoints and not logger.get("checkpoints"),
        f"trainer.profiler={cfg.trainer.profiler}": cfg.trainer.profiler is not None,
        "logger=wandb": cfg.logger.wandb and not logger.get("wandb"),
        f"keep_checkpoints={cfg.keep_checkpoints}": kept_checkpoints(cfg.keep_checkpoints, cfg.tested) != stored,
    }
    return [option for option, lacking in asked.items() if lacking]


@contextmanager
def set_aside(out_dir: Path, *, anew: bool) -> Iterator[None]:
    """Set a finished run aside while it is trained anew; move it back if training fails without a record or checkpoint.

    `drop_earlier` removes the run that was set aside when the new run has its record. The files of an interrupted run
    are removed at once.
    """
    first = anew and rank_zero_only.rank == 0  # type: ignore[attr-defined]
    if first and (out_dir / "run.json").exists():
        drop_earlier(out_dir)
        move(out_dir, out_dir / EARLIER)
    elif first:
        remove(out_dir)  # files of an interrupted run
    try:
        yield
    except BaseException:
        if first:
            put_back(out_dir)
        raise


@rank_zero_only
def recover(out_dir: Path) -> None:
    """Move a finished run back if its process was killed while it set the run aside, or before the first checkpoint.

    Partial files of a killed process are removed.
    """
    remove_partial_files(out_dir)
    earlier = out_dir / EARLIER
    if earlier.is_dir() and not (earlier / "run.json").exists() and (out_dir / "run.json").exists():
        move(earlier, out_dir)
        earlier.rmdir()
    put_back(out_dir)


def put_back(out_dir: Path) -> None:
    """Move a finished run back that was set aside, unless the new run has a record or a checkpoint to resume from."""
    earlier = out_dir / EARLIER
    if (earlier / "run.json").exists() and not any((out_dir / name).exists() for name in ("run.json", "last.ckpt")):
        remove(out_dir)
        move(earlier, out_dir)
        earlier.rmdir()


@rank_zero_only
def drop_earlier(out_dir: Path) -> None:
    """Remove the finished run that was set aside."""
    if (earlier := out_dir / EARLIER).is_dir():
        remove(earlier)
        shutil.rmtree(earlier, ignore_errors=True)


@rank_zero_only
def drop_checkpoints(out_dir: Path, keep: str, tested: str) -> None:
    """Remove the checkpoints that a finished run does not keep, and, without keep=all, the states in last.ckpt.

    keep, tested: see `kept_checkpoints`.
    """
    for name in (*CHECKPOINTS, PREVIOUS):
        if name not in kept_checkpoints(keep, tested) and (out_dir / name).exists():
            (out_dir / name).unlink()
    if keep != "all" and (out_dir / "last.ckpt").exists():
        drop_optimizer_states(out_dir / "last.ckpt")


def move(source: Path, target: Path) -> None:
    """Move the files of a run, its record last, so that `recover` detects an interrupted move."""
    target.mkdir(parents=True, exist_ok=True)
    for name in reversed(FILES):
        if (source / name).exists():
            (source / name).replace(target / name)


def remove(folder: Path) -> None:
    """Remove the files of a run, its record last: `recover` would move files without a record back to the run."""
    for name in reversed(FILES):
        path = folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def checkpoint_to_resume(
    cfg: DictConfig, origin: dict[str, Any], out_dir: Path, *, anew: bool
) -> tuple[Path | None, dict[str, Any] | None, list[str]]:
    """Return the checkpoint from which to resume, the origin that it contains, and remarks; None, None, [] without one.

    The checkpoint is that of the option `ckpt`, or, unless the run starts anew, last.ckpt of an interrupted run. A
    damaged last.ckpt is replaced by the one before. FileNotFoundError if the file of `ckpt` does not exist, ValueError
    if the checkpoint is damaged, belongs to another run, or has no states of training.
    """
    own, cure = out_dir / "last.ckpt", OWN_FOLDER
    if cfg.ckpt:
        cure = "give the options it was trained with, or leave ckpt out to train anew"
        if anew and out_dir.resolve() in Path(cfg.ckpt).resolve().parents:
            raise ValueError(f"ckpt={cfg.ckpt} is of the run that rerun=true replaces: move it out of {out_dir} before")
    path = Path(cfg.ckpt) if cfg.ckpt else own if own.exists() and not anew else None
    if path is None:
        return None, None, []
    try:
        checkpoint, remarks = read_checkpoint(path), []
    except Damaged as error:
        before = path.with_name(PREVIOUS)
        if cfg.ckpt or not before.exists():
            raise ValueError(f"{error}: rerun=true trains the run anew") from error
        path, checkpoint = before, read_checkpoint(before)
        remarks = [f"{error}: going on from the one before, {before}"]
    stored = checkpoint["patchbench"]
    if stored["identity"] != origin["identity"]:
        raise ValueError(
            f"{'ckpt=' if cfg.ckpt else ''}{path} is of another run ({differences(origin, stored)}): {cure}"
        )
    if "optimizer_states" not in checkpoint and not cfg.ckpt:
        raise ValueError(f"{path} is left of a finished run whose record is gone: rerun=true trains it again")
    if "optimizer_states" not in checkpoint:
        raise ValueError(
            f"ckpt={path} holds weights without the states of training, so no run can go on from it: give last.ckpt, "
            f"which a finished run keeps with keep_checkpoints=all, or begin with its weights, model.init_from={path}"
        )
    remarks.append(f"resuming from {path} (rerun=true starts afresh)")
    if other_code := changes(stored, origin):
        remarks.append(f"the code has changed since that checkpoint: {', '.join(other_code)}")
    return path, stored, remarks
