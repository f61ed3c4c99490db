"""The rule by which the answer to a sentence follows from its cases. No answer is written by hand."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from patchbench.document.statements import Case
from patchbench.words import count

RESULTS = ("yes", "no", "open", "by how much", "not run")
ANSWERS = {
    "yes": "every case holds",
    "only if": "it holds under some conditions and not under others",
    "by how much": "no case fails, and the result is an amount or is undecided",
    "wrong as written": "it does not hold as it is written; a corrected wording holds",
    "no": "it does not hold",
    "not tested": "a case on which the answer depends has no result",
}
SIGNS = {"yes": "✔", "no": "✘", "open": "?", "by how much": "≈", "not run": "–"}  # of single cases
# The combined result of several cases that must all hold is the first of these that occurs.
FIRST = ("no", "open", "by how much", "not run", "yes")


@dataclass(frozen=True)
class Result:
    """The result of one check, or of one statement or effect of a study.

    says: the statement in words. answer: one of RESULTS; `open` if the runs do not decide, `not run` also if runs are
    missing or a control failed. measured: the measured value with its interval, or the reason why there is none. link:
    path of the source, relative to the page of answers.
    """

    says: str
    answer: str
    measured: str
    link: str

    def __post_init__(self) -> None:
        if self.answer not in RESULTS:
            raise ValueError(f"answer={self.answer} is unknown: use {' or '.join(RESULTS)}")


@dataclass(frozen=True)
class Finding:
    """A case with its result. name: name of the source, for the link."""

    case: Case
    result: Result
    name: str


@dataclass(frozen=True)
class Answer:
    """The answer to a sentence.

    word: one of ANSWERS. rest: words that complete the answer: conditions, amounts, a correction, untested cases.
    """

    word: str
    rest: str = ""


def case_result(case: Case, result: Result) -> Result:
    """Convert the result of a study to the result of a case.

    For a case of an amount, yes and no become an amount, and the statement is quoted. For a contrary case, yes and no
    are exchanged.
    """
    if case.amount and result.answer != "not run":
        answer = "open" if result.answer == "open" else "by how much"
        return replace(result, says=f"Measured for: “{result.says.rstrip('.')}”", answer=answer)
    if result.answer not in ("yes", "no"):
        return result
    measured = f"study: {result.answer}{'; the sentence needs a no' if case.contrary else ''}; {result.measured}"
    holds = (result.answer == "no") == case.contrary
    return replace(result, answer="yes" if holds else "no", measured=measured)


def combine(results: Iterable[str]) -> str:
    """Combine the results of cases that must all hold; without cases: yes."""
    occurring = set(results)
    return next((result for result in FIRST if result in occurring), "yes")


def answer(findings: Sequence[Finding]) -> Answer:
    """Return the answer to a sentence from its cases.

    1. A condition holds if all its cases hold. All cases without a condition must hold.
    2. If a case without a condition fails, or all conditions fail, the answer is no; but if the correction holds, it is
       wrong as written.
    3. If some conditions hold and others fail, the answer is only if, with the conditions that hold.
    4. Else nothing has failed. With an amount or an undecided case, the answer is by how much; else, with a case that
       has no result, not tested; else yes.
    """
    literal = [finding for finding in findings if not finding.case.instead]
    conditions = dict.fromkeys(finding.case.condition for finding in literal)
    results = {
        condition: combine(f.result.answer for f in literal if f.case.condition == condition)
        for condition in conditions
    }
    unconditional = results.pop("", "yes")
    decided = set(results.values())
    if unconditional == "no" or (results and decided == {"no"}):
        return correct([finding for finding in findings if finding.case.instead])
    if unconditional == "yes" and {"yes", "no"} <= decided:
        holds = "; or ".join(condition for condition, result in results.items() if result == "yes")
        return Answer("only if", holds + count_pending(literal, ("open", "by how much", "not run")))
    combined = combine([unconditional, *(result for result in results.values() if result != "no")])
    if combined == "yes":
        return Answer("yes")
    if combined == "not run":
        holding = sum(finding.result.answer == "yes" for finding in literal)
        return Answer("not tested", f"{holding} of {count(len(literal), 'case')} hold" if holding else "")
    return Answer("by how much", ("; ".join(amounts(literal)) + count_pending(literal, ("not run",))).strip())


def correct(corrections: Sequence[Finding]) -> Answer:
    """Return the answer to a sentence that does not hold. corrections: findings about its corrected wording."""
    if corrections and combine(finding.result.answer for finding in corrections) == "yes":
        return Answer("wrong as written", f"“{corrections[0].case.instead}”")
    return Answer("no")


def amounts(findings: Sequence[Finding]) -> list[str]:
    """List the measured amounts in words; undecided ones are marked."""
    return [
        f"{finding.result.measured}{', undecided' if finding.result.answer == 'open' else ''}"
        for finding in findings
        if finding.result.answer in ("open", "by how much") and finding.result.measured
    ]


def count_pending(findings: Sequence[Finding], results: Sequence[str]) -> str:
    """Spell the numbers of cases with these results, in brackets; empty if there are none."""
    words = {"open": "undecided", "by how much": "undecided", "not run": "not tested"}
    counts = Counter(words[f.result.answer] for f in findings if f.result.answer in results)
    shown = [f"{count(counts[word], 'case')} {word}" for word in ("undecided", "not tested") if counts[word]]
    return f" ({', '.join(shown)})" if shown else ""
