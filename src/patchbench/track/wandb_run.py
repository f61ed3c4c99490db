"""One W&B run per training: with or without a login, offline, resumed, or in an agent of a sweep."""

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

from patchbench.machine import whole_file
from patchbench.runs.metrics import summaries
from patchbench.track.redact import redact

ID_FILE = "wandb_run_id.txt"
STEP = "trainer/global_step"
PAIRS = 10_000  # most rows that W&B draws of a confusion matrix
TAG = 64  # most characters that W&B takes for a tag


class RunLogger(WandbLogger):
    """Lightning's logger, except that training continues if the process of W&B ends: SLURM sends SIGTERM to it too."""

    lost = False
    table_rows = 0

    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        self.send(partial(super().log_metrics, metrics, step))

    def log_predictions(
        self, predicted: pd.DataFrame, confused: pd.DataFrame, read: Callable[[list[int]], UInt8[Tensor, "b c H W"]]
    ) -> None:
        """Log two tables, which W&B stores as artifacts: test/predictions with the images, and test/confusion.

        predicted: all rows, of which the first `table_rows` are uploaded. read: returns images by their numbers.
        """
        if self.experiment.disabled:
            return
        import wandb

        predicted = predicted.head(self.table_rows)
        images = read(predicted["image"].tolist()).permute(0, 2, 3, 1).numpy()
        shown = [image[..., :3] if image.shape[-1] > 2 else image[..., 0] for image in images]
        rows = predicted.assign(picture=[wandb.Image(image) for image in shown])
        most = confused.sort_values("count", ascending=False, kind="stable").head(PAIRS)
        names = {"label": "Actual", "predicted": "Predicted", "count": "nPredictions"}  # the names in the chart of W&B
        tables = {
            "test/predictions": wandb.Table(dataframe=rows[["picture", *predicted.columns]]),
            "test/confusion": wandb.Table(dataframe=most.rename(columns=names)),
        }
        self.send(lambda: self.experiment.log(tables))

    def log_checkpoint(self, path: Path, name: str, about: dict[str, Any]) -> None:
        """Log a checkpoint as an artifact of type model, without the paths of this machine."""
        if self.experiment.disabled:
            return
        import wandb

        artifact = wandb.Artifact(re.sub(r"[^\w.-]", "-", name), type="model", metadata=redact(about))
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / path.name
            torch.save(redact(torch.load(path, map_location="cpu", weights_only=True)), copy)
            artifact.add_file(str(copy))
        self.send(lambda: self.experiment.log_artifact(artifact, aliases=[path.stem]))

    def send(self, upload: Callable[[], object]) -> None:
        """Upload, and go on without W&B if that fails."""
        import wandb

        if self.lost:
            return
        try:
            upload()
        except wandb.errors.Error as error:  # an artifact needs an answer of the server
            reason = str(error).splitlines()[0]
            print(f"W&B: upload failed ({reason}); the files are in the run directory", file=sys.stderr)
        except OSError as error:
            self.lost = True
            print(f"W&B: its process has ended ({error}); further rows are only in metrics.csv", file=sys.stderr)


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
    """Yield a logger whose run ends with this block and its exit code. Only rank 0 has a run.

    mode: auto follows WANDB_MODE and the settings of W&B; without them it is online with credentials and offline
    without. There is never a prompt. Offline runs lie in runs_dir/wandb, so that one `wandb sync` uploads all of them.
    The id of the run is stored in out_dir, and a resumed training continues the same run.
    finish_s: seconds to wait at the end for a server that does not answer; `wandb sync` uploads the rest later.
    ValueError for another mode.
    """
    if mode not in ("auto", "online", "offline", "disabled"):
        raise ValueError(f"logger.wandb.mode={mode} is unknown: use auto, online, offline or disabled")
    if rank_zero_only.rank != 0:  # type: ignore[attr-defined]
        yield WandbLogger(project=project, save_dir=str(out_dir))  # on other ranks Lightning's logger does nothing
        return
    import wandb

    resolved: Any = resolve_mode(mode)
    id_file = out_dir / ID_FILE
    run_id = id_file.read_text().strip() if resume and id_file.exists() else None
    in_agent = "WANDB_SWEEP_ID" in os.environ  # the agent owns project, entity and id
    options: dict = {"name": name, "group": group, "tags": [tag[:TAG] for tag in tags], "config": config}
    options = redact(options) | {"job_type": "train", "reinit": "finish_previous"}
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
        x_disable_meta=True,  # paths, host and arguments; the configuration describes the machine
    )
    try:
        run = wandb.init(**options, mode=resolved, settings=settings)
    except wandb.errors.CommError as error:
        print(f"W&B: no answer from the server ({str(error).splitlines()[0]}); logging offline", file=sys.stderr)
        resolved = "offline"
        run = wandb.init(**options, mode=resolved, settings=settings)
    run.define_metric(STEP, hidden=True)
    for name, rule in summaries().items():  # W&B takes the first rule that fits
        run.define_metric(name, step_metric=STEP, step_sync=True, summary=f"{rule},last")
    run.define_metric("*", step_metric=STEP, step_sync=True)
    if resolved != "disabled":
        with whole_file(id_file) as file:
            file.write(run.id)
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
            unsent = "the server does not answer"
        except OSError:  # as in RunLogger
            unsent = "its process has ended"
        folder = Path(run.settings.sync_dir)
        shown = folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder
        if resolved == "offline":
            print(f"W&B: offline; `wandb login`, then `wandb sync {shown}`, uploads the run", file=sys.stderr)
        elif unsent:
            later = f"`wandb sync --no-skip-online {shown}`"
            print(f"W&B: {unsent}; nothing is lost: {later} uploads the rest later", file=sys.stderr)


def stage(folder: Path) -> None:
    """Let W&B store files of artifacts beside the runs until `wandb sync`, at a path without the user's directories.

    W&B uploads this path too. It is relative to the working directory: of this process, and of the one that uploads.
    """
    if sys.platform == "linux":
        os.environ.setdefault("WANDB_DATA_DIR", f"/proc/self/cwd/{os.path.relpath(folder)}/wandb/staging")


def resolve_mode(mode: str) -> str:
    """Decide what mode=auto is: online, offline or disabled."""
    import wandb

    if mode != "auto":
        return mode
    settings = wandb.setup(wandb.Settings(silent=True)).settings  # WANDB_MODE, or `wandb offline`
    if settings.mode != "online" or os.environ.get("WANDB_MODE"):
        return settings.mode
    return "online" if wandb.login(prompt=False, verify=False) else "offline"
