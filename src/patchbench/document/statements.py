"""A document as data: its sentences, and for each sentence the cases from which its answer follows.

    title: A note on patches
    sections:
      How it works:                                       a heading of the document
        - quote: the image is divided into patches        word by word
          kind: property
          cases:
            - check: patches.own_patch                    a function, see checking.py
              with: {options: [patch=8]}                  its arguments
              gives: {outside: 0}                         figures that it must return for the case to hold
              says: A token depends on {outside} pixels outside of its patch.
            - study: position.none_guesses_quadrant       or a statement of a study
            - amount: overlap.layers                      or the amount of an effect of a study
            - needs: a count of published models          or the evidence that would decide it, if there is none

A case may have `if`, a condition in words under which the case counts, or `instead`, a corrected wording of the quote.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from patchbench.checks import nearest

KINDS = {
    "fact": "arithmetic, or the behaviour of a library",
    "property": "an exact test of a network",
    "empirical": "networks trained with several seeds",
    "trade-off": "an amount, not a yes or no",
    "wording": "a manner of speaking, which is corrected rather than tested",
}
BOUNDS = ("at_least", "at_most")
FORMS: dict[type, str] = {str: "text", list: "a list", dict: "a mapping"}
LITERAL = (bool, int, float, str, list)


@dataclass(frozen=True)
class Case:
    """One reason for an answer: a check, a result of a study, or missing evidence.

    where: place in the file, for error messages. check: name of a function. arguments: arguments of the function.
    gives: the figures that the function must return, by name; empty if its result is an amount. says: a sentence with
    {names} of figures. reference: a statement or an effect of a study, as study.name. amount: only the amount of the
    result counts. contrary: the case holds if the study answers no. needs: the evidence that would decide, if there is
    none. condition: condition in words; empty: none. instead: a corrected wording, to which the case refers; empty: the
    case refers to the wording of the document.
    """

    where: str
    says: str = ""
    check: str = ""
    arguments: Mapping[str, Any] | None = None
    gives: Mapping[str, Any] | None = None
    reference: str = ""
    amount: bool = False
    contrary: bool = False
    needs: str = ""
    condition: str = ""
    instead: str = ""


@dataclass(frozen=True)
class Sentence:
    """A sentence of the document, or a question about it that the document does not answer.

    quote: the sentence, word by word. asks: the question; then `quote` is empty. at: position below the heading.
    kind: one of KINDS. reading: the meaning that is tested, if the sentence has several.
    """

    number: int
    section: str
    quote: str
    asks: str
    at: str
    kind: str
    reading: str
    cases: tuple[Case, ...]


@dataclass(frozen=True)
class Document:
    """A document with its sentences in order.

    about: an introduction to the page. text: file of the document, for the check of the quotes; empty: no check. page:
    name of the page without suffix; empty: the name of the file of statements.
    """

    title: str
    about: str
    text: str
    page: str
    sentences: tuple[Sentence, ...]

    @property
    def references(self) -> list[str]:
        """List the statements and effects of studies that the answers need, in order."""
        cases = (case for sentence in self.sentences for case in sentence.cases)
        return list(dict.fromkeys(case.reference for case in cases if case.reference))


def parse(tree: Mapping[str, Any]) -> Document:
    """Parse the content of a file of statements. ValueError names the place and the cure."""
    check_keys(tree, "document", "title about text page sections")
    sections = required(tree, "document", "sections", dict)
    sentences: list[Sentence] = []
    for heading, entries in sections.items():
        if not isinstance(entries, list):
            raise ValueError(f"section {heading}: give a list of sentences, each beginning with - quote:")
        for entry in entries:
            sentences.append(parse_sentence(entry, str(heading), len(sentences) + 1))
    if not sentences:
        raise ValueError("document: sections has no sentence: give at least one")
    title = required(tree, "document", "title", str)
    if len(Path(one_line(tree.get("page"))).parts) > 1:
        raise ValueError(f"document: page={tree['page']} must be a name alone: the page lies beside the statements")
    return Document(
        title=title,
        about=one_line(tree.get("about")),
        text=one_line(tree.get("text")),
        page=one_line(tree.get("page")),
        sentences=tuple(sentences),
    )


def parse_sentence(entry: Any, section: str, number: int) -> Sentence:
    """Parse a sentence with its cases. section: its heading. number: counted from 1 over the document."""
    where = f"sentence {number}"
    check_keys(entry, where, "quote asks at kind reading cases")
    if ("quote" in entry) == ("asks" in entry):
        raise ValueError(f"{where}: give either quote: <the words of the document>, or asks: <a question of your own>")
    quote, asks = one_line(entry.get("quote")), one_line(entry.get("asks"))
    if not quote and not asks:
        raise ValueError(f"{where}: quote or asks is empty: give the words of the document, or a question of your own")
    where = f"{where} (“{quote or asks}”)" if len(quote or asks) < 60 else f"{where} (“{(quote or asks)[:56]} ...”)"
    kind = required(entry, where, "kind", str)
    if kind not in KINDS:
        raise ValueError(f"{where}: kind={kind} is unknown: use {' or '.join(KINDS)}")
    cases = required(entry, where, "cases", list)
    parsed = tuple(parse_case(case, f"{where}: cases[{i}]") for i, case in enumerate(cases))
    if all(case.instead for case in parsed):
        raise ValueError(f"{where}: cases has none about the words of the document: give one without instead")
    if len({case.instead for case in parsed if case.instead}) > 1:
        raise ValueError(f"{where}: cases has several corrections: give one instead")
    at, reading = one_line(entry.get("at")), one_line(entry.get("reading"))
    return Sentence(number, section, quote, asks, at, kind, reading, parsed)


def parse_case(entry: Any, where: str) -> Case:
    """Parse a case. where: its place in the file, for error messages."""
    check_keys(entry, where, "check with gives says study amount needs if instead")
    sources = [name for name in ("check", "study", "amount", "needs") if name in entry]
    if len(sources) != 1:
        raise ValueError(
            f"{where}: give one of check: <function>, study: <study.statement>, amount: <study.effect>, needs: <words>"
        )
    [source] = sources
    name = required(entry, where, source, str)
    condition, instead = one_line(entry.get("if")), one_line(entry.get("instead"))
    if condition and instead:
        raise ValueError(f"{where}: give if or instead, not both: a correction stands for itself")
    if source != "check":
        if given := {"with", "says"} & set(entry):
            raise ValueError(f"{where}: {min(given)} goes with check: a study has its own words and figures")
        if source == "needs":
            return Case(where, needs=one_line(name), condition=condition, instead=instead)
        gives = {True: "yes", False: "no"}.get(entry.get("gives", True), entry.get("gives"))  # as YAML reads yes and no
        if gives not in ("yes", "no") or (source == "amount" and "gives" in entry):
            raise ValueError(f"{where}: gives={gives}: a study gives yes or no, and an amount neither")
        if name.count(".") != 1:
            raise ValueError(f"{where}: {source}={name} must be a study and a name in it, as in position.none_guesses")
        return Case(
            where,
            reference=name,
            amount=source == "amount",
            contrary=gives == "no",
            condition=condition,
            instead=instead,
        )
    arguments, gives = entry.get("with", {}), entry.get("gives", {})
    for key, value in {"with": arguments, "gives": gives}.items():
        if not isinstance(value, Mapping):
            raise ValueError(f"{where}: {key}={value} must be a mapping of names to values")
    for figure, value in gives.items():
        bounded = isinstance(value, Mapping) and value and set(value) <= set(BOUNDS)
        bounded = bounded and all(type(bound) in (int, float) for bound in value.values())
        if not bounded and not isinstance(value, LITERAL):
            raise ValueError(f"{where}: gives.{figure}={value} must be a value, or numbers {' and '.join(BOUNDS)}")
    says = one_line(required(entry, where, "says", str))
    return Case(where, says, name, dict(arguments), dict(gives), condition=condition, instead=instead)


def check_quotes(document: Document, text: str) -> None:
    """Raise ValueError for the first quote that is not in the text. Line breaks count as spaces."""
    whole = one_line(text)
    for sentence in document.sentences:
        if sentence.quote not in whole:
            raise ValueError(
                f"sentence {sentence.number}: the text does not contain “{sentence.quote}”: quote it word by word"
            )


def one_line(text: Any) -> str:
    """Join the lines of a text; empty for None."""
    return " ".join(str(text or "").split())


def check_keys(entry: Any, where: str, keys: str) -> None:
    """Raise ValueError unless an entry is a mapping with no other keys than these. keys: separated by spaces."""
    if not isinstance(entry, Mapping):
        raise ValueError(f"{where}: {entry} must be a mapping of {keys.replace(' ', ', ')}")
    for key in entry:
        if key not in keys.split():
            close = nearest(str(key), keys.split())
            hint = f"did you mean {close[0]}? " if close else ""
            raise ValueError(f"{where}: {key} is unknown: {hint}keys are {keys.replace(' ', ', ')}")


def required(entry: Mapping[str, Any], where: str, key: str, kind: type) -> Any:
    """Return the value of a key. ValueError if it is missing, empty, or of another type."""
    value = entry.get(key)
    if not value or not isinstance(value, kind):
        raise ValueError(f"{where}: {key} is missing: give {FORMS[kind]}")
    return value


def headings(sentences: Sequence[Sentence]) -> list[str]:
    """List the headings in order."""
    return list(dict.fromkeys(sentence.section for sentence in sentences))
