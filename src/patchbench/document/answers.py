"""The rule by which the cases of a sentence make its answer. No answer is written by hand."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from patchbench.document.statements import Case
from patchbench.words import count

RESULTS = ("yes", "no", "open", "by how much", "not run")
ANSWERS = {
    "yes": "every case holds",
    "only if": "it holds under some conditions and not under others",
    "by how much": "nothing fails; there is an amount, or a result that does not decide",
    "wrong as written": "as it stands it does not hold; a corrected wording does",
    "no": "it does not hold",
    "not tested": "a case that it needs has no result",
}
SIGNS = {"yes": "✔", "no": "✘", "open": "?", "by how much": "≈", "not run": "–"}  # of single cases
# Of several cases that must all hold, the first of these that occurs is the result.
FIRST = ("no", "open", "by how much", "not run", "yes")


@dataclass(frozen=True)
class Result:
    """The result of one statement or effect of a study, as its page has it.

    says: the statement in words. answer: one of RESULTS; `open` where the runs do not decide, `not run` also where
    runs are missing or a control failed. measured: the figure with its interval, or the reason why there is none. link:
    of the study's page, relative to the page of answers.
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
    """The result of one case. name: of its source, beside the link."""

    case: Case
    result: Result
    name: str


@dataclass(frozen=True)
class Answer:
    """word: one of ANSWERS. rest: the words that complete it: conditions, amounts, a correction, the untested."""

    word: str
    rest: str = ""


def found(case: Case, result: Result) -> Result:
    """Turn the result of a study into that of a case.

    Where only the amount is wanted, a yes or no is an amount as well, and the statement is quoted, not repeated; where
    the study must answer no, they change.
    """
    if case.amount and result.answer != "not run":
        answer = "open" if result.answer == "open" else "by how much"
        return replace(result, says=f"Measured for: “{result.says.rstrip('.')}”", answer=answer)
    if result.answer not in ("yes", "no"):
        return result
    measured = f"study: {result.answer}{', must be no' if case.contrary else ''}; {result.measured}"
    holds = (result.answer == "no") == case.contrary
    return replace(result, answer="yes" if holds else "no", measured=measured)


def together(results: Iterable[str]) -> str:
    """The result of cases that must all hold; of none at all: yes."""
    occurring = set(results)
    return next((result for result in FIRST if result in occurring), "yes")


def answer(findings: Sequence[Finding]) -> Answer:
    """Answer a sentence.

    Cases without condition must all hold, and so must all cases of one condition. If one without condition fails, the
    answer is no. If some conditions hold and others fail, the sentence holds only if the former are met; if all fail,
    the answer is no. In place of no, a correction that holds makes it wrong as written. Otherwise nothing has failed:
    one amount or undecided case makes the answer an amount, one case without result makes it not tested, and else it is
    yes.
    """
    literal = [finding for finding in findings if not finding.case.instead]
    conditions = dict.fromkeys(finding.case.condition for finding in literal)
    results = {
        condition: together(f.result.answer for f in literal if f.case.condition == condition)
        for condition in conditions
    }
    always = results.pop("", "yes")
    decided = set(results.values())
    if always == "no" or (results and decided == {"no"}):
        return corrected([finding for finding in findings if finding.case.instead])
    if always == "yes" and {"yes", "no"} <= decided:
        holds = "; or ".join(condition for condition, result in results.items() if result == "yes")
        return Answer("only if", holds + pending(literal, ("open", "by how much", "not run")))
    open_to = together([always, *(result for result in results.values() if result != "no")])
    if open_to == "yes":
        return Answer("yes")
    if open_to == "not run":
        holding = sum(finding.result.answer == "yes" for finding in literal)
        return Answer("not tested", f"{holding} of {count(len(literal), 'case')} hold" if holding else "")
    return Answer("by how much", ("; ".join(amounts(literal)) + pending(literal, ("not run",))).strip())


def corrected(corrections: Sequence[Finding]) -> Answer:
    if corrections and together(finding.result.answer for finding in corrections) == "yes":
        return Answer("wrong as written", f"“{corrections[0].case.instead}”")
    return Answer("no")


def amounts(findings: Sequence[Finding]) -> list[str]:
    """The amounts in words; an undecided one says so."""
    return [
        f"{finding.result.measured}{', undecided' if finding.result.answer == 'open' else ''}"
        for finding in findings
        if finding.result.answer in ("open", "by how much") and finding.result.measured
    ]


def pending(findings: Sequence[Finding], results: Sequence[str]) -> str:
    """The number of cases that have one of these results, in brackets."""
    words = {"open": "undecided", "by how much": "undecided", "not run": "not tested"}
    counts = Counter(words[f.result.answer] for f in findings if f.result.answer in results)
    told = [f"{count(counts[word], 'case')} {word}" for word in ("undecided", "not tested") if counts[word]]
    return f" ({', '.join(told)})" if told else ""
