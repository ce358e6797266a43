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


def test_one_repetition_has_a_gap_but_no_test() -> None:
    test = stats.paired([0.4], [0.3])
    assert test.n == 1 and test.gap == pytest.approx(0.1) and math.isnan(test.p) and math.isnan(test.low)


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


def test_the_verdict_follows_from_adjusted_p_and_sign_of_the_gap() -> None:
    row = {"gap": 0.1, "p_holm": 0.049, "relative": -2.0, "relative_p_holm": 0.05}
    assert stats.verdict(row) == "helps" and stats.verdict(row | {"gap": -0.1}) == "hurts"
    assert stats.verdict(row, gap="relative", p="relative_p_holm") == "not clear"
    assert stats.verdict(row | {"p_holm": math.nan}) == "not tested"
