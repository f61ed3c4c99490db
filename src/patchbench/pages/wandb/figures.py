"""Upload of the figures of a report to W&B, as media of a run: reports in W&B show no other pictures."""

import re
from pathlib import Path
from typing import Any

import wandb

from patchbench.pages.wandb.publish import wandb_errors
from patchbench.pages.wandb.report import FIGURES
from patchbench.runs.wandb_files import staging, wandb_dir
from patchbench.track.wandb_run import artifact_files_in


def log_figures(folder: Path, *, entity: str, project: str, run_id: str, name: str, root: Path) -> None:
    """Log all SVG files of a folder to one run. ConnectionError if W&B does not accept them.

    run_id: id of the run, equal each time. name: its name. root: folder of the runs.
    """
    settings = wandb.Settings(silent=True, console="off", init_timeout=30, finish_timeout=120.0, disable_git=True)
    settings.x_disable_meta = True
    place = wandb_dir(root)
    options: Any = {
        "entity": entity,
        "project": project,
        "id": run_id,
        "resume": "allow",
        "name": name,
        "job_type": "report",
        "group": "reports",
        "dir": str(place.parent),
    }
    with (
        wandb_errors("has not taken the figures"),
        artifact_files_in(staging(place, run_id)),
        wandb.init(**options, mode="online", settings=settings) as run,
    ):
        drawn = {FIGURES + path.stem: wandb.Html(page(path), inject=False) for path in sorted(folder.glob("*.svg"))}
        run.log(drawn)


def page(path: Path) -> str:
    """Return an SVG as an HTML page with the width of the panel."""
    drawn = path.read_text(encoding="utf-8")
    drawn = drawn[drawn.index("<svg") :]
    drawn = re.sub(r'(<svg[^>]*?) width="[^"]*"', r'\1 width="100%"', drawn, count=1)
    drawn = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", drawn, count=1)
    return f'<!doctype html>\n<meta charset="utf-8">\n<body style="margin: 0; background: #fff">\n{drawn}</body>\n'
