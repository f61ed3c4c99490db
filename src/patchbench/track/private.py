"""What leaves this machine says neither where its user keeps things nor with which keys they open them."""

import os
import re
from pathlib import Path
from typing import Any

NAMED = re.compile(r"(key|token|secret|password)$", re.IGNORECASE)
LEAST = 8  # characters of a secret that are looked for: a shorter one would be found everywhere


def private(value: Any) -> Any:
    """The same tree, the home directory in its strings written as ~, and secrets as ***.

    Secret is the text of a key called so, of an environment variable called so, and of whoever signs in with a URL.
    """
    secrets = [text for name, text in os.environ.items() if NAMED.search(name) and len(text) >= LEAST]
    home = re.compile(rf"{re.escape(str(Path.home()))}(?![\w.-])")

    def clean(value: Any, key: str = "") -> Any:
        if isinstance(value, dict):
            return {clean(name): clean(below, str(name)) for name, below in value.items()}
        if isinstance(value, list | tuple):
            return type(value)([clean(below) for below in value])
        if not isinstance(value, str):
            return value
        if NAMED.search(key):
            return "***"
        for secret in secrets:
            value = value.replace(secret, "***")
        value = re.sub(r"(\w+://)[^/@\s]+@", r"\1***@", value)
        return value if home.pattern.startswith("/(?!") else home.sub("~", value)

    return clean(value)
