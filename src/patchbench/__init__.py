"""Vision Transformers whose input stage is put together from options, as functions: see docs/python.md.

patchbench.net("embed=overlap", "pos=rope")     the network that train.py would train
patchbench.trained("runs/<run>/best.ckpt")      a trained network
patchbench.run("data=digits", "epochs=2")       a run, and its record
"""

from importlib.metadata import version
from typing import Any

__version__ = version("patchbench")


def __getattr__(name: str) -> Any:
    if name in ("net", "run", "trained"):
        from patchbench.commands import python  # seconds of imports

        return getattr(python, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
