"""One W&B run per training: with or without a login, offline, resumed, or in an agent of a sweep.

Nothing of W&B ends a training: what it does not take is said in a line, and stays in the directory of the run.
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
from patchbench.track.wandb_check import LONGEST, own_tags, project_name, reason, resolve_mode, text
from patchbench.track.wandb_process import Watch, kill_process

STEP = "trainer/global_step"
START_S = 10.0  # most seconds to wait for the server when a run starts
GRACE_S = 3.0  # seconds beyond a limit that the process of W&B keeps itself, before it is killed
ONLY_LOCAL = "further rows are only in metrics.csv"
PAIRS = 10_000  # most rows that W&B draws of a confusion matrix


class RunLogger(WandbLogger):
    """Lightning's logger, except that training continues where an upload fails, and where the process of W&B ends:
    SLURM sends SIGTERM to it too.
    """

    process: Watch
    limit_s = START_S  # for one call
    lost = False
    rows = 0  # that were given to W&B
    table_rows = 0
    said: frozenset[str] = frozenset()

    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        self.send("a row", partial(super().log_metrics, metrics, step))
        self.rows += 1

    def log_pictures(self, pictures: Mapping[str, Path], step: int) -> None:
        """Log pictures from files, by the names of their panels."""
        for name, path in pictures.items():
            self.send(name, partial(self.log_image, name, [str(path)], step=step))

    def log_predictions(
        self, predicted: pd.DataFrame, confused: pd.DataFrame, read: Callable[[list[int]], UInt8[Tensor, "b c H W"]]
    ) -> None:
        """Log two tables, which W&B stores as artifacts: test/predictions with the images, and test/confusion.

        predicted: all rows, of which the first `table_rows` are uploaded. read: returns images by their numbers.
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
            names = {"label": "Actual", "predicted": "Predicted", "count": "nPredictions"}  # as in the chart of W&B
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
                artifact.add_file(str(copy), skip_cache=True)  # no further copy below ~/.cache
            return artifact

        self.send(path.name, partial(self.experiment.log_artifact, aliases=[path.stem]), artifact)

    def send(self, what: str, upload: Callable[..., object], prepare: Callable[[], Any] | None = None) -> bool:
        """Upload, and go on without what W&B does not take; without W&B where its process has ended or does not answer.

        prepare: makes the argument of `upload`, in whatever time that takes. Returns true where W&B has taken it.
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
        if line not in self.said:
            self.said |= {line}
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
    """Yield a logger whose run ends with this block and its exit code. Only rank 0 has a run.

    mode: auto follows WANDB_MODE and the settings of W&B; without them it is online with credentials and offline
    without. There is never a prompt. Offline runs lie in runs_dir/wandb, so that one `wandb sync` uploads all of them.
    tags: the user's, beside `levels`, the tags that every run has. in_sweep: a name and an id of a run that stand in
    the environment are not for this run.
    The id of the run is stored in out_dir, and a resumed training continues the same run.
    finish_s: seconds to wait at the end for a server that does not answer; `wandb sync` uploads the rest later.
    ValueError for options that `check_wandb` refuses.
    """
    if rank_zero_only.rank != 0:  # type: ignore[attr-defined]
        yield WandbLogger(project=project_name(project), save_dir=str(out_dir))  # on other ranks it does nothing
        return
    resolved = resolve_mode(mode)
    if resolved == "disabled" and mode == "auto" and not os.environ.get("WANDB_MODE"):
        print("W&B: off, as WANDB_DISABLED says", file=sys.stderr)
    options: dict[str, Any] = {
        "name": (None if in_sweep else os.environ.get("WANDB_NAME")) or name,
        "group": text("logger.wandb.group", group),
        "tags": [tag[:LONGEST] for tag in levels] + own_tags(tags),
        "notes": text("logger.wandb.notes", notes),
        "config": config,
    }
    options = redact(options) | {"job_type": "train", "reinit": "finish_previous"}
    if "WANDB_SWEEP_ID" not in os.environ:  # an agent owns project, entity and id
        options |= {"project": project_name(project), "entity": text("logger.wandb.entity", entity)}
        options |= whose_id(out_dir, runs_dir, resume=resume, in_sweep=in_sweep)
    with closing(Watch()) as watch:
        run, resolved = start(options | {"dir": str(wandb_dir(runs_dir).parent)}, resolved, finish_s, watch)
        folder = Path(run.settings.wandb_dir)  # another one where that cannot be written
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
            with files_of_artifacts_in(staging(folder, run.id)):
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
                say_what_is_left(logger, resolved, unsent)


def say_what_is_left(logger: RunLogger, mode: str, unsent: str) -> None:
    """Name the command that uploads what the server has not got, and the damage of the file that it would upload.

    unsent: the reason why the run did not end as it should, or nothing.
    """
    run = logger.experiment
    log = Path(run.settings.sync_file)
    defect = damage(log, logger.rows) if mode == "offline" or unsent else ""
    cut = f"; {display_path(log)} {defect}" if defect else ""
    if mode == "online" and unsent:
        sync = f"`wandb sync --no-skip-online {display_path(Path(run.settings.sync_dir))}`"
        rest = f"{cut}: {sync} uploads what it holds" if cut else f"; nothing is lost: {sync} uploads the rest later"
        print(f"W&B: {unsent}{rest}", file=sys.stderr)
    if line := sync_command(Path(run.settings.wandb_dir), [run.id]):
        why = f"{unsent}; offline" if mode == "offline" and unsent and not logger.lost else "offline"
        what = "what it holds" if cut else "the run"
        print(f"W&B: {why}{cut}; `wandb login`, then `{line}`, uploads {what}", file=sys.stderr)


def start(options: dict[str, Any], mode: str, finish_s: float, watch: Watch) -> tuple[Any, str]:
    """Start the run, and return it with its mode: offline where the server does not take it, else disabled."""
    import wandb

    settings = wandb.Settings(
        silent=True,
        console="off",
        init_timeout=float(os.environ.get("WANDB_INIT_TIMEOUT", START_S)),
        finish_timeout=finish_s,
        finish_timeout_raises=True,
        disable_git=True,
        x_disable_meta=True,  # paths and arguments; the configuration describes the machine
        host="",
        program=Path(sys.argv[0]).name,  # else with its path
    )
    modes: list[Any] = list(dict.fromkeys([mode, "offline", "disabled"]))
    for each, instead in zip(modes, [*modes[1:], None], strict=True):
        try:
            with suppress(OSError):
                if each != "disabled":
                    Path(options["dir"]).mkdir(parents=True, exist_ok=True)  # else W&B takes the temporary folder
            with watch.limit(settings.init_timeout + GRACE_S):
                return wandb.init(**options, mode=each, settings=settings), each
        except Exception as error:
            if instead is None:
                raise
            why = f"its process did not answer for {settings.init_timeout:g} s" if watch.ended else reason(error)
            way = "logging offline" if instead == "offline" else "rows are only in metrics.csv"
            print(f"W&B: the run could not be started {each} ({why}); {way}", file=sys.stderr)
            watch.ended = False
            kill_process()  # which goes on trying
            forget_process()  # which takes the run for started
    raise AssertionError


def define_charts(run: Any) -> None:
    """Draw every metric over the step, and summarise it by its rule."""
    run.define_metric(STEP, hidden=True)
    for name, rule in summaries().items():
        run.define_metric(name, step_metric=STEP, step_sync=True, summary=f"{rule},last")
    run.define_metric("*", step_metric=STEP, step_sync=True)


def finish(run: Any, code: int, finish_s: float, watch: Watch) -> str:
    """End the run and the process of W&B; the reason why not all of it was sent, or nothing."""
    unsent, earlier = "", watch.ended
    try:
        with watch.limit(finish_s + GRACE_S):
            run.finish(exit_code=code)
    except TimeoutError:
        unsent = f"the server has not taken all within {finish_s:g} s (logger.wandb.finish_s)"
    except Exception:  # as in RunLogger
        unsent = "its process has ended"
        if watch.ended and not earlier:
            unsent = f"its process did not answer for {finish_s + GRACE_S:g} s and was ended"
    with watch.limit(GRACE_S, busy_s=0.0):  # all that it had to write is written
        forget_process()  # the next run of this process starts another, and none is left behind
    return unsent


def forget_process() -> None:
    """Leave the process of W&B and the run that is on in it; the next run starts another."""
    import wandb
    from wandb.sdk import wandb_setup
    from wandb.sdk.lib.module import unset_globals

    connection = wandb_setup.singleton()._connection
    with suppress(Exception, SystemExit):
        wandb.teardown()
    if connection is not None and connection._proc is not None:
        connection._proc.join()  # which W&B leaves out where it could not reach the process
    unset_globals()


def whose_id(out_dir: Path, runs_dir: Path, *, resume: bool, in_sweep: bool) -> dict[str, Any]:
    """The id of the run, and whether it may be there already.

    A training that goes on keeps its id. WANDB_RUN_ID is for a run that is started by itself, and for one alone; where
    it is heeded, WANDB_RESUME is W&B's matter.
    """
    from wandb.sdk.lib import runid

    stored, given = run_id(out_dir) if resume else None, os.environ.get("WANDB_RUN_ID")
    other = run_folder_of(given, runs_dir) if given else None
    if stored is None and given and not in_sweep and other in (None, out_dir):
        return {"id": given}
    if given and given != stored:
        why = f"it is that of {other}"
        if stored or in_sweep:
            why = f"this training goes on as {stored}" if stored else "each run of a sweep has an id of its own"
        print(f"W&B: WANDB_RUN_ID={given} is left out: {why}", file=sys.stderr)
    return {"id": stored or runid.generate_id(), "resume": "allow" if stored or "WANDB_RESUME" in os.environ else None}


@contextmanager
def files_of_artifacts_in(folder: Path) -> Iterator[None]:
    """Let W&B store files of artifacts in `folder` until they are uploaded, unless the user has named another one.

    W&B uploads this path too. Below the working directory it is written without the user's directories: relative to the
    working directory of this process, and of the one that uploads. Elsewhere it is absolute, since W&B resolves `..` in
    a path as text.
    """
    here = display_path(folder)
    if "WANDB_DATA_DIR" in os.environ:
        yield
        return
    anchored = sys.platform == "linux" and not here.is_absolute()
    os.environ["WANDB_DATA_DIR"] = str(Path("/proc/self/cwd") / here if anchored else here)
    try:
        yield
    finally:
        os.environ.pop("WANDB_DATA_DIR", None)
