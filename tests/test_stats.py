"""What is said of seeds: known cases by enumeration, rates by simulation, and one rule that decides."""

import gc
import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from patchbench.study import claim, verdict
from patchbench.study.stats import (
    ALPHA,
    LEAST_SEEDS,
    POWER,
    bca_estimate,
    detectable,
    holm,
    noise_of_test_set,
    sign_flip_p,
    sign_flip_ps,
    standard_effect,
    t_estimate,
    tost_p,
)

RISING = np.array([0.3, 0.8, 0.2, 0.5, 0.9, 0.4])


@pytest.mark.parametrize(
    ("values", "p"),
    [
        (RISING, 2 / 64),  # six seeds that agree: nothing smaller is possible
        (-RISING, 2 / 64),
        (RISING[:3], 2 / 8),
        (RISING[:5], 2 / 32),
        (np.array([1.0, 2.0, -0.5]), 4 / 8),  # |sum| of 2.5 is reached by +++, ++-, and their opposites
        (np.array([1.0, -1.0]), 1.0),
        (np.zeros(6), 1.0),
    ],
)
def test_sign_flip_p_is_the_share_of_flips_that_go_as_far(values, p):
    assert sign_flip_p(values) == pytest.approx(p)
    assert sign_flip_ps(values[None])[0] == pytest.approx(p)
    assert sign_flip_p(values + 0.7, null=0.7) == pytest.approx(p)


def test_fewer_than_six_seeds_can_support_nothing():
    assert LEAST_SEEDS == 6
    for n in range(2, 10):
        assert (sign_flip_p(np.arange(1.0, n + 1)) <= ALPHA) == (n >= LEAST_SEEDS)


def test_what_was_given_is_not_changed():
    values = RISING.copy()
    sign_flip_p(values, 0.3)
    bca_estimate(values)
    assert (values == RISING).all()


def test_bca_interval_is_that_of_scipy_and_the_same_at_every_call():
    ours = bca_estimate(RISING)
    theirs = stats.bootstrap((RISING,), np.mean, n_resamples=9999, method="BCa", rng=np.random.default_rng(0))
    assert (ours.low, ours.high) == tuple(theirs.confidence_interval)
    assert bca_estimate(RISING) == ours


def test_t_interval_is_that_of_scipy():
    ours, theirs = t_estimate(RISING), stats.ttest_1samp(RISING, 0).confidence_interval()
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high))
    assert ours.sd == pytest.approx(RISING.std(ddof=1))


@pytest.mark.parametrize("estimate", [t_estimate, bca_estimate])
def test_seeds_that_agree_to_the_bit_have_an_interval_without_width_and_one_seed_has_none(estimate):
    same = estimate(np.full(7, 0.1 + 0.2))
    assert same.sd == 0
    assert same.low == same.mean == same.high
    assert math.isnan(estimate(np.array([0.5])).low)
    assert estimate(np.array([])).n == 0


def coverage(estimate, n: int, samples: int) -> float:
    draws = np.random.default_rng(1).normal(0.2, 1.0, (samples, n))
    found = [estimate(row) for row in draws]
    return float(np.mean([e.low <= 0.2 <= e.high for e in found]))


def test_the_t_interval_covers_the_truth_as_often_as_it_says():
    assert coverage(t_estimate, 10, 2000) == pytest.approx(0.95, abs=0.015)


@pytest.mark.parametrize(
    "samples", [200, pytest.param(2000, marks=pytest.mark.slow)]
)  # known: with ten seeds BCa covers about 90 %; so no verdict rests on it alone
def test_the_bca_interval_covers_the_truth_about_as_often_as_is_known_of_it(samples):
    assert 0.90 - 3 * math.sqrt(0.09 / samples) < coverage(bca_estimate, 10, samples) < 0.97


def test_tost_is_two_one_sided_t_tests():
    low = stats.ttest_1samp(RISING, -0.1, alternative="greater").pvalue
    high = stats.ttest_1samp(RISING, 0.9, alternative="less").pvalue
    assert tost_p(RISING, -0.1, 0.9) == pytest.approx(max(low, high))
    assert tost_p(np.zeros(6), -0.01, 0.01) == 0
    assert tost_p(np.full(6, 0.02), -0.01, 0.01) == 1


def test_holm_multiplies_the_smallest_by_their_number_and_never_lets_a_later_one_overtake():
    assert holm(np.array([0.01, 0.04, 0.03])) == pytest.approx([0.03, 0.06, 0.06])
    assert holm(np.array([0.2])) == pytest.approx([0.2])
    assert len(holm(np.array([]))) == 0


@pytest.mark.parametrize(("n", "comparisons"), [(6, 1), (8, 3), (10, 1), (10, 5), (14, 2)])
def test_an_effect_is_found_as_often_as_the_power_calculation_promises(n, comparisons):
    effect = detectable(n, 2.0, comparisons)
    draws = np.random.default_rng(7).normal(effect, 2.0, (1500, n))
    few = draws if n <= 10 else draws[:300]
    found = np.mean(sign_flip_ps(few) <= ALPHA / comparisons)
    assert found == pytest.approx(POWER, abs=0.05 if n <= 10 else 0.08)


def test_where_no_seed_could_tell_no_difference_is_promised():
    assert detectable(5, 1.0) == math.inf
    assert detectable(10, 1.0, comparisons=26) == math.inf  # 2/1024 * 26 is above 5 %
    assert detectable(10, 1.0, comparisons=25) < math.inf
    assert detectable(10, 0.0) == 0
    assert standard_effect(6, ALPHA) > standard_effect(10, ALPHA) > standard_effect(20, ALPHA)


def test_noise_of_a_test_set_of_ten_thousand_is_a_quarter_of_a_point_at_94_percent():
    assert noise_of_test_set(0.94, 10_000.0) == pytest.approx(0.0023749, rel=1e-4)
    assert noise_of_test_set(0.5, 100.0) == pytest.approx(0.05)


def study(*comparisons: dict, arms: str = "a b c", chance: float | None = None) -> claim.Study:
    tree = {
        "question": "q",
        "quote": "c",
        "source": "s",
        "expect": "supported",
        "means": {"supported": "yes", "refuted": "no"},
        "scales": {"cpu": {"seeds": "0-9"}},
        "arms": {arm: [f"embed={arm}"] for arm in arms.split()},
        "parts": {
            "one": {
                "chance": chance,
                "comparisons": [{"says": "so", "expect": "supported", **comparison} for comparison in comparisons],
            }
        },
    }
    return claim.parse("test", tree)


def cells(**scores) -> pd.DataFrame:
    """One row per arm and seed; a score that is a word is a status."""
    rows = []
    for arm, values in scores.items():
        for seed, value in enumerate(values):
            done = not isinstance(value, str)
            status, score = ("done", value) if done else (value, math.nan)
            rows.append({"part": "one", "arm": arm, "seed": seed, "status": status, "test/acc": score})
    return pd.DataFrame(rows)


NOISE = np.array([0.3, -0.8, 0.2, 0.5, -0.9, 0.4, -0.3, 0.7, 0.1, -0.2]) / 100  # ten seeds, a mean of zero
A, B = 0.8 + NOISE, 0.7 + NOISE[::-1] / 2


@pytest.mark.parametrize(
    ("comparison", "scores", "expected"),
    [
        ({"that": "a - b", "above": 0.05}, {"a": A, "b": B}, "supported"),
        ({"that": "a - b", "above": 0.15}, {"a": A, "b": B}, "refuted"),
        ({"that": "a - b", "above": 0.10}, {"a": A, "b": B}, "undetermined"),
        ({"that": "b - a", "below": -0.05}, {"a": A, "b": B}, "supported"),
        ({"that": "b - a", "above": 0.0}, {"a": A, "b": B}, "refuted"),
        ({"that": "a - b", "above": 0.05}, {"a": A[:5], "b": B[:5]}, "undetermined"),
        ({"that": "a - b", "above": 0.05}, {"a": A[:6], "b": B[:6]}, "supported"),
        ({"that": "a - b", "within": 0.02}, {"a": A, "b": A + NOISE[::-1] / 2}, "supported"),
        ({"that": "a - b", "within": 0.02}, {"a": A[:5], "b": A[:5]}, "undetermined"),
        ({"that": "a - b", "within": 0.02}, {"a": A, "b": A}, "supported"),
        ({"that": "a - b", "within": 0.02}, {"a": A, "b": B}, "refuted"),
        ({"that": "a - b", "within": 0.0005}, {"a": A, "b": A + NOISE}, "undetermined"),
        ({"that": "a", "equals": 0.8, "within": 0.03}, {"a": A}, "supported"),
        ({"that": "a", "equals": 0.5, "within": 0.03}, {"a": A}, "refuted"),
        ({"that": "a - b - c + b", "above": 0.05}, {"a": A, "b": B, "c": B}, "supported"),
        ({"order": ["c", "b", "a"]}, {"a": A, "b": B, "c": B - 0.1}, "supported"),
        ({"order": ["a", "b", "c"]}, {"a": A, "b": B, "c": B - 0.1}, "refuted"),
        ({"order": ["c", "b", "a"]}, {"a": A, "b": B, "c": B + NOISE}, "undetermined"),
        ({"that": "a - b", "above": 0.05}, {"a": A, "b": [*B[:9], "failed"]}, "undetermined"),
        ({"that": "a - b", "above": 0.05}, {"a": A, "b": [*B[:9], "not run"]}, "undetermined"),
        ({"that": "a - b", "above": 0.05}, {"a": A, "b": [*B[:9], "diverged"]}, "undetermined"),
    ],
)
def test_the_interval_decides(comparison, scores, expected):
    judged = verdict.judge(study(comparison), cells(**scores))
    [finding] = judged.findings
    assert finding.verdict == judged.verdict == expected, finding
    assert finding.because in judged.because or expected != "undetermined"


def test_a_diverged_run_counts_as_guessing_where_it_is_known_what_guessing_gives():
    scores = cells(a=A, b=[*B[:9], "diverged"])
    [finding] = verdict.judge(study({"that": "a - b", "above": 0.05}, chance=0.1), scores).findings
    assert finding.steps[0].values[-1] == pytest.approx(A[-1] - 0.1)
    assert finding.verdict == "supported"


def test_a_mean_far_off_decides_nothing_while_the_seeds_disagree():
    scores = cells(a=[0.9, 0.9, 0.9, 0.9, 0.2, 0.9], b=[0.5, 0.5, 0.5, 0.5, 0.9, 0.5])
    assert verdict.judge(study({"that": "a - b", "above": 0.0}), scores).verdict == "undetermined"


def test_pairs_are_made_by_seed_whatever_the_order_of_the_rows():
    whole = study({"that": "a - b", "within": 0.001})
    scores = cells(a=A, b=A).sample(frac=1, random_state=0)
    assert verdict.judge(whole, scores).findings[0].steps[0].estimate.sd == 0


def test_metrics_can_be_subtracted_within_a_run():
    scores = cells(a=A, b=B)
    scores["test/cut/acc"] = scores["test/acc"] - np.where(scores["arm"] == "a", 0.1, 0.02)
    inside_minus_cut = study({"that": "a - b", "above": 0.05, "metric": "test/acc - test/cut/acc"})
    [finding] = verdict.judge(inside_minus_cut, scores).findings
    assert finding.steps[0].estimate.mean == pytest.approx(0.08)
    assert finding.verdict == "supported"


def test_a_metric_can_be_taken_in_doublings():
    scores = cells(a=A, b=A).assign(time=lambda rows: np.where(rows["arm"] == "a", 8.0, 2.0))
    four_times = study({"that": "a - b", "equals": 2.0, "within": 0.01, "metric": "log2(time)"})
    [finding] = verdict.judge(four_times, scores).findings
    assert finding.steps[0].estimate.mean == pytest.approx(2.0)
    assert finding.verdict == "supported"


def test_the_more_is_stated_the_more_must_be_shown():
    scores = cells(a=A[:6] + 0.1, b=A[:6] + NOISE[:6], c=B[:6])
    alone = study({"that": "a - b", "above": 0.0})
    together = study({"that": "a - b", "above": 0.0}, {"that": "a - c", "above": 0.0})
    assert verdict.judge(alone, scores).verdict == "supported"  # p = 2/64
    assert verdict.judge(together, scores).verdict == "undetermined"  # p = 2 * 2/64


HOLDS, FAILS = {"that": "a - b", "above": 0.05}, {"that": "a - b", "above": 0.15}
OPEN = {"that": "a - b", "above": 0.1}


@pytest.mark.parametrize(
    ("comparisons", "expected"),
    [
        ([HOLDS, HOLDS], "supported"),
        ([HOLDS, FAILS], "refuted"),
        ([OPEN, FAILS], "refuted"),
        ([HOLDS, OPEN], "undetermined"),
        ([HOLDS, {**HOLDS, "role": "control"}], "supported"),
        ([HOLDS, {**FAILS, "role": "control"}], "undetermined"),
        ([FAILS, {**FAILS, "role": "control"}], "undetermined"),
        ([HOLDS, {**OPEN, "role": "control"}], "undetermined"),
        ([FAILS, {**OPEN, "role": "control"}], "refuted"),
        ([HOLDS, {**FAILS, "role": "aside"}], "supported"),
    ],
)
def test_a_claim_stands_by_all_its_statements_and_falls_by_one(comparisons, expected):
    assert verdict.judge(study(*comparisons), cells(a=A, b=B)).verdict == expected


@pytest.fixture(scope="module", autouse=True)
def _light_collections() -> None:
    """statsmodels collects garbage in every call: let it not go through what earlier tests left."""
    gc.collect()
    gc.freeze()


def rate(samples: int, effect: float, n: int, comparison: dict, said: str) -> float:
    """How often the whole rule says so of two arms whose true difference is `effect`."""
    draw = np.random.default_rng(3)
    whole, found = study(comparison), 0
    for _ in range(samples):
        scores = cells(a=0.7 + effect + draw.normal(0, 0.01, n), b=0.7 + draw.normal(0, 0.01, n))
        found += verdict.judge(whole, scores).verdict == said
    return found / samples


@pytest.mark.parametrize("samples", [30, pytest.param(1000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("n", [6, 10])
def test_identical_arms_are_not_found_to_differ_more_often_than_alpha(n, samples):
    limit = ALPHA + 2 * math.sqrt(ALPHA * (1 - ALPHA) / samples)
    assert rate(samples, 0.0, n, {"that": "a - b", "above": 0.0}, "supported") <= limit
    assert rate(samples, 0.0, n, {"that": "a - b", "within": 0.002}, "refuted") <= limit


@pytest.mark.parametrize("samples", [30, pytest.param(1000, marks=pytest.mark.slow)])
def test_arms_that_differ_by_the_margin_are_not_found_equal_more_often_than_alpha(samples):
    limit = ALPHA + 2 * math.sqrt(ALPHA * (1 - ALPHA) / samples)
    assert rate(samples, 0.02, 10, {"that": "a - b", "within": 0.02}, "supported") <= limit


@pytest.mark.parametrize("samples", [30, pytest.param(600, marks=pytest.mark.slow)])
@pytest.mark.parametrize("n", [6, 10])
def test_a_planted_effect_is_found_at_the_size_that_the_power_calculation_promises(n, samples):
    effect = detectable(n, 0.01 * math.sqrt(2))
    found = rate(samples, effect, n, {"that": "a - b", "above": 0.0}, "supported")
    assert found == pytest.approx(POWER, abs=3 * math.sqrt(0.16 / samples))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"that": "a - nobody", "above": 0}, "'nobody' is none of a, b, c"),
        ({"that": "a - b"}, "give above: margin"),
        ({"that": "a - b", "above": 0, "within": 1}, "give above: margin"),
        ({"that": "a - b", "within": -1}, "give above: margin"),
        ({"above": 0}, "either that"),
        ({"that": "a - b", "above": 0, "expects": "x"}, "'expects' is none of"),
        ({"that": "a - b", "above": 0, "expect": "yes"}, "'yes' is none of supported"),
        ({"that": "a - b", "above": 0, "role": "aside"}, "no comparison has role: claim"),
    ],
)
def test_a_study_that_cannot_be_is_refused_in_one_line_that_says_where(change, said):
    with pytest.raises(ValueError, match=said) as refused:
        study(change)
    assert "study test" in str(refused.value)
    assert "\n" not in str(refused.value)
