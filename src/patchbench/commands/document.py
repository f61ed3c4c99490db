"""The page that answers a document sentence by sentence, from statements, checks and the results of studies."""

import shlex
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch import nn
from yaml import YAMLError

from patchbench.checks import nearest
from patchbench.commands.build import build_net, build_source
from patchbench.commands.report import reports_on
from patchbench.config.compose import composed
from patchbench.config.mistakes import HYDRA_ERRORS, explain
from patchbench.config.names import register
from patchbench.config.options import EXPERIMENTS
from patchbench.config.plan import read_study, studies
from patchbench.document import checking
from patchbench.document.answers import Finding, Result, answer, case_result
from patchbench.document.page import Answered, markdown, page
from patchbench.document.statements import Case, Document, check_quotes, parse
from patchbench.machine import display_path, write_whole
from patchbench.pages.study.effects import from_to
from patchbench.pages.study.numbers import Report, amount_in_words, measured, sum_of_arms
from patchbench.study.verdict import HOW_MUCH, NOT_RUN, OPEN, WITHDRAWN
from patchbench.study.verdict import Finding as Judged

STATEMENTS = EXPERIMENTS / "statements.yaml"
SCALE = "cpu"  # scale of the studies whose results are used


def document(
    path: Path = STATEMENTS,
    experiments: Path = EXPERIMENTS,
    text: Path | None = None,
    results: Mapping[str, Result] | None = None,
) -> Path:
    """Write the page next to the statements, as Markdown and as HTML, and return the path of the HTML file.

    experiments: folder of the studies. text: the document, which must contain every quote; None: the file that the
    statements name, if any. results: results of the studies by <study>.<statement>; None: those in `experiments`.
    ValueError or OSError in one line, before anything is written, if the statements cannot be read, or if a check, an
    argument or a result does not exist.
    """
    statements = read(path)
    if text or statements.text:
        file = text or path.parent / statements.text
        check_quotes(statements, text_of(file))
    where = path.parent
    given = results_of(experiments, where, statements) if results is None else results
    for reference in statements.references:
        if reference not in given:
            close = nearest(reference, given)
            hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(given) or 'none'}"
            raise ValueError(f"{path}: {reference} is no statement of a study: {hint}")
    answered = []
    with importing_from(where):
        for case in (case for sentence in statements.sentences for case in sentence.cases if case.check):
            checking.find_check(case)  # fails before the first check is computed
        tools = checking.Tools(build, where)
        for sentence in statements.sentences:
            findings = [finding_of(case, tools, given) for case in sentence.cases]
            answered.append(Answered(sentence, findings, answer(findings)))
    words = ["" if path == STATEMENTS else str(display_path(path))]
    words += [] if experiments == EXPERIMENTS else [f"experiments={display_path(experiments)}"]
    again = shlex.join(["python", "scripts/document.py", *filter(None, words)])
    name = statements.page or path.stem
    written = markdown(
        statements, answered, path.name, again, limits(experiments, statements) if results is None else []
    )
    write_whole(where / f"{name}.md", written)
    write_whole(where / f"{name}.html", page(statements, written))
    return where / f"{name}.html"


def read(path: Path) -> Document:
    """Read a file of statements. FileNotFoundError or ValueError, in one line, if that is not possible."""
    try:
        text_of(path)
        tree = OmegaConf.to_container(OmegaConf.load(path))
    except FileNotFoundError:
        raise
    except (OmegaConfBaseException, YAMLError, OSError) as error:  # OSError: the file holds only a number or a word
        raise ValueError(f"{path}: {' '.join(str(error).split())}") from error
    if not isinstance(tree, dict):
        raise ValueError(f"{path} must be a mapping of title and sections")
    try:
        return parse({str(key): value for key, value in tree.items()})
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def text_of(path: Path) -> str:
    """Read a text file. ValueError, in one line, if it is not in UTF-8; OSError if it cannot be read."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no text in UTF-8: {error}") from error


def finding_of(case: Case, tools: checking.Tools, results: Mapping[str, Result]) -> Finding:
    """Return a case with its result: computed by its check, taken from its study, or missing."""
    if case.needs:
        return Finding(case, Result(f"Nothing here decides it: it would take {case.needs}", "not run", "", ""), "")
    if case.check:
        return Finding(case, checking.run(case, tools), case.check)
    return Finding(case, case_result(case, results[case.reference]), case.reference)


def build(*options: str) -> nn.Module:
    """Build the network that `python train.py data=random <options>` would train. ValueError if that is impossible."""
    register()
    given = ["data=random", *options]
    try:
        cfg = composed(given)
        return build_net(cfg, build_source(cfg))
    except HYDRA_ERRORS as error:
        raise ValueError(explain(error, given)) from error


def results_of(experiments: Path, where: Path, statements: Document) -> dict[str, Result]:
    """Return the results of the studies to which the statements refer, by <study>.<statement> and <study>.<factor>.

    where: folder of the page, to which links are relative. ValueError if the folder `experiments` lacks a study.
    """
    existing = studies(experiments)
    results: dict[str, Result] = {}
    first = {reference.partition(".")[0]: reference for reference in reversed(statements.references)}
    for name, reference in first.items():
        if name not in existing:
            known = ", ".join(existing) or "none"
            raise ValueError(f"{reference}: {experiments} has no study {name}: studies are {known}")
        link = checking.relative_link(experiments / name / "README.md", where)
        study = read_study(name, experiments)
        for _, statement in study.statements:
            results[f"{name}.{statement.name}"] = Result(statement.says, "not run", "no run of it has been made", link)
        for effect in (effect for part in study.parts for effect in part.effects):
            results[f"{name}.{effect.factor}"] = Result(effect.factor, "not run", "no run of it has been made", link)
        for report, _ in reports_on(name, experiments, SCALE):
            results |= {f"{name}.{factor}": amount for factor, amount in amounts(report, link).items()}
            for judged in report.judgement.findings:
                results[f"{name}.{judged.statement.name}"] = result_of(judged, link)
    return results


def limits(experiments: Path, statements: Document) -> list[str]:
    """List the entries `as_recorded` of the studies, each with the names of the studies that have this entry."""
    names = dict.fromkeys(reference.partition(".")[0] for reference in statements.references)
    studies_by_reason: dict[str, list[str]] = {}
    for name in names:
        if as_recorded := read_study(name, experiments).as_recorded:
            studies_by_reason.setdefault(as_recorded, []).append(name)
    return [f"{', '.join(studies)}: {as_recorded}" for as_recorded, studies in studies_by_reason.items()]


def result_of(judged: Judged, link: str) -> Result:
    """Convert the finding about a statement of a study to a result.

    A statement that is withdrawn, or lacks runs, results or a control, counts as not run.
    """
    says, reason = judged.statement.says, judged.because
    if judged.answer in (NOT_RUN, WITHDRAWN):
        return Result(says, "not run", f"withdrawn: {reason}" if judged.answer == WITHDRAWN else reason, link)
    if judged.without_result or judged.uncontrolled or not any(step.amount for step in judged.steps):
        return Result(says, "not run", reason, link)
    figure = f"{in_short(judged)} {measured(judged)}"
    return Result(says, judged.answer, f"{figure}, {reason}" if judged.answer in (OPEN, HOW_MUCH) else figure, link)


def amounts(report: Report, link: str) -> dict[str, Result]:
    """Return the measured effects of each factor, by factor, as one result."""
    rows_by_factor: dict[str, list[str]] = {}
    for effect in report.judgement.effects:
        if effect.amount is not None:
            spelled = f"{from_to(effect)} {amount_in_words(effect.metric, effect.amount)}"
            rows_by_factor.setdefault(effect.effect.factor, []).append(f"{effect.part.name}: {spelled}")
    return {factor: Result(factor, "by how much", "; ".join(rows), link) for factor, rows in rows_by_factor.items()}


def in_short(judged: Judged) -> str:
    """Spell the part and the measured sums of arms of a statement: left_of: sincos − none."""
    return f"{judged.part.name}: {' and '.join(sum_of_arms(step.terms) for step in judged.steps)}"


@contextmanager
def importing_from(folder: Path) -> Iterator[None]:
    """Allow imports of the user's own checks from a folder."""
    sys.path.insert(0, str(folder.resolve()))
    try:
        yield
    finally:
        sys.path.remove(str(folder.resolve()))
