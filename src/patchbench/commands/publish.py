"""Publication of the workspace of a project on W&B, and of a report on a study or a folder of runs."""

import re
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from patchbench.commands.report import report_study, report_sweep
from patchbench.config.options import EXPERIMENTS
from patchbench.config.plan import folder_of
from patchbench.pages.wandb import publish
from patchbench.pages.wandb.figures import log_figures
from patchbench.pages.wandb.report import report
from patchbench.pages.wandb.workspace import workspace
from patchbench.runs.committed import read_runs
from patchbench.runs.wandb_files import ID_FILE

MEDIA = re.compile(r"(analysis/.+)_\d+_[0-9a-f]+\.\w+$")  # <key>_<step>_<hash>.<format>, below files/media/<kind>/


def publish_workspace(project: str, entity: str | None, runs_dir: Path, out: Path) -> str:
    """Publish the workspace of a project; return its link, or the path of its specification without a login."""
    online = publish.logged_in()
    made = workspace(publish.entity_or_default(entity, online), project, pictures(runs_dir))
    return publish.publish(made, out) if online else str(publish.write(made, out, {}))


def publish_study(
    name: str,
    scale: str | None,
    runs_dir: Path,
    project: str,
    entity: str | None,
    out: Path,
    *,
    experiments: Path = EXPERIMENTS,
) -> str:
    """Publish the report of a study: a new report, or that in the folder of the study if no new one can be written.

    Return as `publish_report`.
    """
    try:
        folder = report_study(name, runs_dir, scale, experiments=experiments).parent
    except (ValueError, FileNotFoundError):
        folder = folder_of(name, scale or "cpu", runs_dir, experiments)
        if not (folder / "README.md").exists():
            raise
    return publish_report(name, folder, runs_dir, project, entity, out)


def publish_sweep(
    runs_dir: Path, where: Mapping[str, str], against: str | None, project: str, entity: str | None, out: Path
) -> str:
    folder = report_sweep(runs_dir, where, against).parent
    name = re.sub(r"[^\w.-]+", "-", f"{runs_dir.name}-{folder.name}")
    return publish_report(name, folder, runs_dir, project, entity, out)


def publish_report(name: str, folder: Path, runs_dir: Path, project: str, entity: str | None, out: Path) -> str:
    """Publish README.md and the figures of a folder, with links to the runs of its runs.csv.

    Return the link of the report, or the path of its specification without a login.
    """
    online = publish.logged_in()
    entity, table = publish.entity_or_default(entity, online), read_runs(folder / "runs.csv")
    made = report(
        entity,
        project,
        (folder / "README.md").read_text(encoding="utf-8"),
        figures_run=f"report-{name}",
        identities=sorted(table["identity"].dropna()),
        links=links(table, runs_dir, f"{publish.app_url()}/{entity}/{project}/runs" if entity else None),
    )
    if not online:
        return str(publish.write(made, out, {}))
    log_figures(folder, entity=entity, project=project, run_id=f"report-{name}", name=f"report {name}", root=runs_dir)
    return publish.publish(made, out)


def links(table: pd.DataFrame, runs_dir: Path, url: str | None) -> dict[str, list[str]]:
    """Return the seeds of the runs that W&B has, by arm; as links if the address of the project is known."""
    links_by_arm: dict[str, list[str]] = {}
    for row in table[table["status"] == "done"].to_dict("records"):
        path = runs_dir / str(row["run"]) / ID_FILE
        if path.exists():
            run, arm = path.read_text().strip(), f"{row['part']}: {row['arm']}"
            link = f"[{row['seed']:g}]({url}/{run})" if url else f"{row['seed']:g} `{run}`"
            links_by_arm.setdefault(arm, []).append(link)
    return links_by_arm


def pictures(runs_dir: Path) -> list[str]:
    """List the keys `analysis/...` under which runs of this folder have logged pictures."""
    files = runs_dir.glob("wandb/*run-*/files/media/*/analysis/**/*")
    return sorted({match[1] for path in files if (match := MEDIA.search(path.as_posix()))})
