"""Checks of the options and environment variables of W&B before training, so that no run fails at a wrong name."""

import os
import re
from collections.abc import Sequence
from typing import Any

from patchbench.checks import one_of, positive
from patchbench.redact import redact

MODES = ("auto", "online", "offline", "disabled")
PROJECT = "patchbench"
LONGEST = 64  # characters of a tag
NOT_IN_NAMES = re.compile(r"[/\\#?%:]")  # characters that W&B does not accept in the name of a project
TRUE = ("1", "true", "yes", "y", "on")


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
    """Raise ValueError for an option, or an environment variable, that W&B would not accept.

    The options are those of conf/logger/wandb.yaml. A name that only the server can check, such as that of an entity,
    is checked when the run starts.
    """
    one_of("logger.wandb.mode", mode, MODES)
    project_name(project)
    name("logger.wandb.entity", entity)
    user_tags(tags)
    text("logger.wandb.notes", notes)
    positive("logger.wandb.finish_s", finish_s)
    if isinstance(table_rows, bool) or not isinstance(table_rows, int) or table_rows < 0:
        raise ValueError(f"logger.wandb.table_rows={table_rows} is no number of rows: use 0 or more")
    check_environment()
    resolve_mode(mode)


def text(option: str, value: object) -> str | None:
    """Return an option as text, or None for null. ValueError unless it is text or a number, and not blank."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, str | int) or not str(value).strip():
        raise ValueError(f"{option}={value} is no text: use '{option}=\"...\"', or null")
    return str(value).strip()


def name(option: str, value: object) -> str | None:
    """Return an option as `text` does. ValueError for a name that cannot be part of the URL of a page."""
    given = text(option, value)
    if given and (NOT_IN_NAMES.search(given) or len(given) > 128):
        cure = "use letters, digits, - and _, 128 at most"
        if option.endswith("project") and given.count("/") == 1:
            entity, project = given.split("/")
            cure = f"use {option.removesuffix('project')}entity={entity} {option}={project}"
        raise ValueError(f"{option}={given} is no name that W&B accepts: {cure}")
    return given


def project_name(given: object = None, option: str = "logger.wandb.project") -> str:
    """Return the project of the command line, else that of WANDB_PROJECT, else PROJECT."""
    return name(option, given) or os.environ.get("WANDB_PROJECT") or PROJECT


def user_tags(given: object) -> list[str]:
    """Return the tags of the command line and of WANDB_TAGS. ValueError for a tag that is no text, or too long."""
    if not isinstance(given, Sequence) or isinstance(given, str):
        given = [] if given is None else [given]
    tags = [tag for tag in (text("logger.wandb.tags", tag) for tag in given) if tag]
    for tag in tags:
        if len(tag) > LONGEST:
            raise ValueError(f"logger.wandb.tags: {tag!r} has {len(tag)} characters: a tag has {LONGEST} at most")
    return [*tags, *filter(None, os.environ.get("WANDB_TAGS", "").split(","))]


def check_environment() -> None:
    """Raise ValueError for the first environment variable that W&B does not accept.

    An empty variable is removed: W&B would not accept it.
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
                message = f"{variable}={shown} in the environment: W&B does not accept it ({reason(error)})"
                raise ValueError(f"{message}: correct it, or unset {variable}") from error


def reason(error: Exception) -> str:
    """Return the reason of an error of W&B in one line, without secrets."""
    errors: Any = getattr(error, "errors", None)  # of pydantic
    message = errors()[0]["msg"] if callable(errors) else str(error)
    advice = r"<no message>|Consider increasing.*"  # on a setting that the user cannot change
    message = re.sub(advice, "", message, flags=re.DOTALL)
    return redact(" ".join(message.split()).rstrip(".")[:200]) or type(error).__name__


def resolve_mode(mode: str) -> str:
    """Return the mode; auto becomes online, offline or disabled. ValueError for an API key that cannot be valid."""
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # tracebacks contain paths, and sending them takes time
    import wandb

    if mode == "auto":
        chosen = os.environ.get("WANDB_MODE")
        if not chosen and os.environ.get("WANDB_DISABLED", "").lower() in TRUE:
            return "disabled"
        settings = wandb.setup(wandb.Settings(silent=True)).settings  # WANDB_MODE, or `wandb offline`
        mode = {"dryrun": "offline", "run": "online"}.get(settings.mode, settings.mode)
        if not chosen and mode == "online":
            return "online" if logged_in() else "offline"
    if mode == "online" and not logged_in():
        raise ValueError("W&B is to log online, but nobody is logged in: `wandb login`, or logger.wandb.mode=offline")
    return mode


def logged_in() -> bool:
    """True if there are credentials; only the server can verify them. ValueError for an API key of a wrong form."""
    import wandb

    try:
        return wandb.login(prompt=False, verify=False)
    except wandb.errors.Error as error:
        key = "WANDB_API_KEY" if os.environ.get("WANDB_API_KEY") else "the API key"
        raise ValueError(
            f"{key} is no key that W&B accepts ({reason(error)}): correct it, `wandb login` stores one; or use "
            "logger.wandb.mode=offline, or logger=csv"
        ) from error
