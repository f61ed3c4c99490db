"""One W&B run per training: with or without a login, offline, resumed, or in an agent of a sweep.

No error of W&B ends a training: a line names what could not be uploaded, and the files stay in the run directory.
"""

import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from jaxtyping import UInt8
from pytorch_lightning.loggers import WandbLogger
from pytorch_lightning.utilities import rank_zero_only
from torch import Tensor

from patchbench.machine import display_path, whole_file
from patchbench.redact import redact
from patchbench.runs.metrics import summaries
from patchbench.runs.sealed import sealed_file
from patchbench.runs.wandb_files import (
    ID_FILE,
    damage,
    run_folder_of,
    run_id,
    staging,
    sync_command,
    wandb_dir,
)
from patchbench.track.wandb_check import LONGEST, project_name, reason, resolve_mode, text, user_tags
from patchbench.track.wandb_process import Watch, kill_process

STEP = "trainer/global_step"
START_S = 10.0  # limit of the wait for the server when a run starts, in seconds
GRACE_S = 3.0  # seconds after a time limit of W&B itself before its process is killed
ONLY_LOCAL = "further rows are only in metrics.csv"
PAIRS = 10_000  # largest number of rows of a confusion matrix that W&B draws


class RunLogger(WandbLogger):
    """Lightning's logger, except that training continues if an upload fails or the process of W&B ends.

    The process may end before the training, since SLURM sends SIGTERM to it too.
    """

    process: Watch
    limit_s = START_S  # for one call
    lost = False  # the process of W&B has ended
    rows = 0  # number of rows that were passed to W&B
    table_rows = 0
    printed: frozenset[str] = frozenset()

    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        self.send("a row", partial(super().log_metrics, metrics, step))
        self.rows += 1

    def log_pictures(self, pictures: Mapping[str, Path], step: int) -> None:
        """Log pictures from files. pictures: file by name of its panel."""
        for name, path in pictures.items():
            self.send(name, partial(self.log_image, name, [str(path)], step=step))

    def log_predictions(
        self, predicted: pd.DataFrame, confused: pd.DataFrame, read: Callable[[list[int]], UInt8[Tensor, "b c H W"]]
    ) -> None:
        """Log two tables, which W&B stores as artifacts: test/predictions with the images, and test/confusion.

        predicted: all rows; the first `table_rows` are uploaded. read: returns images by their numbers.
        """
        if self.experiment.disabled:
            return

        def tables() -> dict[str, Any]:
            import wandb

            first = predicted.head(self.table_rows)
            images = read(first["image"].tolist()).permute(0, 2, 3, 1).numpy()
            shown = [image[..., :3] if image.shape[-1] > 2 else image[..., 0] for image in images]
            rows = first.assign(picture=[wandb.Image(image) for image in shown])
            most = confused.sort_values("count", ascending=False, kind="stable").head(PAIRS)
            names = {"label": "Actual", "predicted": "Predicted", "count": "nPredictions"}  # as in W&B's own chart
            return {
                "test/predictions": wandb.Table(dataframe=rows[["picture", *first.columns]]),
                "test/confusion": wandb.Table(dataframe=most.rename(columns=names)),
            }

        self.rows += self.send("the tables of predictions", self.experiment.log, tables)

    def log_checkpoint(self, path: Path, name: str, about: dict[str, Any]) -> None:
        """Log a checkpoint as an artifact of type model, without the paths of this machine."""
        if self.experiment.disabled:
            return

        def artifact() -> Any:
            import wandb

            artifact = wandb.Artifact(re.sub(r"[^\w.-]", "-", name), type="model", metadata=redact(about))
            with tempfile.TemporaryDirectory() as folder:
                copy = Path(folder) / path.name
                with sealed_file(copy) as file:
                    torch.save(redact(torch.load(path, map_location="cpu", weights_only=True)), file)  # type: ignore[arg-type]
                artifact.add_file(str(copy), skip_cache=True)  # no second copy below ~/.cache
            return artifact

        self.send(path.name, partial(self.experiment.log_artifact, aliases=[path.stem]), artifact)

    def send(self, what: str, upload: Callable[..., object], prepare: Callable[[], Any] | None = None) -> bool:
        """Call `upload`; if it fails, print a line and continue. Returns true if it succeeded.

        If the process of W&B has ended or does not answer, nothing is uploaded any more. what: name of the upload, for
        the line. prepare: returns the argument of `upload`; its time is not limited.
        """
        if self.lost:
            return False
        from wandb.sdk.mailbox import MailboxClosedError

        try:
            given = () if prepare is None else (prepare(),)
            with self.process.limit(self.limit_s):
                upload(*given)
            return True
        except Exception as error:  # of the server, of the disk, of the image library, of W&B itself
            self.lost = self.process.ended or isinstance(error, ConnectionError | MailboxClosedError)
            if self.process.ended:
                self.say(f"its process did not answer for {self.limit_s:g} s and was ended: {ONLY_LOCAL}")
            elif self.lost:
                self.say(f"its process has ended ({reason(error)}): {ONLY_LOCAL}")
            else:
                self.say(f"{what} could not be uploaded ({reason(error)}); the files are in the run directory")
            return False

    def say(self, line: str) -> None:
        """Print a line once."""
        if line not in self.printed:
            self.printed |= {line}
            print(f"W&B: {line}", file=sys.stderr)


@contextmanager
def wandb_run(
    *,
    project: str | int | None,
    entity: str | int | None,
    mode: str,
    group: str | int | None,
    name: str,
    tags: Any,
    levels: list[str],
    notes: str | int | None,
    config: dict,
    out_dir: Path,
    runs_dir: Path,
    resume: bool,
    in_sweep: bool,
    finish_s: float,
    table_rows: int,
) -> Iterator[WandbLogger]:
    """Yield a logger; its run ends at the end of this block, with the exit code of the block. Only rank 0 has a run.

    mode: auto follows WANDB_MODE and the settings of W&B; without them it is online with credentials and offline
    without. There is never a prompt. Offline runs lie in runs_dir/wandb, so that one `wandb sync` uploads all of them.
    levels: tags of every run. tags: further tags of the user. in_sweep: true ignores the name and the id of a run in
    the environment, which are for a single run.
    The id of the run is stored in out_dir, and a resumed training continues the same run.
    finish_s: seconds to wait at the end for a server that does not answer; `wandb sync` uploads the rest later.
    ValueError for options that `check_wandb` refuses.
    """
    if rank_zero_only.rank != 0:  # type: ignore[attr-defined]
        yield WandbLogger(project=project_name(project), save_dir=str(out_dir))  # a logger that does nothing
        return
    resolved = resolve_mode(mode)
    if resolved == "disabled" and mode == "auto" and not os.environ.get("WANDB_MODE"):
        print("W&B: disabled by WANDB_DISABLED", file=sys.stderr)
    options: dict[str, Any] = {
        "name": (None if in_sweep else os.environ.get("WANDB_NAME")) or name,
        "group": text("logger.wandb.group", group),
        "tags": [tag[:LONGEST] for tag in levels] + user_tags(tags),
        "notes": text("logger.wandb.notes", notes),
        "config": config,
    }
    options = redact(options) | {"job_type": "train", "reinit": "finish_previous"}
    if "WANDB_SWEEP_ID" not in os.environ:  # in an agent of a sweep, W&B sets project, entity and id
        options |= {"project": project_name(project), "entity": text("logger.wandb.entity", entity)}
        options |= id_options(out_dir, runs_dir, resume=resume, in_sweep=in_sweep)
    with closing(Watch()) as watch:
        run, resolved = start(options | {"dir": str(wandb_dir(runs_dir).parent)}, resolved, finish_s, watch)
        folder = Path(run.settings.wandb_dir)  # another folder if that of the options cannot be written
        logger = RunLogger(project=project_name(project), save_dir=str(out_dir), experiment=run, log_model=False)
        logger.process, logger.limit_s, logger.table_rows = watch, finish_s, table_rows
        logger.send("the definitions of its charts", partial(define_charts, run))
        if resolved != "disabled":
            with whole_file(out_dir / ID_FILE) as file:
                file.write(run.id)
        if resolved == "online":
            print(f"W&B: {run.url}", file=sys.stderr)
        code, unsent = 1, ""
        try:
            with artifact_files_in(staging(folder, run.id)):
                try:
                    yield logger
                    code = 0
                except SystemExit as end:
                    code = end.code if isinstance(end.code, int) else 1
                    raise
                finally:
                    unsent = finish(run, code, finish_s, watch)
        finally:
            if resolved == "online" and not unsent:
                shutil.rmtree(staging(folder, run.id), ignore_errors=True)
            if resolved != "disabled":
                print_unsent(logger, resolved, unsent)


def print_unsent(logger: RunLogger, mode: str, unsent: str) -> None:
    """Print the command that uploads the rest of a run, and the damage of the file that the command would upload.

    unsent: the reason why not everything was uploaded; empty if the run ended normally.
    """
    run = logger.experiment
    log = Path(run.settings.sync_file)
    defect = damage(log, logger.rows) if mode == "offline" or unsent else ""
    cut = f"; {display_path(log)} {defect}" if defect else ""
    if mode == "online" and unsent:
        sync = f"`wandb sync --no-skip-online {display_path(Path(run.settings.sync_dir))}`"
        rest = f"{cut}: {sync} uploads the intact rows" if cut else f"; nothing is lost: {sync} uploads the rest later"
        print(f"W&B: {unsent}{rest}", file=sys.stderr)
    if line := sync_command(Path(run.settings.wandb_dir), [run.id]):
        why = f"{unsent}; offline" if mode == "offline" and unsent and not logger.lost else "offline"
        what = "the intact rows" if cut else "the run"
        print(f"W&B: {why}{cut}; `wandb login`, then `{line}`, uploads {what}", file=sys.stderr)


def start(options: dict[str, Any], mode: str, finish_s: float, watch: Watch) -> tuple[Any, str]:
    """Start the run, and return it with its mode: `mode`, else offline if that fails, else disabled."""
    import wandb

    settings = wandb.Settings(
        silent=True,
        console="off",
        init_timeout=float(os.environ.get("WANDB_INIT_TIMEOUT", START_S)),
        finish_timeout=finish_s,
        finish_timeout_raises=True,
        disable_git=True,
        x_disable_meta=True,  # metadata contain paths and arguments; the configuration describes the machine
        host="",
        program=Path(sys.argv[0]).name,  # without its path
    )
    modes: list[Any] = list(dict.fromkeys([mode, "offline", "disabled"]))
    for each, instead in zip(modes, [*modes[1:], None], strict=True):
        try:
            with suppress(OSError):
                if each != "disabled":
                    Path(options["dir"]).mkdir(parents=True, exist_ok=True)  # else W&B uses the temporary folder
            with watch.limit(settings.init_timeout + GRACE_S):
                return wandb.init(**options, mode=each, settings=settings), each
        except Exception as error:
            if instead is None:
                raise
            why = f"its process did not answer for {settings.init_timeout:g} s" if watch.ended else reason(error)
            instead_of = "logging offline" if instead == "offline" else "rows are only in metrics.csv"
            print(f"W&B: the run could not be started {each} ({why}); {instead_of}", file=sys.stderr)
            watch.ended = False
            kill_process()  # it would try again and again
            disconnect()  # W&B considers the run as started
    raise AssertionError


def define_charts(run: Any) -> None:
    """Draw all metrics over the step, and set their statistics in the summary of the run."""
    run.define_metric(STEP, hidden=True)
    for name, rule in summaries().items():
        run.define_metric(name, step_metric=STEP, step_sync=True, summary=f"{rule},last")
    run.define_metric("*", step_metric=STEP, step_sync=True)


def finish(run: Any, code: int, finish_s: float, watch: Watch) -> str:
    """End the run and the process of W&B. Returns the reason why not everything was uploaded, or an empty text."""
    unsent, earlier = "", watch.ended
    try:
        with watch.limit(finish_s + GRACE_S):
            run.finish(exit_code=code)
    except TimeoutError:
        unsent = f"the server has not received everything within {finish_s:g} s (logger.wandb.finish_s)"
    except Exception:  # any error, as in RunLogger.send
        unsent = "its process has ended"
        if watch.ended and not earlier:
            unsent = f"its process did not answer for {finish_s + GRACE_S:g} s and was ended"
    with watch.limit(GRACE_S, busy_s=0.0):  # the process has written everything by now
        disconnect()  # the next run of this process starts another process of W&B
    return unsent


def disconnect() -> None:
    """Disconnect from the process of W&B and its current run; the next run starts another process."""
    import wandb
    from wandb.sdk import wandb_setup
    from wandb.sdk.lib.module import unset_globals

    connection = wandb_setup.singleton()._connection
    with suppress(Exception, SystemExit):
        wandb.teardown()
    if connection is not None and connection._proc is not None:
        connection._proc.join()  # W&B does not wait for a process that it could not reach
    unset_globals()


def id_options(out_dir: Path, runs_dir: Path, *, resume: bool, in_sweep: bool) -> dict[str, Any]:
    """Return the options `id` and `resume` of wandb.init.

    A resumed training keeps its id. WANDB_RUN_ID counts for a single run outside of a sweep only; then WANDB_RESUME
    decides about `resume`.
    """
    from wandb.sdk.lib import runid

    stored, given = run_id(out_dir) if resume else None, os.environ.get("WANDB_RUN_ID")
    owner = run_folder_of(given, runs_dir) if given else None
    if stored is None and given and not in_sweep and owner in (None, out_dir):
        return {"id": given}
    if given and given != stored:
        why = f"it is the id of {owner}"
        if stored or in_sweep:
            why = f"this training goes on as {stored}" if stored else "each run of a sweep has an id of its own"
        print(f"W&B: WANDB_RUN_ID={given} is left out: {why}", file=sys.stderr)
    return {"id": stored or runid.generate_id(), "resume": "allow" if stored or "WANDB_RESUME" in os.environ else None}


@contextmanager
def artifact_files_in(folder: Path) -> Iterator[None]:
    """Let W&B store files of artifacts in `folder` until they are uploaded, unless the user has set WANDB_DATA_DIR.

    W&B also uploads the path of this folder. Below the working directory, the path is relative to the working directory
    of the process, so that it does not contain the user's directories. Elsewhere the path is absolute, since W&B does
    not follow `..` in it.
    """
    shown = display_path(folder)
    if "WANDB_DATA_DIR" in os.environ:
        yield
        return
    anchored = sys.platform == "linux" and not shown.is_absolute()
    os.environ["WANDB_DATA_DIR"] = str(Path("/proc/self/cwd") / shown if anchored else shown)
    try:
        yield
    finally:
        os.environ.pop("WANDB_DATA_DIR", None)
