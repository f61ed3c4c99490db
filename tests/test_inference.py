"""Statistics of a few seeds: every interval inverts its test, and every test keeps its error rate."""

import math

import numpy as np
import pytest
from scipy import stats

from patchbench.statistics import calibration
from patchbench.statistics.amounts import amount, difference, over_images, permutation_test, permutations, sum_of_means
from patchbench.statistics.groups import two_groups
from patchbench.statistics.inference import ALPHA, Amount, correct, exact_accuracy, least_seeds, spread
from patchbench.statistics.power import POWER, smallest_effect, standard_effect
from patchbench.statistics.rates import Rate, RateDifference, lower_limits
from patchbench.statistics.times import Median, censored, rank_test_p

LEVELS = (0.5, 0.9, 0.95, 1 - 0.05 / 12)
SEEDS = ((2, 2), (3, 5), (6, 6), (7, 4))


def arms(rng: np.random.Generator, kind: str, n: int) -> np.ndarray:
    return {
        "normal": lambda: rng.normal(0.9, 0.02, n),
        "skewed": lambda: 1 - rng.exponential(0.02, n),
        "counts": lambda: rng.binomial(360, 0.97, n),
        "accuracies": lambda: rng.binomial(360, 0.97, n) / 360,
        "failing": lambda: np.where(rng.random(n) < 0.3, 0.5, 0.99) + rng.normal(0, 0.003, n),
        "all the same": lambda: np.full(n, 0.9),
    }[kind]()


KINDS = ("normal", "skewed", "counts", "accuracies", "failing", "all the same")


def coheres(found: Amount, bounds: np.ndarray, steps: tuple[float, ...]) -> None:
    """Check that a bound lies outside the interval if and only if its p value is small; also next to each limit."""
    for level in LEVELS:
        low, high = found.interval(level)
        assert low <= high
        near = [limit + step for limit in (low, high) if math.isfinite(limit) for step in steps]
        for bound in (*bounds, *near):
            assert (low <= bound <= high) == (found.p(bound) > (1 - level) * (1 + 1e-12)), (level, low, bound, high)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("n", "m"), SEEDS)
def test_the_interval_of_a_difference_is_the_inversion_of_its_test(kind, n, m):
    rng = np.random.default_rng(n)
    for other in (kind, "normal"):
        a, b = arms(rng, kind, n), arms(rng, other, m)
        scale = max(spread(a), spread(b), 1e-3)
        found = difference(a, b)
        bounds = found.estimate + scale * rng.normal(0, 2, 30)
        coheres(found, np.append(bounds, found.estimate), (-1e-6 * scale, 1e-6 * scale))
        low, high = found.interval()
        assert low <= found.estimate <= high
        for level in LEVELS:  # the limits of exchanges are ties, and belong to the interval
            for limit in found.permutation.interval(level):
                if math.isfinite(limit):
                    assert 2 * min(found.permutation.tails(limit)) > (1 - level) * (1 + 1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_the_interval_of_a_sum_is_the_inversion_of_its_test(kind):
    rng = np.random.default_rng(1)
    for signs in ((1,), (1, -1), (1, -1, -1, 1)):
        found = sum_of_means(signs, [arms(rng, kind, n) for n in (6, 5, 7, 2)[: len(signs)]])
        scale = max(found.se, 1e-3)
        bounds = found.estimate + scale * rng.normal(0, 2, 30)
        coheres(found, np.append(bounds, found.estimate), (-1e-6 * scale, 1e-6 * scale))


@pytest.mark.parametrize(("n", "m"), [(2, 3), (4, 4), (3, 6), (5, 5)])
def test_exchanges_are_those_of_scipy_at_every_shift(n, m):
    rng = np.random.default_rng(2)
    for _ in range(5):
        a, b = rng.integers(0, 9, n).astype(float), rng.integers(2, 9, m).astype(float)
        for bound in (-2.0, 0.0, 0.5, 1.0):
            theirs = stats.permutation_test(
                (a - bound, b), lambda x, y, axis: x.mean(axis) - y.mean(axis), vectorized=True, n_resamples=math.inf
            )
            assert min(1, 2 * min(permutation_test(a, b).tails(bound))) == pytest.approx(theirs.pvalue)


def test_equal_counts_tie_however_they_were_rounded():
    rng = np.random.default_rng(3)
    for _ in range(20):
        a, b = rng.binomial(360, 0.97, (2, 6))
        as_told = [(arm / np.float32(360)).astype(np.float32).astype(float) for arm in (a, b)]
        found = difference(*(exact_accuracy(arm, 360) for arm in as_told))
        counted = difference(a, b)
        for images in (-3.0, 0.0, 2.0):
            assert found.p(images / 360) == pytest.approx(counted.p(images))
        assert found.interval() == pytest.approx(np.array(counted.interval()) / 360)


def test_a_sample_of_exchanges_is_near_all_of_them_and_never_promises_more_than_it_saw():
    a, b = np.random.default_rng(4).normal(size=(2, 11))
    assert len(permutations(11, 11)) == 100_000 < math.comb(22, 11)
    assert permutations(11, 11)[0].tolist() == [True] * 11 + [False] * 11
    assert (permutations(11, 11).sum(1) == 11).all()
    found = difference(a, b)
    every = permutations(11, 11, enumerated=10**6)
    shares = every[:, :11] @ a + every[:, 11:] @ b >= a.sum() - 1e-12
    assert found.permutation.tails(0.0)[0] == pytest.approx(shares.mean(), abs=0.01)
    assert min(difference(a + 9, b).permutation.tails(0.0)) == 1 / 100_000


def test_two_arms_are_judged_by_the_weaker_of_two_tests():
    a, b = np.array([0.0, 0, 0, 0, 0, 0]), np.array([1.0, 1, 1, 1, 1, 1])
    assert difference(a, b).p(0.0) == pytest.approx(2 / math.comb(12, 6))  # Welch's t would say 0
    assert difference(a, b).interval() == (-1.0, -1.0)
    rng = np.random.default_rng(5)
    a, b = rng.normal(0, 1, 6), rng.normal(1, 5, 9)
    welch = stats.ttest_ind(a, b, equal_var=False)
    found = difference(a, b)
    assert found.student.p(0.0) == pytest.approx(welch.pvalue)
    assert found.student.interval(0.9) == pytest.approx(tuple(welch.confidence_interval(0.9)))
    assert found.p(0.0) == pytest.approx(max(welch.pvalue, 2 * min(found.permutation.tails(0.0))))
    assert found.seeds == (6, 9)
    assert amount((-1, 1), (b, a)).p(0.0) == found.p(0.0)


def test_one_arm_is_judged_by_students_t():
    values = np.array([0.3, 0.8, 0.2, 0.5, 0.9, 0.4])
    found = sum_of_means((1,), (values,))
    theirs = stats.ttest_1samp(values, 0.4)
    assert found.p(0.4) == pytest.approx(theirs.pvalue)
    assert found.interval() == pytest.approx(tuple(theirs.confidence_interval()))


def test_seeds_that_do_not_differ_are_as_sure_as_so_many_can_be_and_one_seed_says_nothing():
    same = sum_of_means((1,), (np.full(6, 0.9),))
    assert (same.p(0.9), same.interval()) == (1.0, (0.9, 0.9))
    assert same.p(0.91) == difference(np.full(6, 0.9), np.full(6, 0.8)).p(0.0) == pytest.approx(2 / 924)
    few = sum_of_means((1,), (np.full(3, 0.9),))
    assert (few.p(0.1), few.interval(), few.interval(0.9)) == (0.1, (-math.inf, math.inf), (0.9, 0.9))
    alone = amount((1, -1), (np.array([0.9]), np.array([0.1, 0.2])))
    assert (alone.p(0.0), alone.interval()) == (1.0, (-math.inf, math.inf))


@pytest.mark.parametrize("wrong", [[], [0.5, math.nan]])
def test_a_seed_without_a_result_is_refused(wrong):
    with pytest.raises(ValueError, match="each seed needs a finite one"):
        difference(np.array(wrong), np.array([0.1, 0.2]))


def test_six_seeds_decide_the_strictest_of_twelve_claims():
    assert [least_seeds(claims) for claims in (1, 12, 23)] == [4, 6, 6]
    rng = np.random.default_rng(6)
    assert difference(rng.normal(0.95, 0.01, 6), rng.normal(0.85, 0.01, 6)).p(0.0) <= ALPHA / 12


def test_hits_are_judged_over_seeds_and_images():
    rng = np.random.default_rng(7)
    a, b = calibration.NETS["89 % right"].hits(rng, 6, 360)
    found, mirrored = over_images((1, -1), (a, b)), over_images((1, -1), (b, a))
    assert found.estimate == pytest.approx(a.mean() - b.mean())
    assert found.estimate == -mirrored.estimate
    assert found.p(0.01) == pytest.approx(mirrored.p(-0.01))
    assert 0 < found.of_images < 1
    assert found.se > sum_of_means((1, -1), (a.mean(1), b.mean(1))).se
    coheres(found, rng.normal(0, 0.03, 30), (-1e-8, 1e-8))


def test_images_bring_no_variance_where_every_image_is_as_hard_for_both_arms():
    hits = np.random.default_rng(8).random((2, 8, 500)) < np.linspace(0.7, 0.9, 8)[:, None]
    found = over_images((1, -1), tuple(hits))
    by_seed = sum_of_means((1, -1), tuple(hits.mean(2)))
    assert found.of_images < 0.1
    assert found.se == pytest.approx(by_seed.se, rel=0.05)
    one = over_images((1,), (hits[0],))
    assert one.interval()[0] < hits[0].mean() < one.interval()[1]


def test_one_seed_cannot_be_judged_over_images():
    with pytest.raises(ValueError, match="two seeds of each arm"):
        over_images((1,), (np.ones((1, 5), dtype=bool),))


@pytest.mark.parametrize(("solved", "n"), [(0, 6), (6, 6), (5, 10), (1, 2), (29, 30)])
def test_a_rate_has_the_exact_interval_and_test(solved, n):
    rate = Rate(solved, n)
    for bound in (0.1, 0.5, 0.8):
        ways = [stats.binomtest(solved, n, bound, alternative=way).pvalue for way in ("less", "greater")]
        assert rate.p(bound) == pytest.approx(min(1, 2 * min(ways)))
    coheres(rate, np.linspace(-0.1, 1.1, 33), (-1e-6, 1e-6))


@pytest.mark.parametrize(
    ("k", "n", "j", "m"), [(5, 10, 0, 10), (6, 6, 6, 6), (3, 7, 9, 10), (2, 2, 0, 2), (20, 30, 28, 30)]
)
def test_the_interval_of_a_difference_of_rates_is_the_inversion_of_its_test(k, n, j, m):
    found = RateDifference(Rate(k, n), Rate(j, m))
    low, high = found.interval()
    assert low <= found.estimate <= high
    coheres(found, np.linspace(-1.05, 1.05, 22), (-1e-6, 1e-6))
    mirrored = RateDifference(Rate(j, m), Rate(k, n))
    assert mirrored.interval() == pytest.approx((-high, -low), abs=1e-6)
    assert mirrored.p(0.1) == pytest.approx(found.p(-0.1))


def test_rates_that_are_equal_differ_where_barnards_test_says_so():
    for k in range(7):
        for j in range(k):
            theirs = stats.barnard_exact([[k, j], [6 - k, 6 - j]], alternative="greater").pvalue
            ours = RateDifference(Rate(k, 6), Rate(j, 6)).tails(0.0)[0]
            assert (ours <= 0.025) == (theirs <= 0.025)
            assert ours == pytest.approx(theirs, rel=0.7) or theirs > 0.2  # another order of a few tables
    extreme = RateDifference(Rate(10, 10), Rate(5, 10)).tails(0.0)[0]
    theirs = stats.barnard_exact([[10, 5], [0, 5]], alternative="greater").pvalue
    assert extreme == pytest.approx(theirs, rel=1e-4)


@pytest.mark.parametrize("margin", [-0.35, 0.0, 0.2])
def test_the_test_of_rates_is_exact_whatever_the_rates_are(margin):
    n, m = 6, 5
    rejected = np.array(
        [[RateDifference(Rate(k, n), Rate(j, m)).p(margin) <= ALPHA for j in range(m + 1)] for k in range(n + 1)]
    )
    for rate in np.linspace(max(0, -margin), min(1, 1 - margin), 60):
        a, b = stats.binom.pmf(np.arange(n + 1), n, rate + margin), stats.binom.pmf(np.arange(m + 1), m, rate)
        assert a @ rejected @ b <= ALPHA + 1e-9
    assert rejected.any()


def test_more_seeds_that_solve_count_as_more():
    for n in range(2, 31):
        for m in range(2, 31):
            order = lower_limits(n, m)
            assert (np.diff(order, axis=0) >= 0).all(), (n, m)
            assert (np.diff(order, axis=1) <= 0).all(), (n, m)


def test_solved_by_more_seeds_than_there_are_is_refused():
    with pytest.raises(ValueError, match="solved=7 of n=6"):
        Rate(7, 6)


def test_the_median_of_steps_reaches_to_never():
    some = Median(censored(np.array([300.0, 100, math.nan, 200, 900, 150]), 500.0))
    assert some.estimate == 250
    assert some.interval() == (100, math.inf)
    assert some.interval(0.97) == (-math.inf, math.inf)  # six seeds give 96.9 %
    assert some.p(99.0) == 2 / 64
    most = Median(censored(np.array([300.0, math.nan, math.nan]), 500.0))
    assert most.estimate == math.inf
    assert most.interval() == (-math.inf, math.inf)
    for n in (1, 5, 6, 9, 12):
        drawn = Median(np.random.default_rng(n).exponential(100, n).round(-1))
        coheres(drawn, np.arange(-5, 400, 5.0), (0.0, -1e-6, 1e-6))


def test_steps_of_two_arms_are_compared_by_ranks():
    rng = np.random.default_rng(9)
    a, b = rng.random(5), rng.random(6)
    assert rank_test_p(a, b) == pytest.approx(stats.mannwhitneyu(a, b, method="exact").pvalue)
    never = np.full(6, math.inf)
    assert rank_test_p(never, never) == 1.0
    assert rank_test_p(np.arange(6.0), never) == pytest.approx(2 / math.comb(12, 6))
    assert rank_test_p(np.array([1, 2, 3, math.inf]), np.array([1e9, 5, 6, 7])) == rank_test_p(
        np.array([1, 2, 3, 50.0]), np.array([40, 5, 6, 7.0])
    )


@pytest.mark.slow
def test_the_corrected_interval_agrees_with_the_corrected_p():
    rng = np.random.default_rng(10)
    decided = []
    for _ in range(20):
        found = [difference(rng.normal(effect, 1, 6), rng.normal(0, 1, 6)) for effect in (0, 1.5, 2.5, 4, 6)]
        for each, corrected in zip(found, correct([each.p(0.0) for each in found]), strict=True):
            low, high = each.interval(corrected.level)
            assert (low <= 0 <= high) == (corrected.p > ALPHA)
            assert corrected.level >= 1 - ALPHA - 1e-12
            decided.append(corrected.p <= ALPHA)
    assert 0 < np.mean(decided) < 1
    assert correct([]) == []
    assert correct([0.0, 0.01])[0].level == 1 - ALPHA / 2


def test_holms_correction_is_that_of_the_book():
    assert [each.p for each in correct([0.01, 0.04, 0.03, 0.005])] == pytest.approx([0.03, 0.06, 0.06, 0.02])


@pytest.mark.parametrize(
    ("values", "groups"),
    [
        ([0.99, 0.991, 0.985, 0.5, 0.992, 0.99], (1, 5)),
        ([0.99, 0.5, 0.49, 0.5, 0.51, 0.5], (5, 1)),
        ([0.99, 0.98, 0.49, 0.5, 0.51, 0.98], (3, 3)),
        ([0.95, 0.99, 0.49, 0.5, 0.51, 0.96], (3, 3)),
        ([0.99, 0.98, 0.7, 0.5, 0.6, 0.98], None),
        ([1.0, 1.0, 1.0, 1.0, 1.0, 0.9], None),  # barely ten points, by rounding less
        ([1.0, 1.0, 1.0, 1.0, 1.0, 0.997], None),
        ([0.9] * 6, None),
        ([0.9, 0.1], None),
    ],
)
def test_seeds_that_found_the_solution_or_not_are_two_groups(values, groups):
    found = two_groups(np.array(values))
    assert (None if found is None else tuple(map(len, found))) == groups


@pytest.mark.parametrize("shape", ["normal", "uniform", "exponential"])
@pytest.mark.parametrize("n", [4, 6, 10, 20])
def test_seeds_of_one_kind_are_hardly_ever_two_groups(shape, n):
    assert calibration.false_alarm_rate(calibration.ARMS[shape][0], n, 4000) <= 0.005 + 3 * math.sqrt(0.005 / 4000)


@pytest.mark.parametrize(("n", "claims"), [(5, 1), (6, 1), (6, 12), (10, 4)])
def test_the_smallest_effect_is_found_as_often_as_promised(n, claims):
    effect = standard_effect(n, ALPHA / claims)
    rng = np.random.default_rng(11)
    a, b = rng.normal(effect, 1, (1500, n)), rng.normal(0, 1, (1500, n))
    p = np.maximum(calibration.permutation_p_values(a, b), calibration.welch_p_values(a, b))
    assert (p <= ALPHA / claims).mean() == pytest.approx(POWER, abs=0.04)
    assert smallest_effect(n, 2.0, claims) == 2 * effect


def test_too_few_seeds_find_nothing():
    assert smallest_effect(5, 0.01, claims=12) == math.inf
    assert smallest_effect(3, 0.01) == math.inf


def test_the_simulated_rule_is_the_rule():
    rng = np.random.default_rng(12)
    for n, m in ((6, 6), (4, 7)):
        for kind in ("normal", "accuracies", "failing", "all the same"):
            a, b = (np.stack([arms(rng, kind, seeds) for _ in range(10)]).astype(float) for seeds in (n, m))
            p = np.maximum(calibration.permutation_p_values(a, b), calibration.welch_p_values(a, b))
            rule = [difference(x, y).p(0.0) for x, y in zip(a, b, strict=True)]
            assert np.minimum(p, 0.5) == pytest.approx(np.minimum(rule, 0.5))  # above, their tails may lie apart


ALIKE = [name for name in calibration.ARMS if ", flat" not in name and not name.startswith("exponential, ")]


def rarely(share: float, samples: int) -> bool:
    """True if the share of false findings is at most ALPHA, up to the noise of so many samples."""
    return share <= ALPHA + 3 * math.sqrt(ALPHA / samples)


@pytest.mark.parametrize("name", ALIKE)
def test_arms_of_equal_means_rarely_differ(name):
    p = calibration.p_values_of_equal_means(name, 6, 6, 1500)["rule"]
    assert rarely((p <= ALPHA).mean(), 1500)


@pytest.mark.slow
@pytest.mark.parametrize("name", ALIKE)
@pytest.mark.parametrize(("n", "m"), [(10, 10), (6, 10)])
def test_more_arms_of_equal_means_rarely_differ(name, n, m):
    p = calibration.p_values_of_equal_means(name, n, m, 4000)["rule"]
    assert rarely((p <= ALPHA).mean(), 4000)
    assert (p <= ALPHA / 12).mean() <= 3 * ALPHA / 12


@pytest.mark.parametrize("nets", calibration.NETS)
def test_arms_that_are_equal_over_all_images_rarely_differ(nets):
    found = calibration.error_rates_over_images(nets, 6, 360, 150, resamples=100)
    assert rarely(found["rule"], 150)


@pytest.mark.slow
@pytest.mark.parametrize("nets", calibration.NETS)
@pytest.mark.parametrize(("seeds", "images"), [(6, 360), (10, 360), (6, 4000)])
def test_arms_that_are_equal_over_all_images_rarely_differ_in_many_samples(nets, seeds, images):
    found = calibration.error_rates_over_images(nets, seeds, images, 1000, resamples=100)
    assert rarely(found["rule"], 1000)
    if nets.startswith("84"):
        assert found["seeds only"] > 0.1  # seeds alone take the fixed images for all there are


@pytest.mark.parametrize("terms", ["normal", "a - b - c + d, normal"])
def test_sums_of_arms_rarely_differ_from_their_value(terms):
    assert rarely(calibration.error_rate_of_sum(terms, 6, 1000), 1000)
