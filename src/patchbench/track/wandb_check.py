"""The options of W&B and its environment, checked before anything is trained: a run is not lost to a wrong name."""

import os
import re
from collections.abc import Sequence
from typing import Any

from patchbench.checks import one_of, positive
from patchbench.redact import redact

MODES = ("auto", "online", "offline", "disabled")
PROJECT = "patchbench"
LONGEST = 64  # characters of a tag
NOT_IN_NAMES = re.compile(r"[/\\#?%:]")  # what W&B does not take in the name of a project
YES = ("1", "true", "yes", "y", "on")


def check_wandb(
    *,
    project: object,
    entity: object,
    mode: str,
    tags: object,
    notes: object,
    finish_s: object,
    table_rows: object,
) -> None:
    """ValueError names the option, or the variable of the environment, that W&B would refuse.

    The options are those of conf/logger/wandb.yaml. Names that only the server knows, as that of an entity, show when
    the run starts.
    """
    one_of("logger.wandb.mode", mode, MODES)
    project_name(project)
    name("logger.wandb.entity", entity)
    own_tags(tags)
    text("logger.wandb.notes", notes)
    positive("logger.wandb.finish_s", finish_s)
    if isinstance(table_rows, bool) or not isinstance(table_rows, int) or table_rows < 0:
        raise ValueError(f"logger.wandb.table_rows={table_rows} is no number of rows: use 0 or more")
    check_environment()
    resolve_mode(mode)


def text(option: str, value: object) -> str | None:
    """An option as text: a number counts as the word that it was. ValueError for lists and the like, and for blanks."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, str | int) or not str(value).strip():
        raise ValueError(f"{option}={value} is no text: use '{option}=\"...\"', or null")
    return str(value).strip()


def name(option: str, value: object) -> str | None:
    """`text` that may stand in the address of a page."""
    given = text(option, value)
    if given and (NOT_IN_NAMES.search(given) or len(given) > 128):
        cure = "use letters, digits, - and _, 128 at most"
        if option.endswith("project") and given.count("/") == 1:
            entity, project = given.split("/")
            cure = f"use {option.removesuffix('project')}entity={entity} {option}={project}"
        raise ValueError(f"{option}={given} is no name that W&B takes: {cure}")
    return given


def project_name(given: object = None, option: str = "logger.wandb.project") -> str:
    """The project of the command line, else of WANDB_PROJECT, else ours."""
    return name(option, given) or os.environ.get("WANDB_PROJECT") or PROJECT


def own_tags(given: object) -> list[str]:
    """Tags of the command line, and of WANDB_TAGS. ValueError for what is no tag."""
    if not isinstance(given, Sequence) or isinstance(given, str):
        given = [] if given is None else [given]
    tags = [tag for tag in (text("logger.wandb.tags", tag) for tag in given) if tag]
    for tag in tags:
        if len(tag) > LONGEST:
            raise ValueError(f"logger.wandb.tags: {tag!r} has {len(tag)} characters: a tag has {LONGEST} at most")
    return [*tags, *filter(None, os.environ.get("WANDB_TAGS", "").split(","))]


def check_environment() -> None:
    """ValueError names the first variable of the environment that W&B does not understand.

    An empty one counts as none and is removed: W&B would object to it.
    """
    import wandb

    for variable, value in sorted(os.environ.items()):
        if variable.startswith("WANDB_") and not value:
            del os.environ[variable]
        elif variable.startswith("WANDB_"):
            try:
                wandb.Settings().update_from_env_vars({variable: value})
            except (ValueError, wandb.errors.Error) as error:
                [shown] = redact({variable: value}).values()
                said = f"{variable}={shown} in the environment: W&B does not take it ({reason(error)})"
                raise ValueError(f"{said}: correct it, or unset {variable}") from error


def reason(error: Exception) -> str:
    """The reason why W&B objects, in a line."""
    errors: Any = getattr(error, "errors", None)  # of pydantic
    said = errors()[0]["msg"] if callable(errors) else str(error)
    said = re.sub(r"<no message>|Consider increasing.*", "", said, flags=re.DOTALL)  # a setting that is not the user's
    return redact(" ".join(said.split()).rstrip(".")[:200]) or type(error).__name__


def resolve_mode(mode: str) -> str:
    """Decide what mode=auto is: online, offline or disabled. ValueError for an API key that cannot be one."""
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # tracebacks have paths, and to send them takes its time
    import wandb

    if mode == "auto":
        chosen = os.environ.get("WANDB_MODE")
        if not chosen and os.environ.get("WANDB_DISABLED", "").lower() in YES:
            return "disabled"
        settings = wandb.setup(wandb.Settings(silent=True)).settings  # WANDB_MODE, or `wandb offline`
        mode = {"dryrun": "offline", "run": "online"}.get(settings.mode, settings.mode)
        if not chosen and mode == "online":
            return "online" if logged_in() else "offline"
    if mode == "online" and not logged_in():
        raise ValueError("W&B is to log online, and nobody is logged in: `wandb login`, or logger.wandb.mode=offline")
    return mode


def logged_in() -> bool:
    """True with credentials, which only the server can verify. ValueError where they are none."""
    import wandb

    try:
        return wandb.login(prompt=False, verify=False)
    except wandb.errors.Error as error:
        key = "WANDB_API_KEY" if os.environ.get("WANDB_API_KEY") else "the API key"
        raise ValueError(
            f"{key} is none that W&B takes ({reason(error)}): correct it, `wandb login` stores one; or use "
            "logger.wandb.mode=offline, or logger=csv"
        ) from error
