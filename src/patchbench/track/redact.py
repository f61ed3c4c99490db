"""Remove secrets and the user's home directory from values that leave this machine."""

import os
import re
from pathlib import Path
from typing import Any

SECRET_NAME = re.compile(r"(key|token|secret|password)$", re.IGNORECASE)
SHORTEST_SECRET = 8  # characters; a shorter text would match everywhere


def redact(value: Any) -> Any:
    """Return the same tree with the home directory in its strings written as ~, and secrets as ***.

    Secrets are the values of keys named like secrets, the values of environment variables named like secrets, and the
    credentials in URLs.
    """
    secrets = [text for name, text in os.environ.items() if SECRET_NAME.search(name) and len(text) >= SHORTEST_SECRET]
    home = re.compile(rf"{re.escape(str(Path.home()))}(?![\w.-])")

    def clean(value: Any, key: str = "") -> Any:
        if isinstance(value, dict):
            return {clean(name): clean(below, str(name)) for name, below in value.items()}
        if isinstance(value, list | tuple):
            return type(value)([clean(below) for below in value])
        if not isinstance(value, str):
            return value
        if SECRET_NAME.search(key):
            return "***"
        value = value.encode("utf-8", "backslashreplace").decode()  # names of files need not be text, uploads do
        for secret in secrets:
            value = value.replace(secret, "***")
        value = re.sub(r"(\w+://)[^/@\s]+@", r"\1***@", value)
        return value if home.pattern.startswith("/(?!") else home.sub("~", value)

    return clean(value)
