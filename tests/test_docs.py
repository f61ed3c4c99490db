"""README and docs/: links lead somewhere, and the commands are accepted by Hydra, bash and zsh."""

import re
import runpy
import shlex
from pathlib import Path

import pytest
from support import ROOT

from patchbench.config import plan
from patchbench.config.compose import composed
from patchbench.config.names import register

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
LINK = re.compile(r"\]\(([^)\s]+)\)")
GLOB = re.compile(r"[\[\]*?()]")  # outside of quotes zsh takes these for a pattern of file names, and bash for others
SCRIPT = re.compile(r"^python (train|evaluate|scripts/\w+|tests/\w+)\.py")


def blocks(page: Path) -> list[str]:
    """List the lines of the code blocks of a page that are in no other language."""
    found = re.findall(r"^```(\w*)\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    return [line for language, block in found if not language for line in block.splitlines()]


def commands(page: Path) -> list[str]:
    """List the commands in the code blocks, the tables and the sentences of a page."""
    spans = re.findall(r"`([^`]+)`", page.read_text().replace("```", ""))
    return [line for line in [*blocks(page), *(" ".join(span.split()) for span in spans)] if SCRIPT.match(line)]


ALL = [(page.name, line) for page in PAGES for line in commands(page)]
TRAININGS = [
    (page, line) for page, line in ALL if line.startswith("python train.py") and "<" not in line and "..." not in line
]


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub derives from the headings of a page, and explicit ones."""
    text = page.read_text()
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", each.lower()).replace(" ", "-") for each in headings} | set(
        re.findall(r'<a id="([^"]+)"', text)
    )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page):
    for target in LINK.findall(page.read_text()):
        if target.startswith("http"):
            continue
        name, _, anchor = target.partition("#")
        there = (page.parent / name).resolve() if name else page
        assert there.exists(), target
        assert not anchor or anchor in anchors(there), target


def test_every_page_is_linked_from_the_readme():
    linked = set(LINK.findall((ROOT / "README.md").read_text()))
    assert {f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md")} <= linked
    assert len((ROOT / "README.md").read_text().splitlines()) <= 120


def test_the_table_of_results_is_that_of_the_committed_studies():
    assert runpy.run_path(str(ROOT / "scripts" / "readme.py"))["findings"]() in (ROOT / "README.md").read_text()


def test_the_first_answer_of_a_study_is_one_that_is_decided():
    first_answer = runpy.run_path(str(ROOT / "scripts" / "readme.py"))["first_answer"]
    untested = "> **Not tested.** “A is better.” No run of these arms has been made."
    amount = "> **By how much.** “B is better.”\n>\n> Measured: b − a on x, y, +1.2 pt (+0.1 to +2.3 pt). It moves."
    says, level = "It does not hold that: “C is better.”", "3.0 % (1.0 to 5.0 %); guessing gives 2.5 %"
    decided = f"> **No.** {says}\n>\n> Measured: c on x, {level}. If so."
    assert first_answer(untested) == "none yet"
    assert first_answer("\n\n".join([untested, amount])) == "**By how much.** “B is better.” +1.2 pt (+0.1 to +2.3 pt)"
    page = "\n\n".join([untested, amount, decided])
    assert first_answer(page) == f"**No.** {says} {level}"


def test_the_study_of_the_docs_is_complete(tmp_path):
    [text] = re.findall(r"^```yaml\n(question:.*?)^```", (ROOT / "docs" / "studies.md").read_text(), re.M | re.S)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "study.yaml").write_text(text)
    study = plan.read_study("mine", tmp_path)
    planned = plan.cells(study, "cpu", tmp_path)
    assert len(planned) == 40
    assert len(set(plan.identities(study, planned))) == 40


@pytest.mark.parametrize(("page", "line"), ALL)
def test_a_shell_takes_every_word_of_a_command_as_it_stands(page, line):
    words = shlex.split(line, comments=True, posix=False)
    assert [word for word in words if GLOB.search(re.sub(r"'[^']*'|\"[^\"]*\"", "", word))] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_command_has_no_comment(page):
    """zsh, where a command is typed or pasted, passes the words of a comment on as arguments."""
    assert [line for line in blocks(page) if " # " in line] == []


@pytest.mark.parametrize(("page", "line"), TRAININGS)
def test_hydra_accepts_every_training_of_the_docs(page, line):
    register()
    words = shlex.split(line, comments=True)[2:]
    overrides = [word for word in words if not word.startswith("-") and not word.startswith("hydra/")]
    single = [re.sub(r"^([^=\[]+=)([^\[({,]+),.*$", r"\1\2", word) for word in overrides]
    single = [re.sub(r"=(range|tag)\(.*\)$", "=1", word) for word in single if not word.startswith("hydra.")]
    assert composed(single)


def test_every_script_of_the_docs_is_there():
    named = {SCRIPT.match(line)[1] for _, line in ALL}  # type: ignore[index]
    assert len(named) > 8
    assert [name for name in named if not (ROOT / f"{name}.py").is_file()] == []
