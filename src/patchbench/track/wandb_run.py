"""One W&B run per training, whatever the state of its user: logged in or not, offline, resuming, in a sweep agent."""

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import WandbLogger
from pytorch_lightning.utilities import rank_zero_only

ID_FILE = "wandb_run_id.txt"


class RunLogger(WandbLogger):
    """Lightning's, but training goes on where W&B's own process ends: SLURM sends SIGTERM to it as well."""

    lost = False

    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        if not self.lost:
            try:
                super().log_metrics(metrics, step)
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
) -> Iterator[WandbLogger]:
    """A logger whose run ends with the block, and with its exit code; only rank 0 has one.

    mode: auto is what WANDB_MODE or W&B's own settings say, else online with credentials, else offline: never a prompt.
    Offline runs lie side by side in runs_dir/wandb, so that one `wandb sync` takes them all. The id is kept in
    out_dir, and a resumed training goes on in the same run. ValueError for another mode.
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
    options: dict = {"name": name, "group": group, "tags": tags, "config": config, "job_type": "train"}
    options["reinit"] = "finish_previous"
    if not in_agent:
        options |= {"project": project, "entity": entity, "id": run_id, "resume": "allow" if run_id else None}
    options["dir"] = os.environ.get("WANDB_DIR") or str(runs_dir)
    settings = wandb.Settings(silent=True, console="off", init_timeout=30, disable_git=True)
    try:
        run = wandb.init(**options, mode=resolved, settings=settings)
    except wandb.errors.CommError as error:
        print(f"W&B: no answer from the server ({str(error).splitlines()[0]}): logging offline", file=sys.stderr)
        resolved = "offline"
        run = wandb.init(**options, mode=resolved, settings=settings)
    run.define_metric("trainer/global_step", hidden=True)
    run.define_metric("*", step_metric="trainer/global_step", step_sync=True)
    if resolved != "disabled":
        id_file.write_text(run.id)
    if resolved == "online":
        print(f"W&B: {run.url}", file=sys.stderr)
    code = 1
    try:
        yield RunLogger(project=project, save_dir=str(out_dir), experiment=run, log_model=False)
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
        raise
    finally:
        with suppress(OSError):  # as above
            run.finish(exit_code=code)
        if resolved == "offline":
            folder = Path(run.settings.sync_dir)
            shown = folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder
            print(f"W&B: kept offline; `wandb login`, then `wandb sync {shown}`, shows it online", file=sys.stderr)


def resolve_mode(mode: str) -> str:
    import wandb

    if mode != "auto":
        return mode
    settings = wandb.setup().settings  # WANDB_MODE, or `wandb offline`
    if settings.mode != "online" or os.environ.get("WANDB_MODE"):
        return settings.mode
    return "online" if wandb.login(prompt=False, verify=False) else "offline"
