"""Imports point downwards; Hydra and Lightning stay where they belong; docstrings are sentences."""

import ast
import re
from pathlib import Path

import patchbench

SRC = Path(patchbench.__file__).parent
FLOORS = (  # from the top; a file or folder may import what stands on a lower floor, and nothing beside it
    ("sweep",),
    ("commands",),
    ("pages", "evaluate"),
    ("document",),
    ("config", "train"),
    ("track", "weights", "study"),
    ("embed", "pos", "nets", "data", "measure", "statistics"),
    ("layout", "runs"),
    ("checks", "html", "machine", "words"),
    ("redact",),
)
HYDRA = ("sweep", "commands", "config")
WITHOUT_LIGHTNING = (
    "embed",
    "pos",
    "nets",
    "measure",
    "weights",
    "study",
    "statistics",
    "layout",
    "checks",
    "html",
    "machine",
    "redact",
    "words",
)


def part(path: Path) -> str:
    """Return the file or folder of src/patchbench that contains a module."""
    return path.relative_to(SRC).parts[0].removesuffix(".py")


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            module = node.module or ""
            found |= {f"{module}.{alias.name}" for alias in node.names} if module == "patchbench" else {module}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found


MODULES = [path for path in SRC.rglob("*.py") if path.parent != SRC or path.stem != "__init__"]


def test_imports_point_downwards():
    floor = {name: number for number, names in enumerate(FLOORS) for name in names}
    for path in MODULES:
        for module in imports(path):
            if module.startswith("patchbench."):
                other = module.split(".")[1]
                assert other == part(path) or floor[other] > floor[part(path)], f"{path}: {module}"


def test_hydra_lives_on_the_upper_floors_and_lightning_above_the_network():
    for path in MODULES:
        roots = {module.split(".")[0] for module in imports(path)}
        if part(path) not in HYDRA:
            assert not roots & {"hydra", "omegaconf"}, path
        if part(path) in WITHOUT_LIGHTNING:
            assert "pytorch_lightning" not in roots, path


def test_shape_checks_are_not_blinded():
    for path in MODULES:
        assert "from __future__ import annotations" not in path.read_text(), path


FRAGMENT = re.compile(
    r"(Of|By|In|On|At|To|From|For|With|Without|Beside|Before|After|Where|What|Whether|Which|That|Until|Into|As|Who|How)\b"
)


def test_docstrings_are_sentences_that_begin_with_a_verb_or_a_noun():
    """A scene of data/diagnostics may begin with the question that its label answers."""
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and (text := ast.get_docstring(node)):
                assert not FRAGMENT.match(text) or "?" in text, f"{path}: {text.splitlines()[0]}"


def test_names_are_nouns_and_verbs():
    """Words that point at something and do not name it; `kept` alone is a knob, of data=faded_photos."""
    pointing = {"asking", "few", "found", "had", "held", "here", "homeless", "odd", "said", "there", "told", "whose"}
    names = set()
    for path in [*MODULES, *(SRC.parents[1] / "scripts").glob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                names.add((path.name, node.id))
            elif isinstance(node, ast.arg):
                names.add((path.name, node.arg))
            elif isinstance(node, ast.FunctionDef | ast.ClassDef):
                names.add((path.name, node.name))
    assert len(names) > 1000
    assert [(file, name) for file, name in sorted(names) if name in pointing] == []
