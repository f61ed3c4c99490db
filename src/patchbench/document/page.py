"""The page of answers: the sentences of a document under its headings, each with its answer and its cases."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from markdown_it import MarkdownIt

from patchbench import html
from patchbench.document.answers import ANSWERS, SIGNS, Answer, Finding
from patchbench.document.statements import KINDS, Document, Sentence, headings
from patchbench.words import count

STYLE = """
blockquote { margin-top: 1.8rem; margin-bottom: .3rem; padding: .1rem 0 .1rem 1rem; border-left: 4px solid var(--line);
             font-size: 1.06rem; }
ul { padding-left: 1.3rem; margin-top: .3rem; list-style: none; }
li { margin: .3rem 0; text-indent: -1.3rem; overflow-wrap: anywhere; }
li code { font-size: .82em; }
em.source { font-style: normal; color: var(--soft); font-size: .86rem; }
.answer { display: inline-block; padding: .02rem .6rem; border-radius: 1rem; font-weight: 650; color: #fff; }
.yes { background: #007a58; } .no, .wrong { background: #b34a00; } .only { background: #0067a3; }
.by { background: #7a4f9a; } .not { background: #66707a; }
.answer { white-space: nowrap; }
table { max-width: 46rem; } td:first-child { white-space: nowrap; }
"""


@dataclass(frozen=True)
class Answered:
    """A sentence with the results of its cases and its answer."""

    sentence: Sentence
    findings: Sequence[Finding]
    answer: Answer


def markdown(
    document: Document, answered: Sequence[Answered], source: str, again: str, limits: Sequence[str] = ()
) -> str:
    """Return the page as Markdown.

    source: file of the statements. again: command that makes the page. limits: limitations of the studies, in words.
    """
    quoted = [each for each in answered if each.sentence.quote]
    asked = [each for each in answered if not each.sentence.quote]
    counted = count(len(quoted), "statement") + (f" and {count(len(asked), 'question')} beside them" if asked else "")
    lines = [
        f"# {document.title}, sentence by sentence",
        *([document.about] if document.about else []),
        f"{counted}. Every answer follows from the cases below it by [one rule](#how-an-answer-is-found): checks are "
        f"computed when this page is made, and results come from studies. Both are listed in [{source}]({source}).",
        *(f"**Note:** {escaped(limit)}" for limit in limits),
        summary(quoted),
    ]
    for heading in headings(document.sentences):
        lines.append(f"## {heading}")
        lines += [block(each) for each in answered if each.sentence.section == heading]
    return "\n\n".join([*lines, rule(again)]) + "\n"


def summary(answered: Sequence[Answered]) -> str:
    """Return a table with a row for each answer: the number of sentences with this answer, and links to them."""
    words = Counter(each.answer.word for each in answered)
    rows = ["| answer | statements |", "| --- | --- |"]
    for word in ANSWERS:
        if words[word]:
            numbers = [each.sentence.number for each in answered if each.answer.word == word]
            which = ", ".join(f"[{number}](#s{number})" for number in numbers)
            rows.append(f"| **{word}** {words[word]} | {which} |")
    return "\n".join(rows)


def block(each: Answered) -> str:
    """Return the block of one sentence: the quote, the answer, and a line for each case."""
    sentence = each.sentence
    place = f"{sentence.at}, {sentence.kind}" if sentence.at else sentence.kind
    words = f"“{escaped(sentence.quote)}”" if sentence.quote else escaped(sentence.asks)
    answer = f"**{each.answer.word}**" + (f" {escaped(each.answer.rest)}" if each.answer.rest else "")
    reading = f" *Read as: {escaped(sentence.reading.rstrip('.'))}.*" if sentence.reading else ""
    return (
        f'> <a id="s{sentence.number}"></a>**{sentence.number}.** {words} ({escaped(place)})\n\n{answer}{reading}\n\n'
        + "\n\n".join(reasons(each.findings))
    )


def reasons(findings: Sequence[Finding]) -> list[str]:
    """Return a list for each condition, with a line for each case."""
    parts = []
    for (condition, instead), group in groupby(
        findings, lambda finding: (finding.case.condition, finding.case.instead)
    ):
        title = f"If {condition}:" if condition else "As corrected:" if instead else ""
        parts += [escaped(title)] if title else []
        parts.append("\n".join(case_line(finding) for finding in group))
    return parts


def case_line(finding: Finding) -> str:
    """Return the line of a case: its sign, its sentence, its figures, and the link to its source."""
    result = finding.result
    figures = f" ({result.measured})" if result.measured else ""
    source = f"[`{finding.name}`]({result.link})" if result.link else f"`{finding.name}`" if finding.name else ""
    says = result.says if result.says.endswith((".", "?", "!")) else f"{result.says}."
    return f"- {SIGNS[result.answer]} {escaped(says)}{escaped(figures)} {source}".rstrip()


def rule(again: str) -> str:
    """Return the section that explains the rule and the words, for the end of the page. again: command of the page."""
    answers = "\n".join(f"- **{word}**: {meaning}" for word, meaning in ANSWERS.items())
    kinds = "; ".join(f"*{kind}*: {meaning}" for kind, meaning in KINDS.items())
    signs = ", ".join(f"{sign} {result}" for result, sign in SIGNS.items())
    return (
        "## How an answer is found\n\nNo answer is written by hand; it follows from the cases:\n\n"
        f"{answers}\n\n"
        "A case holds if every figure of its check meets the stated condition, or if the answer of its study is yes. "
        "All cases without a condition must hold, and so must all cases under the same condition. An undecided result "
        "of a study counts as an amount with its interval, never as a yes or a no; a result with missing runs or a "
        f"failed control counts as not tested. Signs of cases: {signs}.\n\nKinds of sentences: {kinds}.\n\n"
        f"This page is made by\n\n```\n{again}\n```"
    )


def escaped(text: str) -> str:
    """Escape the characters of a text that have a meaning in Markdown or HTML."""
    return re.sub(r"([*<|\[\]])", r"\\\1", text.replace("&", "&amp;"))


def page(document: Document, text: str) -> str:
    """Convert the Markdown of the page to HTML. text: Markdown."""
    body = MarkdownIt("commonmark").enable("table").render(text)
    body = re.sub(r"\$(.+?)\$", lambda match: formula(match[1]), body)
    words = "|".join(ANSWERS)
    body = re.sub(
        rf"<strong>({words})</strong>",
        lambda match: f'<strong class="answer {match[1].split()[0]}">{match[1]}</strong>',
        body,
    )
    body = re.sub(r"(<a href=\"[^#][^>]*><code>.*?</code></a>)</li>", r'<em class="source">\1</em></li>', body)
    body = re.sub(r"<h2>(How an answer is found)", r'<h2 id="how-an-answer-is-found">\1', body)
    body = body.replace("<table>", '<div class="scroll"><table>').replace("</table>", "</table></div>")
    return html.article(f"{document.title}, sentence by sentence", body, STYLE)


def formula(tex: str) -> str:
    r"""Convert a formula of TeX to plain text; only \frac and \times are known."""
    return re.sub(r"\\frac\{(\w+)\}\{(\w+)\}", r"\1/\2", tex).replace(r"\times", "×")
