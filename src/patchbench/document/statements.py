"""A document as data: its sentences, and for each the cases from which its answer follows.

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
            - amount: overlap.layers                      or an effect of which only the amount is wanted
            - needs: a count of published models          or what would decide it, where there is neither

A case may carry `if`, the condition in words under which it stands, or `instead`, the wording that would be right.
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
    """One reason for an answer: a check, a result of a study, or nothing that decides.

    check: name of a function; arguments: of it. gives: the figures that it must return, by name; empty for an amount.
    says: a sentence with {names} of figures. reference: of a statement or an effect of a study, as study.name. amount:
    only its amount counts. contrary: the case holds if the study answers no. needs: what it would take to decide, where
    nothing does. condition: words under which the case stands; empty: always. instead: the wording that the case is
    about, in place of that of the document; empty: the document's own.
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
    """A sentence of the document, or a question that it leaves open. at: its place below the heading.

    asks: the question, where the document has no such sentence; then `quote` is empty. reading: the sense in which the
    sentence is taken, where it has several.
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
    """Sentences in the order of the document.

    text: its file, against which quotes are checked; empty: none. page: name of the page without ending; empty: that of
    the statements.
    """

    title: str
    about: str
    text: str
    page: str
    sentences: tuple[Sentence, ...]

    @property
    def references(self) -> list[str]:
        """Names of all results of studies that the answers need, in order."""
        cases = (case for sentence in self.sentences for case in sentence.cases)
        return list(dict.fromkeys(case.reference for case in cases if case.reference))


def parse(tree: Mapping[str, Any]) -> Document:
    """Read the content of a file of statements. ValueError names the place and the cure."""
    known(tree, "document", "title about text page sections")
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
    if len(Path(flat(tree.get("page"))).parts) > 1:
        raise ValueError(f"document: page={tree['page']} must be a name alone: the page lies beside the statements")
    return Document(
        title=title,
        about=flat(tree.get("about")),
        text=flat(tree.get("text")),
        page=flat(tree.get("page")),
        sentences=tuple(sentences),
    )


def parse_sentence(entry: Any, section: str, number: int) -> Sentence:
    where = f"sentence {number}"
    known(entry, where, "quote asks at kind reading cases")
    if ("quote" in entry) == ("asks" in entry):
        raise ValueError(f"{where}: give either quote: <the words of the document>, or asks: <a question of your own>")
    quote, asks = flat(entry.get("quote")), flat(entry.get("asks"))
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
    return Sentence(number, section, quote, asks, flat(entry.get("at")), kind, flat(entry.get("reading")), parsed)


def parse_case(entry: Any, where: str) -> Case:
    known(entry, where, "check with gives says study amount needs if instead")
    sources = [name for name in ("check", "study", "amount", "needs") if name in entry]
    if len(sources) != 1:
        raise ValueError(
            f"{where}: give one of check: <function>, study: <study.statement>, amount: <study.effect>, needs: <words>"
        )
    [source] = sources
    name = required(entry, where, source, str)
    condition, instead = flat(entry.get("if")), flat(entry.get("instead"))
    if condition and instead:
        raise ValueError(f"{where}: give if or instead, not both: a correction stands for itself")
    if source != "check":
        if given := {"with", "says"} & set(entry):
            raise ValueError(f"{where}: {min(given)} goes with check: a study has its own words and figures")
        if source == "needs":
            return Case(where, needs=flat(name), condition=condition, instead=instead)
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
    says = flat(required(entry, where, "says", str))
    return Case(where, says, name, dict(arguments), dict(gives), condition=condition, instead=instead)


def check_quotes(document: Document, text: str) -> None:
    """ValueError names the first sentence whose quote does not occur in the text. Line breaks count as spaces."""
    whole = flat(text)
    for sentence in document.sentences:
        if sentence.quote not in whole:
            raise ValueError(
                f"sentence {sentence.number}: the text does not contain “{sentence.quote}”: quote it word by word"
            )


def flat(text: Any) -> str:
    """Text without line breaks; empty for None."""
    return " ".join(str(text or "").split())


def known(entry: Any, where: str, keys: str) -> None:
    """ValueError unless an entry is a mapping whose keys are among these."""
    if not isinstance(entry, Mapping):
        raise ValueError(f"{where}: {entry} must be a mapping of {keys.replace(' ', ', ')}")
    for key in entry:
        if key not in keys.split():
            close = nearest(str(key), keys.split())
            hint = f"did you mean {close[0]}? " if close else ""
            raise ValueError(f"{where}: {key} is unknown: {hint}keys are {keys.replace(' ', ', ')}")


def required(entry: Mapping[str, Any], where: str, key: str, kind: type) -> Any:
    """ValueError unless a value is there and of this kind."""
    value = entry.get(key)
    if not value or not isinstance(value, kind):
        raise ValueError(f"{where}: {key} is missing: give {FORMS[kind]}")
    return value


def headings(sentences: Sequence[Sentence]) -> list[str]:
    """List the headings in order."""
    return list(dict.fromkeys(sentence.section for sentence in sentences))
