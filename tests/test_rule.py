"""The rule that answers the statements of a study: tables of cases, outcomes with a known truth, and error rates.

The statistical tests behind the rule are tested in test_inference.py.
"""

import copy
import gc
import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binom

from patchbench.config.plan import read_study
from patchbench.statistics.inference import ALPHA
from patchbench.study.design import GRID, SOLVED, STEPS, Study
from patchbench.study.outcomes import Evidence, population
from patchbench.study.reading import parse
from patchbench.study.verdict import HOW_MUCH, NO, NOT_RUN, OPEN, WITHDRAWN, YES, Finding, Judgement, judge

NOISE = np.array([0.3, -0.8, 0.2, 0.5, -0.9, 0.4, -0.3, 0.7, 0.1, -0.2]) / 100  # ten seeds, a mean of zero
A, B = 0.8 + NOISE[:7], 0.7 + NOISE[:7][::-1] / 2
LEVELS = {YES, NO, OPEN}


@pytest.fixture(scope="module", autouse=True)
def _light_collections() -> Iterator[None]:
    """Freeze the objects of earlier tests, because statsmodels collects garbage in every call."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


def tree(*statements: Mapping[str, Any], arms: str = "a b c", decides: Sequence[str] = ("s0",), **part: Any) -> dict:
    """Make the tree of a study.yaml with one part, `one`, and statements s0, s1, ..."""
    named = {f"s{i}": {"says": f"So is {i}.", **statement} for i, statement in enumerate(statements)}
    return {
        "question": "Is it so?",
        "decides": list(decides),
        "scales": {"cpu": {"seeds": "0-9"}},
        "arms": {arm: [f"embed={arm}"] for arm in arms.split()},
        "parts": {"one": {"statements": named, **part}},
    }


def study(*statements: Mapping[str, Any], **part: Any) -> Study:
    return parse("test", tree(*statements, **part))


def cells(rung: str = "", images: int | None = None, **scores: Sequence[float | str]) -> pd.DataFrame:
    """Make a table with one row per arm and seed; a score that is a word is a status."""
    rows = []
    for arm, values in scores.items():
        for seed, value in enumerate(values):
            status, score = (value, math.nan) if isinstance(value, str) else ("done", float(value))
            identity = f"{arm}{seed}"
            rows.append({"part": "one", "arm": arm, "rung": rung, "seed": seed, "identity": identity, "status": status,
                         "test/acc": score})  # fmt: skip
    table = pd.DataFrame(rows)
    return table if images is None else table.assign(**{"test/images": images})


def judged(statement: Mapping[str, Any], table: pd.DataFrame, **part: Any) -> Finding:
    """Return the finding of a study with one statement."""
    [finding] = judge(study(statement, **part), Evidence(table)).findings
    return finding


@pytest.mark.parametrize(
    ("statement", "scores", "answer"),
    [
        ({"that": "a - b", "above": 0.05}, {"a": A, "b": B}, YES),
        ({"that": "a - b", "above": 0.15}, {"a": A, "b": B}, NO),
        ({"that": "a - b", "above": 0.10}, {"a": A, "b": B}, OPEN),
        ({"that": "b - a", "below": -0.05}, {"a": A, "b": B}, YES),
        ({"that": "b - a", "above": 0.0}, {"a": A, "b": B}, NO),
        ({"that": "a - b", "above": 0.05}, {"a": A[:4], "b": B[:4]}, YES),  # p = 2/70
        ({"that": "a - b", "above": 0.05}, {"a": A[:3], "b": B[:3]}, OPEN),  # p = 2/20
        ({"that": "a - b", "above": 0.05}, {"a": A[:1], "b": B[:1]}, OPEN),
        ({"that": "a - b", "within": 0.02}, {"a": A, "b": A[::-1]}, YES),
        ({"that": "a - b", "within": 0.02}, {"a": A, "b": A}, YES),
        ({"that": "a - b", "within": 0.02}, {"a": A[:3], "b": A[:3]}, OPEN),
        ({"that": "a - b", "within": 0.02}, {"a": A, "b": B}, NO),
        ({"that": "a - b", "within": 0.0005}, {"a": A, "b": A[::-1]}, OPEN),
        ({"that": "a - b", "equals": 0.1, "within": 0.02}, {"a": A, "b": B}, YES),
        ({"that": "a", "equals": 0.8, "within": 0.03}, {"a": A}, YES),
        ({"that": "a", "equals": 0.5, "within": 0.03}, {"a": A}, NO),
        ({"that": "a", "equals": 0.8, "within": 0.001}, {"a": A}, OPEN),
        ({"that": "a - b - c + b", "above": 0.05}, {"a": A, "b": B, "c": B}, YES),
        ({"that": "a - b - c + b", "below": 0.05}, {"a": A, "b": B, "c": B}, NO),
        ({"order": ["c", "b", "a"]}, {"a": A, "b": B, "c": B - 0.1}, YES),
        ({"order": ["a", "b", "c"]}, {"a": A, "b": B, "c": B - 0.1}, NO),
        ({"order": ["c", "b", "a"]}, {"a": A, "b": B, "c": B[::-1]}, OPEN),
        ({"order": ["b", "c", "a"]}, {"a": A, "b": B, "c": B - 0.1}, NO),  # one of two steps fails
        ({"order": ["c", "b", "a"], "above": 0.05}, {"a": A, "b": B, "c": B - 0.02}, NO),
        ({"that": "a - b", "above": 0.05}, {"a": A, "b": [*B[:6], "failed"]}, OPEN),
        ({"that": "a - b", "above": 0.05}, {"a": A, "b": [*B[:6], "not run"]}, OPEN),
        ({"that": "a - b", "above": 0.05}, {"a": A, "b": [*B[:6], "diverged"]}, OPEN),
        ({"that": "a - b", "above": 0.05}, {"a": A, "b": ["failed"] * 7}, OPEN),
        ({"that": "a - b", "above": 0.05}, {"a": ["not run"] * 7, "b": ["not run"] * 7}, NOT_RUN),
        ({"that": "a - b", "above": 0.05, "withdrawn": "A slip."}, {"a": A, "b": B}, WITHDRAWN),
        ({"that": "a - b", "above": 0.05, "withdrawn": "A slip."}, {"a": A, "b": ["not run"] * 7}, WITHDRAWN),
    ],
)
def test_the_interval_decides(statement, scores, answer):
    finding = judged(statement, cells(**scores))
    assert finding.answer == answer, finding
    assert finding.because


def test_a_reason_names_the_first_missing_run_and_their_number():
    statement = {"that": "a - b", "above": 0.05}
    one = judged(statement, cells(a=A, b=[*B[:6], "failed"]))
    assert one.because == "1 run has no result, that of arm b: seed 6 failed"
    several = judged(statement, cells(a=A, b=[*B[:5], "failed", "not run"]))
    assert several.because == "2 runs have no result, the first of arm b: seed 5 failed"
    assert several.without_result == {"b": ["seed 5 failed", "seed 6 not run"]}
    assert judged(statement | {"withdrawn": "A slip."}, cells(a=A, b=B)).because == "A slip."
    assert judged(statement, cells(a=A, b=B), chance=0.1).because != judged(statement, cells(a=B, b=B)).because


def test_a_part_without_cells_is_not_judged():
    assert judge(study({"that": "a - b", "above": 0}), Evidence(cells(a=A).assign(part="two"))) == Judgement((), ())


def test_a_diverged_run_counts_as_guessing_where_it_is_known_what_guessing_gives():
    scores = cells(a=A, b=[*B[:6], "diverged"])
    finding = judged({"that": "a - b", "above": 0.0}, scores, chance=0.65)
    assert finding.steps[0].amount.estimate == pytest.approx(A.mean() - np.append(B[:6], 0.65).mean())
    assert finding.answer == YES
    difference = {"that": "a - b", "above": 0.0, "metric": "test/acc - val/acc"}
    assert judged(difference, scores.assign(**{"val/acc": 0.5}), chance=0.65).answer == OPEN, "chance of test/acc only"


def test_a_mean_far_off_decides_nothing_while_the_seeds_disagree():
    scores = cells(a=[0.59, 0.59, 0.59, 0.59, 0.52, 0.59], b=[0.53, 0.53, 0.53, 0.53, 0.61, 0.53])
    assert judged({"that": "a - b", "above": 0.0}, scores).answer == OPEN


@pytest.mark.parametrize("n", [7, 12])  # every exchange is tried, or a sample of them
@pytest.mark.parametrize(
    "statement", [{"that": "a - b", "above": 0.02}, {"that": "a - b - c", "above": -0.7}, {"order": ["c", "b", "a"]}]
)
def test_seeds_are_not_paired_and_the_order_of_rows_does_not_matter(n, statement):
    rng = np.random.default_rng(0)
    a, b, c = (at + rng.normal(0, 0.03, n) for at in (0.75, 0.72, 0.70))
    table = cells(a=a, b=b, c=c)
    first = judged(statement, table)
    shuffled = judged(statement, table.sample(frac=1, random_state=1))
    renumbered = judged(statement, cells(a=a, b=b[::-1], c=np.roll(c, 3)))
    for other in (shuffled, renumbered):
        assert (other.p, other.p_holm, other.answer) == (first.p, first.p_holm, first.answer)
        for mine, others in zip(first.steps, other.steps, strict=True):
            assert mine.amount.interval() == pytest.approx(others.amount.interval(), abs=1e-12)


def test_metrics_can_be_subtracted_within_a_run():
    scores = cells(a=A, b=B)
    scores["test/cut/acc"] = scores["test/acc"] - np.where(scores["arm"] == "a", 0.1, 0.02)
    finding = judged({"that": "a - b", "above": 0.05, "metric": "test/acc - test/cut/acc"}, scores)
    assert finding.steps[0].amount.estimate == pytest.approx(0.08)
    assert finding.answer == YES


def test_a_metric_can_be_taken_in_doublings():
    scores = cells(a=A, b=A).assign(time=lambda rows: np.where(rows["arm"] == "a", 8.0, 2.0))
    finding = judged({"that": "a - b", "equals": 2.0, "within": 0.01, "metric": "log2(time)"}, scores)
    assert finding.steps[0].amount.estimate == pytest.approx(2.0)
    assert finding.answer == YES


# Several statements.

HOLDS, FAILS, UNSURE = ({"that": "a - b", "above": bound} for bound in (0.05, 0.15, 0.1))


def answers(*statements: Mapping[str, Any], table: pd.DataFrame | None = None) -> list[str]:
    evidence = Evidence(cells(a=A, b=B) if table is None else table)
    return [finding.answer for finding in judge(study(*statements), evidence).findings]


def test_six_seeds_decide_even_with_twenty_claims_and_five_do_not():
    assert answers(*[HOLDS] * 20, table=cells(a=A[:6], b=B[:6])) == [YES] * 20
    assert answers(*[HOLDS] * 20, table=cells(a=A[:5], b=B[:5])) == [OPEN] * 20
    assert answers(*[HOLDS] * 6, table=cells(a=A[:5], b=B[:5])) == [YES] * 6


def test_the_more_is_claimed_the_more_must_be_shown():
    scores = cells(a=A[:6], b=A[:6] - 0.011, c=B[:6])
    close = {"that": "a - b", "above": 0.0}
    [alone] = judge(study(close), Evidence(scores)).findings
    together = judge(study(close, *[{**close, "says": "Again."}] * 3), Evidence(scores)).findings
    assert alone.answer == YES
    assert alone.p_holm == alone.p
    for finding in together:
        assert finding.p == alone.p
        assert finding.p_holm == pytest.approx(4 * finding.p)
        assert finding.answer == OPEN
        assert "after correction for several claims" in finding.because


def test_asides_and_controls_are_outside_of_the_correction():
    scores = Evidence(cells(a=A[:6], b=A[:6] - 0.011))
    close = {"that": "a - b", "above": 0.0}
    beside = [{**close, "role": role} for role in ("aside", "control") for _ in range(4)]
    [claim, *others] = judge(study(close, *beside), scores).findings
    [alone] = judge(study(close), scores).findings
    assert (claim.p, claim.p_holm, claim.level, claim.answer) == (alone.p, alone.p, alone.level, YES)
    assert {(finding.p_holm, finding.level, finding.answer) for finding in others} == {(alone.p, 0.95, YES)}


def test_claims_that_are_not_decided_by_p_are_outside_of_the_correction():
    gone = {**HOLDS, "withdrawn": "A slip."}
    [claim, *_] = judge(study(HOLDS, gone, gone), Evidence(cells(a=A, b=B))).findings
    assert claim.p_holm == claim.p


@pytest.mark.parametrize(
    ("statements", "expected"),
    [
        ([HOLDS, HOLDS], [YES, YES]),
        ([HOLDS, FAILS], [YES, NO]),
        ([HOLDS, UNSURE], [YES, OPEN]),
        ([HOLDS, {**HOLDS, "role": "control"}], [YES, YES]),
        ([HOLDS, {**FAILS, "role": "control"}], [OPEN, NO]),
        ([FAILS, {**FAILS, "role": "control"}], [OPEN, NO]),
        ([HOLDS, {**UNSURE, "role": "control"}], [OPEN, OPEN]),
        ([{**HOLDS, "role": "aside"}, {**UNSURE, "role": "control"}], [YES, OPEN]),
        ([{**HOLDS, "withdrawn": "A slip."}, {**FAILS, "role": "control"}], [WITHDRAWN, NO]),
        ([HOLDS, {**HOLDS, "role": "control"}, {**FAILS, "role": "control"}], [OPEN, YES, NO]),
        ([HOLDS, {**FAILS, "role": "aside"}], [YES, NO]),
    ],
)
def test_a_control_that_fails_or_is_open_opens_every_claim_and_nothing_else(statements, expected):
    assert answers(*statements) == expected


def test_a_control_opens_the_claims_of_other_parts_and_is_named():
    given = tree(HOLDS)
    control = {"says": "Guessing is guessing.", "role": "control", "that": "c", "equals": 0.5, "within": 0.02}
    given["parts"]["two"] = {"statements": {"guess": control}}
    for at, answer in ((0.5, YES), (0.6, OPEN)):
        both = pd.concat([cells(a=A, b=B), cells(c=at + NOISE).assign(part="two")])
        judgement = judge(parse("test", given), Evidence(both))
        claim = judgement.finding("s0")
        assert claim is not None
        assert claim.answer == answer
        assert (judgement.failed is None) == (answer == YES)
        assert answer == YES or claim.because == "a control does not hold: Guessing is guessing."
    missing = pd.concat([cells(a=A, b=B), cells(c=["not run"] * 3).assign(part="two")])
    claim = judge(parse("test", given), Evidence(missing)).findings[0]
    assert (claim.answer, claim.because) == (OPEN, "a control is not shown to hold: Guessing is guessing.")


def test_an_order_holds_by_its_weakest_step_and_fails_by_its_strongest_times_their_number():
    table = cells(a=A, b=B, c=B - 0.002)
    alone = {name: judged({"that": name, "above": 0.0}, table).p for name in ("a - b", "b - c", "c - b", "b - a")}
    assert judged({"order": ["c", "b", "a"]}, table).p == alone["b - c"] > alone["a - b"]
    fails = judged({"order": ["a", "b", "c"]}, table)
    assert fails.p == pytest.approx(2 * alone["b - a"])
    assert fails.answer == NO
    assert fails.level == pytest.approx(0.975), "each of two intervals is wider"


# The interval and the p value.


def statements_at_random(rng: np.random.Generator, solved: bool) -> list[dict[str, Any]]:
    bound = float(rng.choice([0.0, 0.01, -0.02]) if not solved else rng.choice([0.0, 0.1, -0.3]))
    forms: list[dict[str, Any]] = [
        {"that": "a - b", "above": bound},
        {"that": "b - c", "below": bound},
        {"that": "a - c", "within": 0.02 + abs(bound)},
        {"order": ["c", "b", "a"]},
    ]
    if not solved:
        forms += [{"that": "a - b + c", "above": 0.6}, {"that": "b", "equals": 0.6, "within": 0.02}]
    chosen = rng.choice(len(forms), size=rng.integers(1, 4), replace=True)
    return [{**forms[i], **({"metric": SOLVED} if solved else {})} for i in chosen]


def scores_at_random(rng: np.random.Generator, kind: str, n: int) -> pd.DataFrame:
    if kind == "continuous":
        return cells(**{arm: 0.6 + rng.normal(0, 0.015) + rng.normal(0, 0.01, n) for arm in "abc"})
    if kind == "counts":  # so few images that seeds tie with one another and with the bound
        return cells(images=100, **{arm: np.round(60 + rng.normal(0, 2) + rng.normal(0, 1, n)) / 100 for arm in "abc"})
    return cells(**{arm: np.where(rng.random(n) < rng.choice([0, 0.5, 1]), 0.99, 0.5) for arm in "abc"})


@pytest.mark.parametrize("samples", [5, pytest.param(200, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", ["continuous", "counts", SOLVED])
def test_the_interval_at_its_level_excludes_the_bound_exactly_where_the_corrected_p_is_small(kind, samples):
    rng = np.random.default_rng(2)
    seen = set()
    for _ in range(samples):
        part = {"solved": 0.9} if kind == SOLVED else {}
        whole = study(*statements_at_random(rng, kind == SOLVED), **part)
        for finding in judge(whole, Evidence(scores_at_random(rng, kind, int(rng.integers(4, 8))))).findings:
            low, high = finding.statement.low, finding.statement.high
            intervals = [step.amount.interval(finding.level) for step in finding.steps]
            inside = all(low < lower and upper < high for lower, upper in intervals)
            outside = any(upper < low or high < lower for lower, upper in intervals)
            assert inside == (finding.answer == YES), finding
            assert outside == (finding.answer == NO), finding
            assert (inside or outside) == (finding.p_holm <= ALPHA), finding
            seen.add(finding.answer)
    assert seen == LEVELS


def test_the_interval_of_one_claim_alone_is_at_95_percent():
    assert judged(HOLDS, cells(a=A, b=B)).level == pytest.approx(0.95)


def right(rng: np.random.Generator, seeds: int, images: int) -> np.ndarray:
    return rng.integers(round(0.93 * images), round(0.96 * images), seeds)


def test_accuracies_that_were_rounded_to_float32_give_the_p_of_the_counts():
    rng = np.random.default_rng(0)
    rounding_matters = 0
    for _ in range(10):
        a, b = right(rng, 6, 360), right(rng, 6, 360)
        exact = {"a": a / 360, "b": b / 360}
        rounded = {arm: np.float32(values).astype(float) for arm, values in exact.items()}
        p = [
            judged({"that": "a - b", "above": 0.0}, cells(images=images, **scores)).p
            for images, scores in ((360, exact), (360, rounded), (None, rounded))
        ]
        assert p[0] == p[1]
        rounding_matters += p[0] != p[2]
    assert rounding_matters, "else this test could not fail"


# Rates of error.


def share(samples: int, difference: float, n: int, statement: Mapping[str, Any], answer: str) -> float:
    """Simulate experiments with a known difference of two arms; return the share with this answer of the rule."""
    rng = np.random.default_rng(3)
    whole = study(statement, arms="a b")
    found = 0
    for _ in range(samples):
        scores = cells(a=0.7 + difference + rng.normal(0, 0.01, n), b=0.7 + rng.normal(0, 0.01, n))
        found += judge(whole, Evidence(scores)).findings[0].answer == answer
    return found / samples


def at_most(rate: float, samples: int) -> float:
    """Return the rate plus two standard errors of its estimate."""
    return rate + 2 * math.sqrt(rate * (1 - rate) / samples)


@pytest.mark.parametrize("samples", [20, pytest.param(1000, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("difference", "statement", "answer"),
    [
        (0.0, {"that": "a - b", "above": 0.0}, YES),
        (0.0, {"that": "a - b", "above": 0.0}, NO),
        (0.02, {"that": "a - b", "within": 0.02}, YES),
        (0.02, {"that": "a - b", "within": 0.02}, NO),
    ],
)
def test_at_the_bound_neither_side_is_found_more_often_than_alpha(difference, statement, answer, samples):
    assert share(samples, difference, 6, statement, answer) <= at_most(ALPHA / 2, samples)


def bimodal(rng: np.random.Generator, rate: float, n: int) -> np.ndarray:
    """Draw results of seeds: 99 % with this rate, otherwise chance."""
    return np.where(rng.random(n) < rate, 0.99, 0.5) + rng.normal(0, 0.003, n)


@pytest.mark.parametrize(("samples", "n"), [(8, 6), pytest.param(1000, 10, marks=pytest.mark.slow)])
@pytest.mark.parametrize("rate", [0.5, 0.8, 0.95])
def test_an_arm_that_fails_now_and_then_against_a_flat_one_of_the_same_mean_is_not_judged_falsely(rate, samples, n):
    """The bound is the true value, for the rate of solving seeds and for the mean of solving seeds: yes is false."""
    flat = 0.5 + 0.49 * rate  # the mean of the arm that fails: 96.6 % at a rate of 0.95
    fewer, gain = rate - 1, 0.99 - flat
    false: list[dict[str, Any]] = [
        {"that": "a - b", "metric": SOLVED, "above": fewer},
        {"that": "a - b", "metric": SOLVED, "below": fewer},
        {"that": "a", "metric": SOLVED, "above": rate},
        {"that": "a - b", "among": SOLVED, "above": gain},
        {"that": "a - b", "among": SOLVED, "below": gain},
        {"that": "a - b", "among": SOLVED, "within": gain},
    ]
    alone = [{**statement, "role": "aside"} for statement in false]
    whole = study(*alone, arms="a b", chance=0.5, solved=min(0.9, flat - 0.02))
    rng = np.random.default_rng(4)
    found = np.zeros(len(false))
    for _ in range(samples):
        table = cells(images=4000, a=bimodal(rng, rate, n), b=flat + rng.normal(0, 0.003, n))
        found += [finding.answer == YES for finding in judge(whole, Evidence(table)).findings]
    assert (found / samples <= at_most(ALPHA / 2, samples)).all()


@pytest.mark.parametrize("n", [5, pytest.param(10, marks=pytest.mark.slow)])
def test_false_answers_on_how_many_seeds_solve_are_rare_whatever_the_rates(n):
    """Each table of k and m solved seeds is judged once and weighted by its probability: exact, not simulated."""
    counts, bounds = np.arange(n + 1), (0.0, -0.05)
    about = [{"that": "a - b", "metric": SOLVED, "above": bound, "role": "aside"} for bound in bounds]
    whole = study(*about, arms="a b", chance=0.5, solved=0.9)
    given = {
        (k, m): [f.answer for f in judge(whole, Evidence(cells(a=solved_of(k, n), b=solved_of(m, n)))).findings]
        for k, m in product(counts, counts)
    }
    for i, bound in enumerate(bounds):
        assert {answers[i] for answers in given.values()} == LEVELS
        for rate in np.linspace(-bound, 1, 41):
            chance = np.outer(binom.pmf(counts, n, rate + bound), binom.pmf(counts, n, rate))
            for answer in (YES, NO):
                false = sum(chance[table] for table, answers in given.items() if answers[i] == answer)
                assert false <= ALPHA / 2 + 1e-9


def solved_of(k: int, n: int) -> list[float]:
    return [0.99] * k + [0.5] * (n - k)


# Found or not.


@pytest.mark.parametrize(
    ("statement", "scores", "answer"),
    [
        ({"that": "a - b", "metric": SOLVED, "above": 0.0}, {"a": solved_of(6, 6), "b": solved_of(0, 6)}, YES),
        ({"that": "a - b", "metric": SOLVED, "above": 0.0}, {"a": solved_of(0, 6), "b": solved_of(6, 6)}, NO),
        ({"that": "a - b", "metric": SOLVED, "above": 0.0}, {"a": solved_of(5, 6), "b": solved_of(4, 6)}, OPEN),
        ({"that": "a - b", "metric": SOLVED, "above": 0.0}, {"a": solved_of(6, 6), "b": ["diverged"] * 6}, YES),
        ({"that": "a - b", "metric": SOLVED, "within": 0.05}, {"a": solved_of(10, 10), "b": solved_of(10, 10)}, OPEN),
        ({"that": "a", "metric": SOLVED, "above": 0.5}, {"a": solved_of(6, 6)}, YES),
        ({"that": "a", "metric": SOLVED, "above": 0.5}, {"a": solved_of(0, 6)}, NO),
        ({"that": "a", "metric": SOLVED, "above": 0.9}, {"a": solved_of(10, 10)}, OPEN),  # 69 to 100 %
        ({"that": "a - b", "among": SOLVED, "above": 0.01}, {"a": [*(A + 0.18), 0.5], "b": [*(A + 0.14), 0.4]}, YES),
        ({"that": "a - b", "among": SOLVED, "above": 0.01}, {"a": [*(A + 0.14), 0.5], "b": [*(A + 0.14), 0.4]}, NO),
        ({"that": "a", "among": SOLVED, "above": 0.9}, {"a": [*(A + 0.18), 0.5, "diverged"]}, YES),
        ({"that": "a - b", "among": SOLVED, "above": 0.01}, {"a": A + 0.18, "b": solved_of(1, 7)}, OPEN),
        ({"that": "a - b", "among": SOLVED, "above": 0.01}, {"a": A + 0.18, "b": solved_of(0, 7)}, OPEN),
        ({"that": "a - b", "among": SOLVED, "above": 0.01}, {"a": A + 0.18, "b": [*(A[:6] + 0.14), "failed"]}, OPEN),
    ],
)
def test_where_seeds_may_fail_those_that_solve_are_counted_and_compared(statement, scores, answer):
    finding = judged(statement, cells(**scores), chance=0.5, solved=0.9)
    assert finding.answer == answer, finding


def test_an_amount_among_the_solved_is_that_of_the_solved():
    scores = cells(a=[*(A + 0.18), 0.5, 0.89], b=[*(A + 0.14), 0.4, "diverged"])
    finding = judged({"that": "a - b", "among": SOLVED, "above": 0.0}, scores, chance=0.5, solved=0.9)
    assert finding.steps[0].amount.estimate == pytest.approx(0.04)
    assert finding.steps[0].amount.seeds == (7, 7)
    few = judged({"that": "a - b", "among": SOLVED, "above": 0.0}, cells(a=A + 0.18, b=solved_of(1, 7)), solved=0.9)
    assert few.because == "fewer than two seeds of arm b solve the task"


def test_a_seed_that_is_exactly_at_the_threshold_has_solved_and_a_loss_is_solved_from_above():
    assert judged({"that": "a", "metric": SOLVED, "above": 0.5}, cells(a=[0.9] * 6), solved=0.9).answer == YES
    losses = cells(a=A).assign(**{"test/loss": [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]})
    low = judged({"that": "a", "metric": SOLVED, "above": 0.5}, losses, solved=0.2, metric="test/loss")
    assert low.steps[0].amount.estimate == pytest.approx(2 / 7)


def test_means_of_seeds_that_fall_into_two_groups_describe_neither():
    for arms in ({"a": [*A, 0.2], "b": [*B, 0.7]}, {"a": [*A, 0.7], "b": [*B, 0.2]}):
        finding = judged({"that": "a - b", "above": -1.0}, cells(**arms))
        assert finding.answer == OPEN
        assert "fall into two groups" in finding.because
    assert judged({"that": "a - b", "above": -1.0}, cells(a=A, b=B, c=[*A[:6], 0.2])).answer == YES, "c is no matter"
    one = judged({"that": "a", "above": 0.5}, cells(a=[0.99] * 8 + [0.98, 0.5]), solved=0.9)
    assert (one.answer, "fall into two groups" in one.because) == (OPEN, True), "the mean of one arm is a mean as well"


@pytest.mark.parametrize("wrong", [math.inf, -math.inf, "a word"])
@pytest.mark.parametrize("name", ["test/loss", "log2(test/loss)"])
def test_a_figure_that_is_no_finite_number_is_none(wrong, name):
    losses = cells(a=A, b=B).assign(**{"test/loss": [wrong, *[0.5] * 13]})
    finding = judged({"that": "a - b", "above": 0.0, "metric": name}, losses)
    assert finding.answer == OPEN
    assert finding.because == "1 run has no result, that of arm a: seed 0 has no such figure"


def test_no_logarithm_is_taken_of_nothing():
    losses = cells(a=A, b=B).assign(**{"test/loss": [0.0, *[0.5] * 13]})
    assert judged({"that": "a - b", "above": 0.0, "metric": "log2(test/loss)"}, losses).answer == OPEN


def test_an_arm_of_which_there_is_no_run_is_named():
    for among in ({}, {"among": SOLVED}):
        finding = judged({"that": "a - b", "above": 0.0, **among}, cells(a=A), solved=None if not among else 0.5)
        assert (finding.answer, finding.because) == (OPEN, "there is no run of arm b")


# Steps until the task is solved.


def curves(rung: str = "", every: int = 50, last: int = 600, **solve_at: Sequence[float | None]) -> pd.DataFrame:
    """Make validation curves of each arm and seed: 50 % before the step at which it solves the task, 95 % after."""
    steps = np.arange(every, last + 1, every)
    rows = [
        {"part": "one", "arm": arm, "rung": rung, "seed": seed, "step": step,
         "score": 0.95 if at is not None and step >= at else 0.5}
        for arm, seeds in solve_at.items()
        for seed, at in enumerate(seeds)
        for step in steps
    ]  # fmt: skip
    return pd.DataFrame(rows)


EARLY, LATE, NEVER = [100, 150, 100, 200, 150, 100], [300, 350, 400, 300, 450, 350], [None] * 6


@pytest.mark.parametrize(
    ("a", "b", "below", "above"),
    [
        (EARLY, LATE, YES, NO),
        (LATE, EARLY, NO, YES),
        (EARLY, NEVER, YES, NO),
        (NEVER, EARLY, NO, YES),
        (EARLY, [*LATE[:2], *NEVER[:4]], YES, NO),
        ([*LATE[:2], *NEVER[:4]], EARLY, NO, YES),
        (NEVER, NEVER, OPEN, OPEN),
        (EARLY, EARLY, OPEN, OPEN),
        (EARLY, [*EARLY[:5], None], OPEN, OPEN),
        ([*EARLY[:3], *NEVER[:3]], [*LATE[:3], *NEVER[:3]], OPEN, OPEN),
    ],
)
def test_a_seed_that_never_solves_is_later_than_every_one_that_does(a, b, below, above):
    table = cells(a=[0.95 if at else 0.5 for at in a], b=[0.95 if at else 0.5 for at in b])
    evidence = Evidence(table, curves(a=a, b=b))
    for side, answer in (("below", below), ("above", above)):
        whole = study({"that": "a - b", "metric": STEPS, side: 0}, chance=0.5, solved=0.9)
        [finding] = judge(whole, evidence).findings
        assert finding.answer == answer, (side, finding)


def test_steps_are_those_of_the_first_validation_that_reaches_the_threshold():
    evidence = Evidence(cells(a=[0.95] * 6, b=[0.95] * 6), curves(a=EARLY, b=LATE))
    [finding] = judge(study({"that": "a - b", "metric": STEPS, "below": 0}, solved=0.9), evidence).findings
    assert finding.steps[0].amount.estimate == np.median(EARLY) - np.median(LATE)
    lower = study({"that": "a - b", "metric": STEPS, "below": 0}, solved=0.4)
    [at_once] = judge(lower, evidence).findings
    assert at_once.steps[0].amount.estimate == 0
    assert at_once.answer == OPEN


def test_without_learning_curves_steps_are_not_known_and_a_diverged_run_never_solves():
    statement = {"that": "a - b", "metric": STEPS, "below": 0}
    table = cells(a=[0.95] * 6, b=[0.95] * 6)
    [unknown] = judge(study(statement, solved=0.9), Evidence(table)).findings
    assert unknown.answer == OPEN
    assert "has no such figure" in unknown.because
    diverged = Evidence(cells(a=[0.95] * 6, b=["diverged"] * 6), curves(a=EARLY))
    [finding] = judge(study(statement, solved=0.9, chance=0.5), diverged).findings
    assert finding.answer == YES
    failed = Evidence(cells(a=[0.95] * 6, b=["failed"] * 6), curves(a=EARLY))
    assert judge(study(statement, solved=0.9, chance=0.5), failed).findings[0].answer == OPEN


# Ladders of budgets.

LADDER = {"ladder": {"epochs": [15, 30, 60]}}


def climbing(**scores: Mapping[str, Sequence[float | str]]) -> pd.DataFrame:
    """Make cells of arms by budget: climbing(a={"15": [...], "30": [...]})."""
    return pd.concat([cells(rung=rung, **{arm: values}) for arm, by in scores.items() for rung, values in by.items()])


def flat(level: np.ndarray, gain: float = 0.0) -> dict[str, np.ndarray]:
    """Make results that are far lower at 15 epochs, and `gain` lower at 30 than at 60."""
    return {"15": level - 0.2, "30": level - gain, "60": level}


def test_a_statement_is_decided_at_the_last_budget_where_all_its_arms_stand_on_a_plateau():
    table = climbing(a=flat(A), b=flat(B, 0.004), c=flat(B, 0.1))
    finding = judged({"that": "a - b", "above": 0.05}, table, **LADDER)
    assert (finding.answer, finding.rung) == (YES, "60")
    assert finding.steps[0].amount.estimate == pytest.approx(A.mean() - B.mean())
    moving = judged({"that": "a - c", "above": 0.05}, table, **LADDER)
    assert moving.answer == HOW_MUCH
    assert moving.because == "arm c is not on a plateau at the last budget, epochs=60"
    assert moving.steps[0].amount.estimate == pytest.approx(A.mean() - B.mean()), "the amount is told"
    both = judged({"that": "c - b", "within": 0.5}, table, **LADDER, plateau=0.001)
    assert both.because == "arms b and c are not on a plateau at the last budget, epochs=60"
    wide = judged({"that": "a - c", "above": 0.05}, table, **LADDER, plateau=0.11)
    assert wide.answer == YES


def test_an_arm_that_falls_is_on_no_plateau_either():
    table = climbing(a=flat(A), b=flat(B, -0.03))
    assert judged({"that": "a - b", "above": 0.05}, table, **LADDER).answer == HOW_MUCH


def test_with_one_budget_no_plateau_is_seen():
    table = cells(rung="15", a=A, b=B)
    finding = judged({"that": "a - b", "above": 0.05}, table, **LADDER)
    assert finding.answer == HOW_MUCH
    assert finding.because == "only one budget was run, epochs=15, so no plateau can be seen"


def test_a_statement_about_a_budget_is_decided_there_whatever_is_gained_later():
    table = climbing(a=flat(A, 0.1), b=flat(B, 0.02))
    finding = judged({"that": "a - b", "below": 0.05, "at": 30}, table, **LADDER)
    assert (finding.answer, finding.rung) == (YES, "30")
    assert finding.steps[0].amount.estimate == pytest.approx(A.mean() - B.mean() - 0.08)


def test_a_statement_about_a_budget_that_is_not_run_is_not_decided_at_another():
    finding = judged({"that": "a - b", "above": 0.05, "at": 60}, cells(rung="15", a=A, b=B), **LADDER)
    assert (finding.answer, finding.rung) == (NOT_RUN, "60")


def test_missing_runs_at_the_budget_come_before_the_plateau():
    table = climbing(a=flat(A), b={**flat(B, 0.1), "60": [*B[:6], "failed"]})
    assert judged({"that": "a - b", "above": 0.05}, table, **LADDER).answer == OPEN
    earlier = climbing(a=flat(A), b={**flat(B), "30": ["not run"] * 7})
    finding = judged({"that": "a - b", "above": 0.05}, earlier, **LADDER)
    assert finding.answer == HOW_MUCH
    assert finding.because == "arm b has no result at epochs=30, so no plateau can be seen at epochs=60"


def test_a_control_whose_arms_still_gain_opens_the_claims():
    table = climbing(a=flat(A, 0.1), b=flat(B), c=flat(B))
    control = {"that": "a", "above": 0.5, "role": "control"}
    found = judge(study({"that": "b - c", "within": 0.05}, control, **LADDER), Evidence(table)).findings
    assert [finding.answer for finding in found] == [OPEN, HOW_MUCH]


def test_seeds_that_solve_are_counted_at_the_last_budget():
    table = climbing(a={"15": solved_of(0, 6), "30": solved_of(6, 6), "60": solved_of(6, 6)},
                     b={"15": solved_of(6, 6), "30": solved_of(0, 6), "60": solved_of(0, 6)})  # fmt: skip
    finding = judged({"that": "a - b", "metric": SOLVED, "above": 0}, table, **LADDER, solved=0.9)
    assert (finding.answer, finding.steps[0].amount.estimate) == (YES, 1.0)


# Effects and predictions.


def test_an_effect_is_measured_at_the_last_budget_and_nothing_is_claimed_of_it():
    table = climbing(a=flat(A, 0.1), b=flat(B), c=flat(B[:6]))
    whole = study({"that": "a - b", "above": 0}, **LADDER, effects={"embed": ["a - b", "a - b - c + b"]})
    first, second = judge(whole, Evidence(table)).effects
    assert (first.rung, first.effect.factor, first.metric.label) == ("60", "embed", "test accuracy")
    assert first.amount.estimate == pytest.approx(A.mean() - B.mean())
    assert second.amount.estimate == pytest.approx(A.mean() - B[:6].mean())
    assert [effect.amount for effect in judge(whole, Evidence(cells(rung="15", a=A))).effects] == [None, None]


def test_an_effect_where_seeds_may_fail_is_of_those_that_solve():
    whole = study({"that": "a", "metric": SOLVED, "above": 0}, solved=0.9, effects={"embed": ["a - b"]})
    [effect] = judge(whole, Evidence(cells(a=solved_of(6, 7), b=solved_of(2, 7)))).effects
    assert effect.amount.estimate == pytest.approx(4 / 7)
    assert effect.metric.label == "seeds that solve the task"


def test_an_effect_of_arms_without_all_their_results_is_not_measured():
    whole = study({"that": "a", "above": 0}, effects={"embed": ["a - b", "a - c"]})
    first, second = judge(whole, Evidence(cells(a=A, b=[*B[:6], "failed"], c=B))).effects
    assert first.amount is None
    assert second.amount is not None


def test_effects_can_answer_a_study_that_claims_nothing():
    given = tree(effects={"embed": ["a - b"]}, decides=())
    assert parse("test", given).statements == []
    del given["parts"]["one"]["effects"]
    with pytest.raises(ValueError, match="nothing answers the question"):
        parse("test", given)


@pytest.mark.parametrize("predicted", ["yes", "no", True, False])  # YAML reads yes as true
@pytest.mark.parametrize(("statement", "answer"), [(HOLDS, YES), (FAILS, NO), (UNSURE, OPEN)])
def test_a_prediction_is_scored_where_an_answer_was_found(statement, answer, predicted):
    finding = judged({**statement, "predicted": predicted}, cells(a=A, b=B))
    expected = {"yes": YES, "no": NO, True: YES, False: NO}[predicted]
    assert finding.as_predicted == (None if answer == OPEN else answer == expected)
    assert judged(statement, cells(a=A, b=B)).as_predicted is None


# Test images.


def answered(rng: np.random.Generator, accuracy: np.ndarray, seeds: int) -> np.ndarray:
    """Draw hits of seeds on images, some of which are hard for all seeds."""
    return rng.random((seeds, len(accuracy))) < accuracy


def test_with_the_answers_to_each_image_the_interval_speaks_of_images_as_well_and_is_wider():
    rng = np.random.default_rng(0)
    images = 400
    right = {arm: answered(rng, np.clip(at + rng.normal(0, 0.2, images), 0, 1), 8)
             for arm, at in (("a", 0.8), ("b", 0.7))}  # fmt: skip
    table = cells(images=images, **{arm: hits.mean(1) for arm, hits in right.items()})
    hits = {f"{arm}{seed}": row for arm, rows in right.items() for seed, row in enumerate(rows)}
    whole = study({"that": "a - b", "above": 0.0}, {"that": "a", "above": 0.5})
    plain, wide = (judge(whole, Evidence(table, hits=known)).findings for known in ({}, hits))
    for one, other in zip(plain, wide, strict=True):
        for level in (0.5, 0.95, 0.9999):
            (low, high), (lower, higher) = (f.steps[0].amount.interval(level) for f in (one, other))
            assert lower <= low < high <= higher
            assert level > 0.99 or lower < low < high < higher
        assert other.steps[0].amount.estimate == pytest.approx(one.steps[0].amount.estimate)
        assert other.p >= one.p
    part = whole.parts[0]
    assert population(part, table, {}) == "all seeds, on these 400 test images"
    assert population(part, table, hits) == "all seeds, and all images of which these 400 test images are a sample"
    some = {identity: row for identity, row in hits.items() if identity != "a0"}
    assert population(part, table, some) == population(part, table, {})
    assert judge(whole, Evidence(table, hits=some)).findings[1].p == plain[1].p, "not known of all seeds of a"


def test_three_seeds_decide_nothing_however_many_images_they_answered():
    rng = np.random.default_rng(0)
    right = {arm: answered(rng, np.full(4000, at), 3) for arm, at in (("a", 0.9), ("b", 0.5))}
    hits = {f"{arm}{seed}": row for arm, rows in right.items() for seed, row in enumerate(rows)}
    table = cells(images=4000, **{arm: rows.mean(1) for arm, rows in right.items()})
    [finding] = judge(study({"that": "a - b", "above": 0.0}), Evidence(table, hits=hits)).findings
    assert finding.answer == OPEN


@pytest.mark.parametrize("images", [(400, 300), (400, 0), (1, 1), (0, 0)])
def test_answers_of_arms_that_saw_other_images_are_not_compared_image_by_image(images):
    rng = np.random.default_rng(0)
    hits = {f"{arm}{i}": rng.random(n) < 0.8 for arm, n in zip("ab", images, strict=True) for i in range(7)}
    statement = {"that": "a - b", "above": 0.0}
    [finding] = judge(study(statement), Evidence(cells(a=A, b=B), hits=hits)).findings
    assert finding.p == judged(statement, cells(a=A, b=B)).p


@pytest.mark.parametrize(("own", "anew"), [(lambda seed: 1.0, True), (lambda seed: 0.0, False),
                                          (lambda seed: (seed > 0).astype(float), False)])  # fmt: skip
def test_a_set_that_is_drawn_anew_for_every_seed_speaks_of_all_its_images(own, anew):
    table = cells(images=400, a=A, b=[*B[:6], "failed"])
    table["test/own_images"] = own(table["seed"])
    said = population(study({"that": "a - b", "above": 0}).parts[0], table, {})
    of_all = "all seeds and all images that the set can draw: each seed has test images of its own"
    assert said == (of_all if anew else "all seeds, on these 400 test images")


# Reading.


def changed(path: str, value: Any) -> dict:
    """Change the value at a path of a valid study.yaml, such as parts.one.chance; the value ... removes the key."""
    given = tree({"that": "a - b", "above": 0.0}, chance=0.1)
    *way, last = path.split(".")
    place = given
    for key in way:
        place = place.setdefault(key, {})
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return copy.deepcopy(given)


def of_statement(**changes: Any) -> dict:
    return {"says": "So.", "that": "a - b", "above": 0.0, **changes}


CHANGE = {"date": "2026-11-26", "what": "All.", "why": "A slip.", "seen": True}


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("question", ..., "question is missing: a study has a question, scales and parts"),
        ("quote", "x", "key 'quote' does not exist: use question, "),
        ("decides", ["nobody"], "decides 'nobody' does not exist: use s0"),
        ("decides", "s0", "decides=s0 must be a list, as in [s0]"),
        ("decides", [], "nothing answers the question: give decides"),
        ("arms", ["a"], "arms=['a'] must be a mapping"),
        ("arms", {}, "parts.one: no arms: give factors"),
        ("arms.a", "embed=a", "arms: a=embed=a must be a list, as in [embed=a]"),
        ("overrides", "x=1", "overrides=x=1 must be a list"),
        ("scales", [1], "scales=[1] must be a mapping"),
        ("scales.cpu", {}, "scales.cpu: seeds=None must be a range, as in 0-9, or a list"),
        ("scales.cpu.seeds", "ten", "scales.cpu: seeds=ten must be a range"),
        ("scales.cpu.seeds", "9-0", "scales.cpu: seeds=9-0 must be a range"),
        ("scales.cpu.seeds", [0, 1, 1], "seeds=[0, 1, 1] must be a range, as in 0-9, or a list, as in [0, 1, 2], each"),
        ("scales.cpu.seeds", "895-900", "scales.cpu: seed 900 is reserved: seeds from 900 on are for pilots"),
        ("scales.cpu.seeds", [3, 999], "scales.cpu: seed 999 is reserved"),
        ("parts.one.seeds", {"gpu": "0-3"}, "parts.one: scale 'gpu' does not exist: use cpu"),
        ("parts.one.seeds", {"cpu": "0-900"}, "parts.one: seeds.cpu: seed 900 is reserved"),
        ("scales.cpu.rungs", "two", "scales.cpu: rungs=two must be a number of budgets"),
        ("tune", True, "tune=True must be false, or values by knob"),
        ("tune", {"optim.lr": 0.1}, "tune.optim.lr=0.1 must be a list, as in [0.1]"),
        ("tune", {"optim.lr": ["fast"]}, "tune.optim.lr=fast must be a number"),
        ("tune_arms", {"a": {"optim.lr": [1e-3]}}, "tune_arms.a has 1 combinations and tune has 6: every arm gets as"),
        ("tune_arms", {"z": {"optim.lr": [1, 2, 3, 4, 5, 6]}}, "tune_arms 'z' does not exist: use a, b, c"),
        ("changes", [{**CHANGE, "date": "soon"}], "changes[0]: date=soon must be a day, as in 2026-11-26"),
        ("changes", [CHANGE, {"what": "All.", "why": "A slip.", "seen": True}], "changes[1]: date is missing"),
        ("changes", [{**CHANGE, "seen": "perhaps"}], "changes[0]: seen=perhaps must be true or false"),
        ("published", [{"figures": {"a": 1}}], "published[0]: source is missing"),
        ("parts", ["one"], "parts=['one'] must be a mapping"),
        ("parts.one", None, "parts.one=None must be a mapping"),
        ("parts.one.chance", "low", "parts.one: chance=low must be a number"),
        ("parts.one.solved", "most", "parts.one: solved=most must be a number"),
        ("parts.one.only", ["gpu"], "parts.one: scale 'gpu' does not exist: use cpu"),
        ("parts.one.ladder", {"epochs": [15]}, "parts.one: ladder must name one knob and at least two values"),
        ("parts.one.ladder", {"epochs": 15}, "parts.one: ladder must name one knob and at least two values"),
        ("parts.one.ladder", {"epochs": [15, 30], "patch": [2, 4]}, "ladder must name one knob"),
        ("parts.one.ladder", {"epochs": [15, 60, 30]}, "ladder.epochs=[15,60,30] must rise"),
        ("parts.one.ladder", {"epochs": [15, 15]}, "ladder.epochs=[15,15] must rise"),
        ("parts.one.ladder", {"epochs": [15, "long"]}, "ladder.epochs=long must be a number"),
        ("parts.one.effects", ["a - b"], "parts.one: effects=['a - b'] must be a mapping"),
        ("parts.one.effects", {"embed": ["a"]}, "parts.one: effects.embed: a is not a difference: give one"),
        ("parts.one.effects", {"embed": ["a - z"]}, "parts.one: effects.embed: arm 'z' does not exist: use a, b, c"),
        ("parts.one.statements", [of_statement()], "parts.one: statements must have names"),
        ("parts.two", {"statements": {"s0": of_statement()}}, "two statements are called s0"),
    ],
)
def test_a_study_that_cannot_be_is_refused_in_one_line_with_the_place_and_the_cure(path, value, said):
    with pytest.raises(ValueError) as refused:  # noqa: PT011
        parse("test", changed(path, value))
    message = str(refused.value)
    assert message.startswith("study test: ")
    assert said in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("statement", "part", "said"),
    [
        ({"that": "a - nobody"}, {}, "arm 'nobody' does not exist: use a, b, c"),
        ({"that": "a-b"}, {}, "arm 'a-b' does not exist: use a, b, c"),
        ({"above": ...}, {}, "give above: margin, or below: margin, or within: margin"),
        ({"within": 1}, {}, "give above: margin"),
        ({"above": ..., "within": -1}, {}, "give above: margin"),
        ({"above": ..., "equals": 1}, {}, "give above: margin"),
        ({"above": "much"}, {}, "above=much must be a number"),
        ({"says": ...}, {}, "says is missing: a statement is a sentence"),
        ({"that": ...}, {}, "give either that: a - b, or order: [least, ..., most]"),
        ({"order": ["a", "b"]}, {}, "give either that"),
        ({"that": ..., "order": ["a"]}, {}, "order must name at least two arms"),
        ({"that": ..., "order": "a b"}, {}, "order=a b must be a list"),
        ({"expect": "yes"}, {}, "key 'expect' does not exist: use says, "),
        ({"predicted": "perhaps"}, {}, "predicted 'perhaps' does not exist: use yes, no"),
        ({"role": "guess"}, {}, "role 'guess' does not exist: use claim, control, aside"),
        ({"withdrawn": True}, {}, "withdrawn=True must be the reason, as a sentence"),
        ({"at": 15}, {}, "at '15' does not exist: there is none"),
        ({"at": 20}, LADDER, "at '20' does not exist: use 15, 30, 60"),
        ({"metric": SOLVED}, {}, "needs a threshold for solving the task, as in solved: 0.9"),
        ({"metric": STEPS}, {}, "needs a threshold for solving the task, as in solved: 0.9"),
        ({"among": SOLVED}, {}, "needs a threshold for solving the task, as in solved: 0.9"),
        ({"among": "all"}, {"solved": 0.9}, "among 'all' does not exist: use solved"),
        ({}, {"solved": 0.9}, "so a mean says little: give metric: solved, or among: solved"),
        ({"that": ..., "order": ["a", "b"]}, {"solved": 0.9}, "so a mean says little"),
        ({"metric": SOLVED, "that": "a - b - c"}, {"solved": 0.9}, "metric solved takes one arm, or a - b"),
        ({"metric": STEPS, "that": "a"}, {"solved": 0.9}, "metric steps_to_solve takes a - b, above or below 0"),
        ({"metric": STEPS, "above": 100}, {"solved": 0.9}, "metric steps_to_solve takes a - b, above or below 0"),
        ({"metric": STEPS, "above": ..., "equals": 50, "within": 50}, {"solved": 0.9}, "takes a - b, above or below 0"),
        ({}, {"solved": 0.9, "effects": {"embed": ["a - b - c + b"]}, "statements": {}}, "two rates are compared"),
    ],
)
def test_a_statement_that_cannot_be_decided_is_refused_in_one_line(statement, part, said):
    body = {key: value for key, value in of_statement(**statement).items() if value is not ...}
    with pytest.raises(ValueError) as refused:  # noqa: PT011
        parse("test", tree(**{"statements": {"s0": body}, **part}))
    message = str(refused.value)
    assert message.startswith("study test: parts.one: ")
    assert said in message
    assert "\n" not in message


@pytest.mark.parametrize(
    "content", ["question: [", "question: a\nquestion: b", "- question", "question", "", "a: ${b", "\t- : x", "\x00"]
)
def test_a_file_that_is_no_study_is_refused_in_one_line_that_names_it(content, tmp_path):
    path = tmp_path / "broken" / "study.yaml"
    path.parent.mkdir()
    path.write_text(content)
    with pytest.raises((ValueError, OSError)) as refused:
        read_study("broken", tmp_path)
    assert "broken" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_study_that_is_not_there_is_refused_with_the_names_of_those_that_are(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"study position: there is no .*study\.yaml; studies are none"):
        read_study("position", tmp_path)


def test_the_content_of_a_study_is_read_as_it_stands():
    given = tree({"that": "a - b", "above": 0.0, "predicted": True, "at": 30}, **LADDER, only=["gpu"], seconds=60)
    given["parts"]["one"]["seeds"] = {"gpu": "0-1"}
    given["scales"]["gpu"] = {"seeds": [5, 3], "overrides": ["trainer=auto"], "rungs": 1}
    given |= {"tune": {"optim.lr": [0.1, 0.2]}, "tune_arms": {"b": {"patch": [2, 4]}}, "changes": [CHANGE]}
    given |= {"published": [{"source": "A paper", "figures": {"a": 61.4}}], "as_recorded": " Old runs. "}
    read = parse("test", given)
    [part] = read.parts
    assert (read.scales["cpu"].seeds, read.scales["gpu"].seeds) == (tuple(range(10)), (5, 3))
    assert (read.scales["gpu"].rungs, part.only, part.seconds) == (1, ("gpu",), 60)
    assert part.seeds == {"gpu": (0, 1)}
    assert part.ladder is not None
    assert (part.ladder.knob, part.ladder.rungs, part.statements[0].at) == ("epochs", ("15", "30", "60"), "30")
    assert (read.grid, read.grids) == ({"optim.lr": (0.1, 0.2)}, {"b": {"patch": (2.0, 4.0)}})
    assert (read.changes[0].date, read.changes[0].seen, read.as_recorded) == ("2026-11-26", True, "Old runs.")
    assert parse("test", tree({"that": "a - b", "above": 0})).grid == GRID
    assert parse("test", {**tree({"that": "a - b", "above": 0}), "tune": False}).grid == {}


def test_arms_are_every_combination_of_the_factors_and_those_that_have_names():
    given = tree({"that": "none/2 - odd", "above": 0})
    given |= {"factors": {"pos": ["none", ["rope", "learned"]], "patch": [2, 4]}, "arms": {"odd": ["patch=3"]}}
    assert parse("test", given).parts[0].arms == {
        "none/2": ("pos=none", "patch=2"),
        "none/4": ("pos=none", "patch=4"),
        "rope+learned/2": ("pos=[rope,learned]", "patch=2"),
        "rope+learned/4": ("pos=[rope,learned]", "patch=4"),
        "odd": ("patch=3",),
    }
