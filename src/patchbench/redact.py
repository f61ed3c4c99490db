"""Removal of secrets and of the user's home directory from values that are written, printed or sent."""

import logging
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

HIDDEN = "***"
SECRET_VARIABLE = re.compile(r"(key|token|secret|password)$", re.IGNORECASE)  # names of environment variables
SECRET_NAME = re.compile(  # names of entries of the configuration; `label_key` and `image_key` are columns, no secrets
    r"(^|[_.-])(token|secret|password|passwd|credentials?|(api|access|account|private|secret)_?key)$", re.IGNORECASE
)
SHORTEST_SECRET = 8  # characters; a shorter text would match everywhere
LOGIN = re.compile(r"(\w[\w+.-]*\\?://)[^/\s?#]*@")  # Hydra escapes some characters with a backslash
PARAMETER = re.compile(r"""([?&;][\w.~%-]+\\?=)([^&\s'"<>#]*[^&\s'"<>#:;,.)\]}])""")  # of a URL: ?name=value&name=value
SECRET_PARAMETER = re.compile(  # names of parameters; a long value is a secret whatever its name
    r"tok|sig|key|secret|pass|pwd|cred|auth|access|policy|session|jwt|hmac|code", re.IGNORECASE
)
LONG = 16  # characters
ASSIGNED = re.compile(  # on a command line, as in data.options.api_key=...
    r"""((?:^|[\s'"{,+~]|[\w.@/-]*[_.-])(?:token|secret|password|passwd|credentials?|(?:api|access|account|private|secret)_?key)=)"""
    r"""(['"]?)(?!(?:true|false|none|null)\b)([^\s'",}]+)""",  # class_token=False is a switch
    re.IGNORECASE,
)


def without_secrets(value: Any) -> Any:
    """Return the same tree with *** in place of the secrets in its strings.

    Secrets are: values of entries with a name that matches SECRET_NAME, also in a text such as a command line; logins
    of URLs; parameters of URLs with a name that matches SECRET_PARAMETER or a long value, as in signed URLs.
    """

    def clean(text: str) -> str:
        return ASSIGNED.sub(rf"\1\2{HIDDEN}", PARAMETER.sub(parameter, LOGIN.sub(rf"\1{HIDDEN}@", text)))

    return mapped(value, clean)


class WithoutSecrets(logging.Formatter):
    """Formatter that removes secrets from the lines of a log: Hydra's own launcher logs the overrides of each job."""

    def format(self, record: logging.LogRecord) -> str:
        return str(without_secrets(super().format(record)))


def parameter(match: re.Match[str]) -> str:
    """Return a parameter of a URL, with *** in place of a secret value."""
    name, value = match.groups()
    return name + (HIDDEN if SECRET_PARAMETER.search(name) or len(value) >= LONG else value)


def redact(value: Any) -> Any:
    """Return the same tree for an upload: `without_secrets`, and with the home directory written as ~.

    The values of environment variables with a name that matches SECRET_VARIABLE are secrets as well.
    """
    secrets = [
        text for name, text in os.environ.items() if SECRET_VARIABLE.search(name) and len(text) >= SHORTEST_SECRET
    ]
    home = re.compile(rf"{re.escape(str(Path.home()))}(?![\w.-])")

    def clean(text: str) -> str:
        text = text.encode("utf-8", "backslashreplace").decode()  # an upload must be UTF-8; a file name need not be
        for secret in secrets:
            text = text.replace(secret, HIDDEN)
        return text if home.pattern.startswith("/(?!") else home.sub("~", text)

    return mapped(without_secrets(value), clean)


def mapped(value: Any, clean: Callable[[str], str], key: str = "") -> Any:
    """Return the same tree with `clean` applied to its strings, and *** for entries that SECRET_NAME matches."""
    if isinstance(value, dict):
        return {mapped(name, clean): mapped(below, clean, str(name)) for name, below in value.items()}
    if isinstance(value, list | tuple):
        return type(value)([mapped(below, clean) for below in value])
    if not isinstance(value, str):
        return value
    return HIDDEN if value and SECRET_NAME.search(key) else clean(value)
