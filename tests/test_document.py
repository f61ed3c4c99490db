"""Answers to a document, sentence by sentence: the rule, the checks, the page, and errors."""

import re
import sys
from collections.abc import Mapping
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from support import ROOT, every, options

from patchbench.commands.document import STATEMENTS, build, document, read
from patchbench.document import checking
from patchbench.document.answers import ANSWERS, RESULTS, Finding, Result, answer, case_result
from patchbench.document.statements import KINDS, Case, check_quotes, parse

OURS = read(STATEMENTS)
CHECKED = {f"{c.check} {c.arguments} {c.gives}": c for s in OURS.sentences for c in s.cases if c.check}
SLOWEST = ("network.like_timm",)  # seconds each: a ViT-B/16


def finding(result: str, *, condition: str = "", instead: str = "", measured: str = "1 pt") -> Finding:
    return Finding(Case("", condition=condition, instead=instead), Result("", result, measured, ""), "")


# The rule.


@pytest.mark.parametrize(
    ("cases", "expected"),
    [
        ("yes", "yes"),
        ("yes yes", "yes"),
        ("yes no", "no"),
        ("no", "no"),
        ("no a:yes", "no"),
        ("a:yes b:yes", "yes"),
        ("a:yes b:no", "only if a"),
        ("yes a:yes b:no", "only if a"),
        ("a:yes b:no c:yes", "only if a; or c"),
        ("a:yes a:no b:yes", "only if b"),
        ("a:yes b:no c:not_run", "only if a (1 case not tested)"),
        ("a:yes b:no c:open d:not_run", "only if a (1 case undecided, 1 case not tested)"),
        ("a:no b:no", "no"),
        ("yes a:no", "no"),
        ("a:no b:not_run", "not tested"),
        ("a:no b:open", "by how much 1 pt, undecided"),
        ("not_run", "not tested"),
        ("yes not_run", "not tested 1 of 2 cases hold"),
        ("not_run a:yes b:no", "not tested 1 of 3 cases hold"),
        ("no not_run", "no"),
        ("open", "by how much 1 pt, undecided"),
        ("yes open", "by how much 1 pt, undecided"),
        ("amount", "by how much 1 pt"),
        ("amount amount", "by how much 1 pt; 1 pt"),
        ("amount not_run", "by how much 1 pt (1 case not tested)"),
        ("no amount", "no"),
        ("no !yes", "wrong as written “b”"),
        ("no !yes !yes", "wrong as written “b”"),
        ("a:no b:no !yes", "wrong as written “b”"),
        ("no !no", "no"),
        ("no !yes !no", "no"),
        ("no !not_run", "no"),
        ("yes !yes", "yes"),
        ("yes !no", "yes"),
        ("not_run !yes", "not tested"),
        ("open !yes", "by how much 1 pt, undecided"),
        ("a:yes b:no !yes", "only if a"),
    ],
)
def test_an_answer_follows_from_the_cases(cases, expected):
    spelled = {"not_run": "not run", "amount": "by how much"}
    findings = []
    for case in cases.split():
        instead, condition, result = case.startswith("!"), case.rpartition(":")[0], case.rpartition(":")[2].lstrip("!")
        findings.append(finding(spelled.get(result, result), condition=condition, instead="b" if instead else ""))
    for order in (findings, findings[::-1]):
        given = answer(order)
        assert given.word in ANSWERS
        if ";" not in expected or order is findings:
            assert f"{given.word} {given.rest}".strip() == expected


def test_no_answer_says_more_than_its_cases():
    """All results of three cases are tried, with and without conditions."""
    for first, second, third in product(RESULTS, repeat=3):
        word = answer([finding(first), finding(second), finding(third)]).word
        assert (word == "yes") == ({first, second, third} == {"yes"})
        assert (word == "no") == ("no" in (first, second, third))
        word = answer([finding(first, condition="a"), finding(second, condition="b"), finding(third)]).word
        if word == "yes":
            assert {first, second, third} == {"yes"}
        if word == "only if":
            assert (third, {first, second}) == ("yes", {"yes", "no"})
        if word == "no":
            assert third == "no" or {first, second} == {"no"}


def test_a_study_that_must_answer_no_holds_when_it_does():
    result = Result("It cannot.", "no", "0 of 10", "")
    assert case_result(Case("", reference="a.b"), result).answer == "no"
    assert case_result(Case("", reference="a.b", contrary=True), result).answer == "yes"
    assert case_result(Case("", reference="a.b", contrary=True), replace(result, answer="yes")).answer == "no"
    for undecided in ("open", "not run", "by how much"):
        contrary = Case("", reference="a.b", contrary=True)
        assert case_result(contrary, replace(result, answer=undecided)).answer == undecided
    for decided in ("yes", "no"):
        amount = Case("", reference="a.b", amount=True)
        assert case_result(amount, replace(result, answer=decided)).answer == "by how much"


# Checks.


@pytest.fixture(scope="module")
def tools(tmp_path_factory) -> checking.Tools:
    return checking.Tools(build, tmp_path_factory.mktemp("page"))


def others(figure: Any) -> list[Any]:
    """Return values and bounds that a figure does not meet."""
    if isinstance(figure, bool):
        return [not figure]
    if isinstance(figure, int | float):
        return [figure + 1, {"at_most": figure - 1}, {"at_least": figure + 1}]
    return [[*figure, "another"]]


@pytest.mark.parametrize(
    "name", every(CHECKED, 4), ids=[f"{case.check}-{i}" for i, case in enumerate(CHECKED.values())]
)
def test_every_check_of_the_document_runs_and_a_wrong_figure_turns_it_over(name, tools):
    case = CHECKED[name]
    if case.check in SLOWEST:
        options_ = ["model=tiny", "patch=16", "data.img_size=224", "model.num_prefix_tokens=1", "model.pool=cls"]
        case = replace(case, arguments={"name": "vit_tiny_patch16_224", "options": options_})
        case = replace(case, gives={k: 192 if k == "width" else v for k, v in case.gives.items()})
    result = checking.run(case, tools)
    assert (tools.page / result.link).resolve().is_relative_to(ROOT / "src" / "patchbench" / "document")
    assert "{" not in result.says
    figures = tools.cache[f"{case.check}({dict(case.arguments)})"]
    for figure in case.gives:
        assert checking.run(replace(case, gives={figure: figures[figure]}), tools).answer == "yes"
        for wrong in others(figures[figure]):
            assert checking.run(replace(case, gives={figure: wrong}), tools).answer == "no"
    right = all(checking.holds(figures[figure], wanted) for figure, wanted in case.gives.items())
    assert result.answer == (("yes" if right else "no") if case.gives else "by how much")


def test_every_check_serves_the_document():
    assert set(checking.vocabulary()) == {case.check for case in CHECKED.values()}


def test_each_scheme_and_each_kind_of_check_is_covered():
    """The lists of schemes in the statements contain all options of pos."""
    listed = {s for c in CHECKED.values() if c.check == "position.added" for s in c.arguments["schemes"]}
    assert listed | {"none"} == set(options("pos"))
    [resized] = [c for c in CHECKED.values() if c.check == "position.resized"]
    assert set(resized.arguments["schemes"]) == set(options("pos"))


def run(tools: checking.Tools, check: str, **arguments: Any) -> Mapping[str, Any]:
    """Return the figures of a check."""
    case = Case("", "", check, arguments, {})
    checking.run(case, tools)
    return tools.cache[f"{check}({arguments})"]


def test_a_check_tells_a_broken_part_from_a_sound_one(tools):
    assert run(tools, "patches.own_patch", options=["model=micro", "embed=overlap_patch"])["outside"] > 0
    assert run(tools, "patches.own_patch", options=["model=micro", "embed=hmlp"])["outside"] == 0
    sees = run(tools, "position.shuffled", options=["model=micro", "patch=8", "pos=sincos"])
    assert sees["logits"] > 1e-6
    assert sees["moved_along"] < 1e-9, "positions are added before the blocks"
    mixing = run(tools, "position.shuffled", options=["model=micro", "patch=8", "pos=none", "embed=overlap_patch"])
    assert mixing["logits"] > 1e-6
    assert run(tools, "network.seen_at_once", options=["model=micro", "data.img_size=64"])["seen"] == 16
    assert run(tools, "convolution.field", options=["model=cnn", "model.field=25"])["side"] == 25
    assert run(tools, "patches.division", img_size=230, patch=16)["unseen_rows"] == 6


def eps_of_a_norm(net: Any) -> None:
    net.blocks[1].norm2.eps = 1e-2


def freeze(net: Any) -> None:
    net.embed.requires_grad_(False)


@pytest.mark.parametrize(
    ("check", "arguments", "gives", "change"),
    [
        ("network.like_text", {"options": ["model=micro"]}, {"largest_difference": {"at_most": 1e-9}}, eps_of_a_norm),
        ("network.learnt", {"options": ["model=micro"], "part": "embed"}, {"frozen": 0}, freeze),
    ],
)
def test_a_check_fails_for_another_network(check, arguments, gives, change, tools):
    def changed(*given: str) -> Any:
        net = build(*given)
        change(net)
        return net

    case = Case("", "", check, arguments, gives)
    assert checking.run(case, checking.Tools(build, tools.page)).answer == "yes"
    assert checking.run(case, checking.Tools(changed, tools.page)).answer == "no"


# The document itself.


def test_every_quote_stands_in_the_document_under_its_heading():
    text = (STATEMENTS.parent / OURS.text).read_text()
    check_quotes(OURS, text)
    parts, heading = {}, ""
    for line in text.splitlines():
        if line.startswith(("#", "Q1.")):
            heading = line.strip("# ")
        parts[heading] = f"{parts.get(heading, '')} {' '.join(line.split())}"
    for sentence in OURS.sentences:
        if sentence.quote:
            assert sentence.quote in " ".join(parts[sentence.section].split()), sentence


def test_every_kind_occurs_and_no_statement_is_asked_twice():
    assert {sentence.kind for sentence in OURS.sentences} == set(KINDS)
    asked = [(sentence.quote or sentence.asks, sentence.kind) for sentence in OURS.sentences]
    assert len(set(asked)) == len(asked)


# A document of one's own.

MINE = """
title: A note
text: note.md
sections:
  Patches:
    - quote: An image of 32 pixels becomes 16 patches of 8.
      kind: fact
      cases:
        - {check: patches.tokens, with: {img_size: 32, patch: 8}, gives: {tokens: 16}, says: "There are {tokens}."}
    - quote: A patch of 8 has 64 values.
      kind: fact
      cases:
        - {check: patches.tokens, with: {img_size: 32, patch: 8}, gives: {values: 64}, says: "There are {values}."}
        - instead: A patch of 8 has 192 values.
          check: patches.tokens
          with: {img_size: 32, patch: 8}
          gives: {values: 192}
          says: There are {values}.
    - quote: Every image has ten bright pixels.
      kind: fact
      cases:
        - {check: mine.bright, with: {limit: 2}, gives: {bright: {at_least: 10}}, says: "There are {bright}."}
  Results:
    - quote: Waves are better than tables.
      kind: empirical
      cases:
        - study: kinds.waves_beat_tables
    - quote: Positions help.
      kind: empirical
      cases:
        - {if: the label is a place, study: kinds.places}
        - {if: the label is a texture, study: kinds.texture}
"""
NOTE = """# A note
An image of 32 pixels becomes 16 patches of 8. A patch of 8 has
64 values. Every image has ten bright pixels. Waves are better than tables. Positions help.
"""
RESULTS_OF_MINE = {
    "kinds.waves_beat_tables": Result("Waves beat tables", "open", "+0.2 pt (-1.1 to +1.5 pt)", "kinds/report.md"),
    "kinds.places": Result("They help", "yes", "+20 pt (18 to 22 pt)", "kinds/report.md"),
    "kinds.texture": Result("They help", "no", "+0.0 pt (-0.1 to 0.1 pt)", "kinds/report.md"),
}


@pytest.fixture
def mine(tmp_path, monkeypatch) -> Path:
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    (tmp_path / "note.md").write_text(NOTE)
    (tmp_path / "mine.py").write_text("def bright(limit):\n    return {'bright': limit + 1}\n")
    (tmp_path / "statements.yaml").write_text(MINE)
    return tmp_path / "statements.yaml"


def answers_on(page: Path) -> list[str]:
    lines = page.read_text().split("## How an answer")[0].splitlines()
    return [line for line in lines if line.startswith(tuple(f"**{word}**" for word in ANSWERS))]


def test_a_document_of_ones_own_is_answered_and_what_is_false_in_it_comes_out(mine):
    page = document(mine, results=RESULTS_OF_MINE)
    assert page == mine.with_suffix(".html")
    written = mine.with_suffix(".md").read_text()
    assert answers_on(mine.with_suffix(".md")) == [
        "**yes**",
        "**wrong as written** “A patch of 8 has 192 values.”",
        "**no**",
        "**by how much** +0.2 pt (-1.1 to +1.5 pt), undecided",
        "**only if** the label is a place",
    ]
    assert "- ✘ There are 3. (holds if bright ≥ 10) [`mine.bright`](mine.py)" in written
    assert "[`kinds.places`](kinds/report.md)" in written
    for word in ("yes", "no", "by how much", "only if", "wrong as written"):
        assert f"| **{word}** 1 |" in written
    assert "not tested**" not in written.split("## How an answer")[0]
    assert "$" not in page.read_text()


def test_a_page_is_the_same_whenever_it_is_made(mine):
    document(mine, results=RESULTS_OF_MINE)
    first = [mine.with_suffix(suffix).read_text() for suffix in (".md", ".html")]
    document(mine, results=RESULTS_OF_MINE)
    assert [mine.with_suffix(suffix).read_text() for suffix in (".md", ".html")] == first


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("patches.tokens", "patches.token", "check=patches.token is unknown: did you mean patches.tokens?"),
        ("mine.bright", "mine.dark", "check=mine.dark: mine has no function dark"),
        ("mine.bright", "nowhere.dark", "check=nowhere.dark is unknown: .* or <file>.<function>"),
        ("limit: 2", "limits: 2", "missing a required argument: 'limit'; arguments are limit"),
        (
            "img_size: 32, patch: 8}, gives: {tokens",
            "size: 32}, gives: {tokens",
            "argument 'size'; arguments are img_size",
        ),
        ("bright: {at_least", "brigt: {at_least", "gives.brigt: mine.bright returns bright"),
        ("bright: {at_least", "bright: {least", "gives.bright={'least': 10} must be a value, or numbers at_least"),
        ("{at_least: 10}", "{at_least: ten}", "gives.bright={'at_least': 'ten'} must be a value, or numbers"),
        (
            "gives: {tokens: 16}",
            "gives: {tokens: '16'}",
            "gives.tokens='16' is text, and patches.tokens returns a number, 16",
        ),
        ("There are {bright}", "There are {bright.x}", "cannot be filled in; mine.bright returns bright"),
        ("There are {bright}", "There are {bright[0]}", "cannot be filled in; mine.bright returns bright"),
        ("quote: Positions help.", "quote: ''", "sentence 5: quote or asks is empty: give the words"),
        ("title: A note", "title: A note\npage: ../note", "page=../note must be a name alone"),
        ("There are {bright}", "There are {brigt}", "'brigt' cannot be filled in; mine.bright returns bright"),
        (
            "img_size: 32, patch: 8}, gives: {tokens",
            "img_size: 30, patch: 8}, gives: {tokens",
            "patch=8 does not cover",
        ),
        ("kind: empirical", "kind: true", "kind is missing: give text"),
        ("kind: empirical", "kind: opinion", "kind=opinion is unknown: use fact or property or"),
        (
            "study: kinds.places",
            "study: kinds.place",
            "kinds.place is no statement of a study: did you mean kinds.places",
        ),
        ("study: kinds.places", "study: kinds", "study=kinds must be a study and a name in it"),
        ("study: kinds.places", "gives: maybe, study: kinds.places", "gives=maybe: a study gives yes or no"),
        ("study: kinds.places", "studie: kinds.places", "studie is unknown: did you mean study?"),
        ("quote: Positions help.", "quote: Positions hurt.", "the text does not contain “Positions hurt.”"),
        ("quote: Positions help.", "quoted: Positions help.", "quoted is unknown: did you mean quote?"),
        ("title: A note", "titel: A note", "titel is unknown: did you mean title?"),
        ("text: note.md", "text: gone.md", "gone.md"),
        ("title: A note", "title: [", "statements.yaml"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line_and_nothing_is_written(mine, old, new, message):
    assert old in MINE
    mine.write_text(MINE.replace(old, new))
    with pytest.raises((ValueError, OSError), match=message) as refused:
        document(mine, results=RESULTS_OF_MINE)
    assert "\n" not in str(refused.value)
    assert not mine.with_suffix(".md").exists()


@pytest.mark.parametrize("content", [b"42", b"a word", b"title: \xff", b"- a"])
def test_a_file_that_holds_no_statements_is_named(mine, content):
    mine.write_bytes(content)
    with pytest.raises(ValueError, match=re.escape(str(mine))):
        document(mine, results=RESULTS_OF_MINE)


def test_a_check_that_returns_no_figures_and_a_text_that_is_none_are_named(mine):
    (mine.parent / "mine.py").write_text("def bright(limit):\n    pass\n")
    with pytest.raises(ValueError, match=r"check=mine\.bright returned None: a check returns figures by name"):
        document(mine, results=RESULTS_OF_MINE)
    (mine.parent / "note.md").write_bytes(b"\xff")
    with pytest.raises(ValueError, match=r"note\.md is no text in UTF-8"):
        document(mine, results=RESULTS_OF_MINE)


def test_a_study_that_the_folder_does_not_have_is_named(mine, tmp_path):
    with pytest.raises(ValueError, match=r"^kinds\.waves_beat_tables: .* has no study kinds: studies are none$"):
        document(mine, experiments=tmp_path)


def test_a_failed_check_of_the_structure_is_named_before_anything_is_computed():
    entry = {"quote": "a", "kind": "fact", "cases": [{"check": "patches.tokens", "says": "b", "instead": "c"}]}
    with pytest.raises(ValueError, match="cases has none about the words of the document"):
        parse({"title": "A", "sections": {"B": [entry]}})
    with pytest.raises(ValueError, match="give one of check"):
        parse({"title": "A", "sections": {"B": [entry | {"cases": [{"says": "b"}]}]}})
    with pytest.raises(ValueError, match="sections is missing"):
        parse({"title": "A"})
    with pytest.raises(ValueError, match="answer=maybe is unknown"):
        Result("", "maybe", "", "")


def test_the_example_in_the_docs_runs(tmp_path):
    example = (ROOT / "docs" / "extending.md").read_text().partition("## A document of your own")[2]
    (tmp_path / "note.yaml").write_text(example.partition("```yaml\n")[2].partition("```")[0])
    (tmp_path / "note.txt").write_text(
        "An image of 64 pixels becomes 16 patches of 16. The network sees the order of patches."
    )
    (tmp_path / "mine.py").write_text(
        "from patchbench.document.position import shuffled\n\n"
        "def sees_order(build, options):\n    return {'change': shuffled(build, options)['logits']}\n"
    )
    sys.modules.pop("mine", None)
    guesses = Result("It guesses", "yes", "25 % (25 to 26 %)", "")
    document(tmp_path / "note.yaml", results={"position.none_guesses_quadrant": guesses})
    assert answers_on(tmp_path / "note.md") == ["**yes**", "**only if** it has positions"]


@pytest.mark.slow
def test_the_page_of_the_document_is_that_of_the_statements(monkeypatch):
    """The committed page equals the generated page, so nobody has edited it by hand."""
    written: dict[str, str] = {}
    monkeypatch.setattr(
        "patchbench.commands.document.write_whole", lambda path, text: written.update({path.name: text})
    )
    document()
    assert set(written) == {"README.md", "README.html"}
    assert (ROOT / "experiments" / "README.md").read_text() == written["README.md"]
