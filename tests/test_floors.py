"""Imports point downwards, and parts of one floor do not know each other."""

import ast
from pathlib import Path

import patchbench

SRC = Path(patchbench.__file__).parent
# The only ones that know Hydra.
TOP = (
    "analysis",
    "caching",
    "evaluation",
    "exporting",
    "build",
    "command",
    "errors",
    "lesson",
    "plan",
    "report",
    "run",
    "runs",
    "schema",
    "search",
    "sweep",
    "tuning",
    "dashboards",
)
BELOW_TOP = {
    "layout",
    "lock",
    "machine",
    "cost",
    "budget",
    "ask",
    "interop",
    "shard",
    "task",
    "checkpoint",
    "duration",
} | {
    "trainer",
    "study",
    "data",
    "track",
    "analyze",
    "explain",
    "html",
    "online",
}
NETWORKS = ("vit", "cnn", "bag", "timm_net")
BELOW_LIGHTNING = ("layout", "grid", "embed", "pos", "init", *NETWORKS, "cost", "interop", "schedule")
MAY_IMPORT = {
    "layout": set(),
    "schedule": set(),
    "lock": set(),
    "machine": set(),
    "pad": {"layout"},
    "grid": {"layout"},
    "embed": {"layout", "pad"},
    "pos": {"layout", "grid"},
    "init": set(),
    "vit": {"layout", "init"},
    "cnn": {"layout"},
    "bag": {"layout", "init"},
    "timm_net": {"layout"},
    "cost": {"layout"},
    "interop": {"layout", "embed", "pos", "vit"},
    "budget": {"cost", "layout", "track"},
    "shard": set(),
    "task": {"shard"},
    "checkpoint": set(),
    "duration": {"data", "task"},
    "trainer": {"checkpoint", "shard"},
    "ask": {"data", "layout", "task"},
    "data": {"layout", "machine", "task", "data"},
    "track": {"cost", "layout", "task", "track"},
    "html": set(),
    "analyze": {"analyze", "explain", "html", "layout"},
    "explain": {"layout", "cost", "explain", "html"},
    "study": {"html", "study"},
    "online": {"online", "track"},
    "board": {"board", "html", "study"},
    **{name: {*BELOW_TOP, *TOP} for name in TOP},
    "sweep": {*BELOW_TOP, *TOP, "embed", "pos"},  # it loads every part, for all cells
}


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            module = node.module or ""
            found |= {f"{module}.{alias.name}" for alias in node.names} if module == "patchbench" else {module}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found


def test_imports_point_downwards():
    for path in SRC.rglob("*.py"):
        part = path.relative_to(SRC).parts[0].removesuffix(".py")
        if part == "__init__":
            continue
        for module in imports(path):
            if module.startswith("patchbench."):
                assert module.split(".")[1] in MAY_IMPORT[part], f"{path}: {module}"


def test_hydra_lives_on_the_top_floor_and_lightning_above_the_network():
    for path in SRC.rglob("*.py"):
        part = path.relative_to(SRC).parts[0].removesuffix(".py")
        roots = {module.split(".")[0] for module in imports(path)}
        if part not in TOP:
            assert not roots & {"hydra", "omegaconf"}, path
        if part in BELOW_LIGHTNING:
            assert "pytorch_lightning" not in roots, path


def test_shape_checks_are_not_blinded():
    for path in SRC.rglob("*.py"):
        assert "from __future__ import annotations" not in path.read_text(), path
