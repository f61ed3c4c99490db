"""One W&B run per training, whatever the state of its user: logged in or not, offline, resuming, in a sweep agent."""

import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from jaxtyping import UInt8
from pytorch_lightning.loggers import WandbLogger
from pytorch_lightning.utilities import rank_zero_only
from torch import Tensor

from patchbench.runs.metrics import summaries
from patchbench.track.private import private

ID_FILE = "wandb_run_id.txt"
STEP = "trainer/global_step"
PAIRS = 10_000  # most rows that W&B draws of a confusion matrix
TAG = 64  # most characters that W&B takes for a tag


class RunLogger(WandbLogger):
    """Lightning's, but training goes on where W&B's own process ends: SLURM sends SIGTERM to it as well."""

    lost = False
    table_rows = 0

    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        self.send(partial(super().log_metrics, metrics, step))

    def log_predictions(
        self, predicted: pd.DataFrame, confused: pd.DataFrame, read: Callable[[list[int]], UInt8[Tensor, "b c H W"]]
    ) -> None:
        """Two tables, which W&B keeps as artefacts: test/predictions with the images, and test/confusion.

        predicted: all; the first `table_rows` are sent. read: images by their numbers.
        """
        if self.experiment.disabled:
            return
        import wandb

        predicted = predicted.head(self.table_rows)
        images = read(predicted["image"].tolist()).permute(0, 2, 3, 1).numpy()
        shown = [image[..., :3] if image.shape[-1] > 2 else image[..., 0] for image in images]
        rows = predicted.assign(picture=[wandb.Image(image) for image in shown])
        most = confused.sort_values("count", ascending=False, kind="stable").head(PAIRS)
        names = {"label": "Actual", "predicted": "Predicted", "count": "nPredictions"}  # as W&B's own chart calls them
        tables = {
            "test/predictions": wandb.Table(dataframe=rows[["picture", *predicted.columns]]),
            "test/confusion": wandb.Table(dataframe=most.rename(columns=names)),
        }
        self.send(lambda: self.experiment.log(tables))

    def log_checkpoint(self, path: Path, name: str, about: dict[str, Any]) -> None:
        """As an artefact of type model, without the paths that a checkpoint keeps of this machine."""
        if self.experiment.disabled:
            return
        import wandb

        artefact = wandb.Artifact(re.sub(r"[^\w.-]", "-", name), type="model", metadata=private(about))
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / path.name
            torch.save(private(torch.load(path, map_location="cpu", weights_only=True)), copy)
            artefact.add_file(str(copy))
        self.send(lambda: self.experiment.log_artifact(artefact, aliases=[path.stem]))

    def send(self, what: Callable[[], object]) -> None:
        import wandb

        if self.lost:
            return
        try:
            what()
        except wandb.errors.Error as error:  # an artefact, which asks the server first
            said = str(error).splitlines()[0]
            print(f"W&B: not sent, what it is of lies in the directory of the run ({said})", file=sys.stderr)
        except OSError as error:
            self.lost = True
            print(f"W&B: its process has ended ({error}): further rows are in metrics.csv only", file=sys.stderr)


@contextmanager
def wandb_run(
    *,
    project: str,
    entity: str | None,
    mode: str,
    group: str | None,
    name: str,
    tags: list[str],
    config: dict,
    out_dir: Path,
    runs_dir: Path,
    resume: bool,
    finish_s: float,
    table_rows: int,
) -> Iterator[WandbLogger]:
    """A logger whose run ends with the block, and with its exit code; only rank 0 has one.

    mode: auto is what WANDB_MODE or W&B's own settings say, else online with credentials, else offline: never a prompt.
    Offline runs lie side by side in runs_dir/wandb, so that one `wandb sync` takes them all. The id is kept in
    out_dir, and a resumed training goes on in the same run. finish_s: seconds to wait, at the end, for a server that no
    longer answers; what it has not taken by then stays for `wandb sync`. ValueError for another mode.
    """
    if mode not in ("auto", "online", "offline", "disabled"):
        raise ValueError(f"logger.wandb.mode={mode} is unknown: use auto, online, offline or disabled")
    if rank_zero_only.rank != 0:  # type: ignore[attr-defined]
        yield WandbLogger(project=project, save_dir=str(out_dir))  # Lightning's logger of other ranks does nothing
        return
    import wandb

    resolved: Any = resolve_mode(mode)
    id_file = out_dir / ID_FILE
    run_id = id_file.read_text().strip() if resume and id_file.exists() else None
    in_agent = "WANDB_SWEEP_ID" in os.environ  # the agent owns project, entity and id
    options: dict = {"name": name, "group": group, "tags": [tag[:TAG] for tag in tags], "config": config}
    options = private(options) | {"job_type": "train", "reinit": "finish_previous"}
    if not in_agent:
        options |= {"project": project, "entity": entity, "id": run_id, "resume": "allow" if run_id else None}
    options["dir"] = os.environ.get("WANDB_DIR") or str(runs_dir)
    stage(Path(options["dir"]))
    settings = wandb.Settings(
        silent=True,
        console="off",
        init_timeout=30,
        finish_timeout=finish_s,
        finish_timeout_raises=True,
        disable_git=True,
        x_disable_meta=True,  # paths, host and arguments; what matters of the machine is in the configuration
    )
    try:
        run = wandb.init(**options, mode=resolved, settings=settings)
    except wandb.errors.CommError as error:
        print(f"W&B: no answer from the server ({str(error).splitlines()[0]}): logging offline", file=sys.stderr)
        resolved = "offline"
        run = wandb.init(**options, mode=resolved, settings=settings)
    run.define_metric(STEP, hidden=True)
    for name, rule in summaries().items():  # W&B takes the first rule that fits
        run.define_metric(name, step_metric=STEP, step_sync=True, summary=f"{rule},last")
    run.define_metric("*", step_metric=STEP, step_sync=True)
    if resolved != "disabled":
        id_file.write_text(run.id)
    if resolved == "online":
        print(f"W&B: {run.url}", file=sys.stderr)
    code = 1
    try:
        logger = RunLogger(project=project, save_dir=str(out_dir), experiment=run, log_model=False)
        logger.table_rows = table_rows
        yield logger
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
        raise
    finally:
        unsent = ""
        try:
            run.finish(exit_code=code)
        except TimeoutError:
            unsent = "the server no longer answers"
        except OSError:  # as in RunLogger
            unsent = "its process has ended"
        folder = Path(run.settings.sync_dir)
        shown = folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder
        if resolved == "offline":
            print(f"W&B: kept offline; `wandb login`, then `wandb sync {shown}`, shows it online", file=sys.stderr)
        elif unsent:
            later = f"`wandb sync --no-skip-online {shown}`"
            print(f"W&B: {unsent}; all is kept: {later}, another time, completes the run", file=sys.stderr)


def stage(folder: Path) -> None:
    """Let files of artefacts wait beside the runs for `wandb sync`, at a path that does not say where that is.

    W&B uploads the path as well. This one is of the working directory: of this process, and of the one that syncs.
    """
    if sys.platform == "linux":
        os.environ.setdefault("WANDB_DATA_DIR", f"/proc/self/cwd/{os.path.relpath(folder)}/wandb/staging")


def resolve_mode(mode: str) -> str:
    import wandb

    if mode != "auto":
        return mode
    settings = wandb.setup(wandb.Settings(silent=True)).settings  # WANDB_MODE, or `wandb offline`
    if settings.mode != "online" or os.environ.get("WANDB_MODE"):
        return settings.mode
    return "online" if wandb.login(prompt=False, verify=False) else "offline"
