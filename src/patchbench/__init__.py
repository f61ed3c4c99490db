"""Vision Transformers whose input stage is put together from options, as functions: see docs/python.md.

patchbench.net("embed=overlap", "pos=rope")     the network that train.py would train
patchbench.trained("runs/<run>/best.ckpt")      a trained network
patchbench.run("data=digits", "epochs=2")       a run, and its record
"""

from importlib.metadata import version

__version__ = version("patchbench")
__all__ = ["net", "run", "trained"]


def __dir__() -> list[str]:
    return ["__version__", *__all__]


def __getattr__(name: str) -> object:
    if name in __all__:
        from patchbench.commands import python  # seconds of imports

        return getattr(python, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
