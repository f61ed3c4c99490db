"""Secrets and the user's home directory, taken out of values: what is written, printed or sent has no password."""

import logging
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

HIDDEN = "***"
SECRET_VARIABLE = re.compile(r"(key|token|secret|password)$", re.IGNORECASE)  # of the environment
SECRET_NAME = re.compile(  # of an entry of the configuration; `label_key` and `image_key` name columns
    r"(^|[_.-])(token|secret|password|passwd|credentials?|(api|access|account|private|secret)_?key)$", re.IGNORECASE
)
SHORTEST_SECRET = 8  # characters; a shorter text would match everywhere
LOGIN = re.compile(r"(\w[\w+.-]*\\?://)[^/\s?#]*@")  # Hydra writes some signs with a backslash before them
PARAMETER = re.compile(r"""([?&;][\w.~%-]+\\?=)([^&\s'"<>#]*[^&\s'"<>#:;,.)\]}])""")  # of a URL: ?name=value&name=value
SECRET_PARAMETER = re.compile(  # by its name; a long value counts as well, whatever its name
    r"tok|sig|key|secret|pass|pwd|cred|auth|access|policy|session|jwt|hmac|code", re.IGNORECASE
)
LONG = 16  # characters
ASSIGNED = re.compile(  # on a command line, as in data.options.api_key=...
    r"""((?:^|[\s'"{,+~]|[\w.@/-]*[_.-])(?:token|secret|password|passwd|credentials?|(?:api|access|account|private|secret)_?key)=)"""
    r"""(['"]?)([^\s'",}]+)""",
    re.IGNORECASE,
)


def without_secrets(value: Any) -> Any:
    """Return the same tree with secrets in its strings written as ***.

    Secrets are the values of entries named like secrets, also where a text assigns them, as on a command line; the
    logins of URLs; and, of the parameters of URLs, those that are named like secrets or are long, as of signed URLs.
    """

    def clean(text: str) -> str:
        return ASSIGNED.sub(rf"\1\2{HIDDEN}", PARAMETER.sub(parameter, LOGIN.sub(rf"\1{HIDDEN}@", text)))

    return mapped(value, clean)


class WithoutSecrets(logging.Formatter):
    """Lines of a log as `without_secrets` leaves them: Hydra's own launcher logs the overrides of each job."""

    def format(self, record: logging.LogRecord) -> str:
        return str(without_secrets(super().format(record)))


def parameter(found: re.Match[str]) -> str:
    """A parameter of a URL, with *** for a value that is a secret."""
    name, value = found.groups()
    return name + (HIDDEN if SECRET_PARAMETER.search(name) or len(value) >= LONG else value)


def redact(value: Any) -> Any:
    """Return the same tree fit to leave this machine: `without_secrets`, and with the home directory written as ~.

    The values of environment variables named like secrets count as secrets as well.
    """
    secrets = [
        text for name, text in os.environ.items() if SECRET_VARIABLE.search(name) and len(text) >= SHORTEST_SECRET
    ]
    home = re.compile(rf"{re.escape(str(Path.home()))}(?![\w.-])")

    def clean(text: str) -> str:
        text = text.encode("utf-8", "backslashreplace").decode()  # names of files need not be text, uploads do
        for secret in secrets:
            text = text.replace(secret, HIDDEN)
        return text if home.pattern.startswith("/(?!") else home.sub("~", text)

    return mapped(without_secrets(value), clean)


def mapped(value: Any, clean: Callable[[str], str], key: str = "") -> Any:
    """Return the same tree with `clean` of its strings, and *** in place of those named like secrets."""
    if isinstance(value, dict):
        return {mapped(name, clean): mapped(below, clean, str(name)) for name, below in value.items()}
    if isinstance(value, list | tuple):
        return type(value)([mapped(below, clean) for below in value])
    if not isinstance(value, str):
        return value
    return HIDDEN if value and SECRET_NAME.search(key) else clean(value)
