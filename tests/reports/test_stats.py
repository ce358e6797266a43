import math

import numpy as np
import pytest
from scipy import stats as scipy_stats

from regcls.reports import stats


def test_the_paired_test_is_a_one_sample_test_of_the_differences() -> None:
    reg, other = [0.40, 0.35, 0.41, 0.38, 0.44], [0.31, 0.33, 0.30, 0.36, 0.29]
    ours = stats.paired(reg, other)
    theirs = scipy_stats.ttest_1samp(np.subtract(reg, other), 0.0)
    half = scipy_stats.t.ppf(0.975, 4) * np.std(np.subtract(reg, other), ddof=1) / math.sqrt(5)
    assert ours.p == pytest.approx(theirs.pvalue)
    assert (ours.low, ours.high) == pytest.approx((ours.gap - half, ours.gap + half))
    assert ours.n == 5 and ours.gap == pytest.approx(0.078)


@pytest.mark.parametrize("n", [1, 2])
def test_fewer_than_three_replicates_have_a_gap_but_no_test(n: int) -> None:
    test = stats.paired([0.4, 0.5][:n], [0.3, 0.39][:n])
    assert test.n == n and test.gap == pytest.approx([0.1, 0.105][n - 1]) and math.isnan(test.p) and math.isnan(test.low)
    assert all(map(math.isnan, stats.two_way(np.random.default_rng(0).normal(5.0, 1.0, (n, 50)))))


def test_no_repetition_has_neither_gap_nor_test() -> None:
    assert math.isnan(stats.paired([], []).gap)


def test_differences_without_spread_are_not_tested() -> None:
    assert math.isnan(stats.paired([0.4, 0.5, 0.6], [0.3, 0.4, 0.5]).p)


def test_holm_gives_the_textbook_values() -> None:
    assert stats.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_holm_counts_only_tests_that_were_performed() -> None:
    adjusted = stats.holm([0.02, math.nan, 0.6])
    assert adjusted[0] == pytest.approx(0.04) and math.isnan(adjusted[1]) and adjusted[2] == pytest.approx(0.6)
    assert stats.holm([]).tolist() == []


@pytest.mark.parametrize(
    ("gap", "p", "n", "expected"),
    [
        (0.1, 0.0499, 3, "helps"),
        (-0.1, 0.0499, 3, "hurts"),
        (0.1, 0.05, 3, "not clear"),
        (0.1, math.nan, 2, "n = 2: not tested"),
        (0.0, math.nan, 3, "not tested"),
        (math.nan, math.nan, 0, "no runs"),
    ],
)
def test_the_verdict_follows_from_adjusted_p_and_sign_of_the_gap(gap: float, p: float, n: int, expected: str) -> None:
    assert stats.verdict(gap, p, n) == expected


# Seeds and images as samples.


def drawn(rng: np.random.Generator, *, seeds: int, images: int, by_seed: float, by_image: float, gap: float = 0.0) -> np.ndarray:
    """Effects (S, T) with random effects of seeds and images, of these standard deviations, and noise of standard deviation 1."""
    effects = gap + rng.normal(0, 1, (seeds, images))
    return effects + rng.normal(0, by_seed, (seeds, 1)) + rng.normal(0, by_image, (1, images))


def test_without_effects_of_images_the_test_is_that_over_seeds() -> None:
    by_seed = np.array([0.3, 0.1, 0.5, 0.2])
    low, high, p = stats.two_way(np.repeat(by_seed[:, None], 60, axis=1))
    theirs = scipy_stats.ttest_1samp(by_seed, 0.0)
    assert p == pytest.approx(theirs.pvalue) and (low, high) == pytest.approx(tuple(theirs.confidence_interval(0.95)))


@pytest.mark.parametrize("seed", range(20))
def test_a_difference_is_never_clearer_than_over_seeds_alone(seed: int) -> None:
    """However well three seeds happen to agree, the images still count."""
    effects = drawn(np.random.default_rng(seed), seeds=3, images=40, by_seed=0.2, by_image=1.0, gap=0.5)
    low, high, p = stats.two_way(effects)
    over_seeds = scipy_stats.ttest_1samp(effects.mean(axis=1), 0.0)
    assert p > over_seeds.pvalue and high - low > over_seeds.confidence_interval(0.95).high - over_seeds.confidence_interval(0.95).low


@pytest.mark.parametrize(("by_seed", "by_image"), [(0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (1.0, 1.0), (0.2, 3.0)])
def test_where_there_is_no_difference_at_most_five_percent_become_clear(by_seed: float, by_image: float) -> None:
    rng = np.random.default_rng(7)
    p = [stats.two_way(drawn(rng, seeds=3, images=30, by_seed=by_seed, by_image=by_image))[2] for _ in range(600)]
    assert np.mean(np.array(p) < 0.05) < 0.05 + 2 * math.sqrt(0.05 * 0.95 / 600)


def test_a_large_difference_becomes_clear_and_its_interval_covers_it() -> None:
    rng = np.random.default_rng(8)
    tests = [stats.two_way(drawn(rng, seeds=5, images=100, by_seed=0.3, by_image=0.5, gap=2.0)) for _ in range(200)]
    assert all(p < 0.05 for _, _, p in tests) and np.mean([low < 2.0 < high for low, high, _ in tests]) >= 0.95


def test_two_way_needs_images_and_spread() -> None:
    assert math.isnan(stats.two_way(np.ones((3, 1)))[2]) and math.isnan(stats.two_way(np.ones((3, 9)))[2])
    assert math.isnan(stats.two_way(np.empty((3, 0)))[2])


def test_the_influence_of_an_image_is_the_derivative_of_the_rmse_by_its_weight() -> None:
    rng = np.random.default_rng(4)
    sums = np.stack([rng.integers(1, 50, (2, 6)), rng.uniform(1, 90, (2, 6))], axis=2)
    rmse, influence = stats.root_mean_squares(sums)
    assert rmse == pytest.approx(np.sqrt(sums[..., 1].sum(axis=1) / sums[..., 0].sum(axis=1)))
    for image in range(6):
        weights = np.ones(6)
        weights[image] += 1e-6
        weighted = np.sqrt((sums[..., 1] @ weights) / (sums[..., 0] @ weights))
        assert influence[:, image] / 6 == pytest.approx((weighted - rmse) / 1e-6, rel=1e-4)
    assert influence.mean(axis=1) == pytest.approx(0.0, abs=1e-9)


def test_the_interval_of_rmse_agrees_with_a_bootstrap_over_images() -> None:
    """With equal seeds, whose number only sets the degrees of freedom."""
    rng = np.random.default_rng(5)
    sizes, squared = rng.poisson(40, 60).astype(float), rng.uniform(0.5, 1.5, 60)
    sums = np.stack([sizes, sizes * squared], axis=1)
    rmse, influence = stats.root_mean_squares(np.stack([sums] * 30))
    low, high, _ = stats.two_way(rmse[:, None] + influence)

    def root(n: np.ndarray, total: np.ndarray, axis: int) -> np.ndarray:
        return np.sqrt(total.sum(axis=axis) / n.sum(axis=axis))

    theirs = scipy_stats.bootstrap(
        (sums[:, 0], sums[:, 1]), root, paired=True, vectorized=True, n_resamples=9999, method="percentile", rng=rng
    )
    width = theirs.confidence_interval.high - theirs.confidence_interval.low
    assert (low, high) == pytest.approx(tuple(theirs.confidence_interval), abs=0.1 * width)
