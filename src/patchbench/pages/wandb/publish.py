"""Write the specification of a workspace or report to a file, and save it in W&B if a person is logged in."""

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

Made = ws.Workspace | wr.Report


def logged_in() -> bool:
    return resolve_mode("auto") == "online"


def entity_or_default(entity: str | None, online: bool) -> str:
    """Return the entity that was given, here or by WANDB_ENTITY, else that of the login; empty without a login."""
    entity = entity or os.environ.get("WANDB_ENTITY")
    if entity or not online:
        return entity or ""
    with wandb_errors("is not there"):
        return wandb.Api().default_entity or ""


@contextmanager
def wandb_errors(failure: str) -> Iterator[None]:
    """Raise ConnectionError, with one line, for every error on the way to W&B. failure: continues "W&B ..."."""
    try:
        yield
    except (wandb.errors.Error, OSError, ValueError, KeyError, TypeError) as error:
        why = redact(" ".join(str(error).split())[:200]) or type(error).__name__
        raise ConnectionError(
            f"W&B {failure} ({why}): `wandb login`, or WANDB_MODE=offline for the file alone"
        ) from error


def app_url() -> str:
    return wandb.setup().settings.app_url


def specification(made: Made) -> dict[str, Any]:
    """The JSON that W&B receives. The version of the library is pinned: no public call makes this without a server."""
    return json.loads(made._to_model().spec.model_dump_json(by_alias=True, exclude_none=True))


def write(made: Made, path: Path, saved: Mapping[str, str]) -> Path:
    """Write the file. saved: url, id and name in W&B, by which the next publication replaces this one."""
    kind, title = ("report", made.title) if isinstance(made, wr.Report) else ("workspace", made.name)
    owner = {"entity": made.entity, "project": made.project}
    content = {"kind": kind, "title": title} | owner | {"saved": dict(saved), "spec": specification(made)}
    with whole_file(path) as file:
        json.dump(content, file, indent=1)
    return path


def saved_before(made: Made, path: Path) -> dict[str, str]:
    """The entry `saved` of the file, if the file belongs to the same project."""
    if not path.exists():
        return {}
    earlier = json.loads(path.read_text(encoding="utf-8"))
    same_project = (earlier["entity"], earlier["project"]) == (made.entity, made.project)
    return earlier["saved"] if same_project else {}


def publish(made: Made, path: Path) -> str:
    """Save it in W&B in place of the version that the same file names; return its link. Needs a login.

    ConnectionError if W&B refuses it; the file is written all the same.
    """
    saved = saved_before(made, path)
    write(made, path, saved)
    with wandb_errors(f"has not taken {path}"):
        api = wandb.Api()
        if made.project not in [project.name for project in api.projects(made.entity)]:
            api.create_project(made.project, made.entity)
        try:
            put(made, saved)
        except (wandb.errors.Error, KeyError, TypeError):
            if not saved:
                raise
            put(made, {})  # it was deleted there
    saved = (
        {"url": made.url, "id": made.id, "name": ""}
        if isinstance(made, wr.Report)
        else {"url": made.url, "id": made._internal_id, "name": made._internal_name}
    )
    write(made, path, saved)
    return made.url


def put(made: Made, saved: Mapping[str, str]) -> None:
    if isinstance(made, wr.Report):
        made.id = saved.get("id", "")
    else:
        made._internal_id, made._internal_name = saved.get("id", ""), saved.get("name", "")
    made.save()
