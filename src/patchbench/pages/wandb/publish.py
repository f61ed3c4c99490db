"""Workspaces and reports of W&B: their specification in a file, and their publication on the server."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import wandb
import wandb_workspaces.reports.v2 as wr
import wandb_workspaces.workspaces as ws

from patchbench.machine import whole_file
from patchbench.redact import redact
from patchbench.track.wandb_check import resolve_mode

Page = ws.Workspace | wr.Report


def logged_in() -> bool:
    """True if W&B is online, by WANDB_MODE, its settings and the credentials."""
    return resolve_mode("auto") == "online"


def entity_or_default(entity: str | None, online: bool) -> str:
    """Return `entity`, else that of WANDB_ENTITY, else that of the login; empty if W&B is not online."""
    entity = entity or os.environ.get("WANDB_ENTITY")
    if entity or not online:
        return entity or ""
    with wandb_errors("is not there"):
        return wandb.Api().default_entity or ""


@contextmanager
def wandb_errors(failure: str) -> Iterator[None]:
    """Convert errors of W&B and of the network to ConnectionError, in one line. failure: continues "W&B ..."."""
    try:
        yield
    except (wandb.errors.Error, OSError, ValueError, KeyError, TypeError) as error:
        why = redact(" ".join(str(error).split())[:200]) or type(error).__name__
        raise ConnectionError(
            f"W&B {failure} ({why}): `wandb login`, or WANDB_MODE=offline for the file alone"
        ) from error


def app_url() -> str:
    return wandb.setup().settings.app_url


def specification(page: Page) -> dict[str, Any]:
    """Return the JSON that W&B receives. It uses private methods, so the version of the library is pinned."""
    return json.loads(page._to_model().spec.model_dump_json(by_alias=True, exclude_none=True))


def write(page: Page, path: Path, saved: Mapping[str, str]) -> Path:
    """Write the file. saved: url, id and name in W&B, so that the next publication replaces this one."""
    kind, title = ("report", page.title) if isinstance(page, wr.Report) else ("workspace", page.name)
    owner = {"entity": page.entity, "project": page.project}
    content = {"kind": kind, "title": title} | owner | {"saved": dict(saved), "spec": specification(page)}
    with whole_file(path) as file:
        json.dump(content, file, indent=1)
    return path


def saved_before(page: Page, path: Path) -> dict[str, str]:
    """Read the entry `saved` of the file; empty if there is no file, or it is of another project."""
    if not path.exists():
        return {}
    earlier = json.loads(path.read_text(encoding="utf-8"))
    same_project = (earlier["entity"], earlier["project"]) == (page.entity, page.project)
    return earlier["saved"] if same_project else {}


def publish(page: Page, path: Path) -> str:
    """Save a workspace or report in W&B, in place of the version in the same file; return its URL. Needs a login.

    ConnectionError if W&B does not accept it; the file is written nevertheless.
    """
    saved = saved_before(page, path)
    write(page, path, saved)
    with wandb_errors(f"has not taken {path}"):
        api = wandb.Api()
        if page.project not in [project.name for project in api.projects(page.entity)]:
            api.create_project(page.project, page.entity)
        try:
            save(page, saved)
        except (wandb.errors.Error, KeyError, TypeError):
            if not saved:
                raise
            save(page, {})  # the earlier version was deleted in W&B
    saved = (
        {"url": page.url, "id": page.id, "name": ""}
        if isinstance(page, wr.Report)
        else {"url": page.url, "id": page._internal_id, "name": page._internal_name}
    )
    write(page, path, saved)
    return page.url


def save(page: Page, saved: Mapping[str, str]) -> None:
    """Save a workspace or report in W&B under the id and name in `saved`, or as a new one."""
    if isinstance(page, wr.Report):
        page.id = saved.get("id", "")
    else:
        page._internal_id, page._internal_name = saved.get("id", ""), saved.get("name", "")
    page.save()
