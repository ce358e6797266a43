"""Differences made by a class loss, compared with scipy and plain loops."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats as scipy_stats

from regcls.metrics import SHOTS
from regcls.reports.shot_differences import answer, differences, of_means, of_ratios
from regcls.reports.shot_subject import cells
from regcls.reports.stats import LEVEL, bootstrap
from reports.made_up_shots import GROUPS, IMAGES, MadeUp, compared_by_image, in_group, made_up, made_up_sums, row_of, squares


def table_of(study: MadeUp) -> pd.DataFrame:
    return differences(study.runs, study.subject.compare)


@pytest.mark.parametrize(
    ("gap", "p", "p_seeds", "expected"),
    [
        (1.0, 0.01, 0.01, "helps"),
        (-1.0, 0.01, 0.01, "hurts"),
        (1.0, 0.01, 0.2, "helps as trained"),
        (-1.0, 0.01, math.nan, "hurts as trained"),
        (1.0, 0.2, 0.01, "helps on these images"),
        (1.0, 0.2, math.nan, "not clear"),
        (1.0, math.nan, math.nan, "not tested"),
        (math.nan, math.nan, math.nan, "no runs"),
    ],
)
def test_the_answer_claims_no_more_than_the_tests_show(gap: float, p: float, p_seeds: float, expected: str) -> None:
    assert answer({"gap": gap, "images": 5, "p_holm": p, "p_holm_seeds": p_seeds}) == expected


def test_without_test_images_the_answer_says_so() -> None:
    assert answer({"gap": math.nan, "images": 0, "p_holm": math.nan, "p_holm_seeds": math.nan}) == "no images"


# Means over images.


@pytest.mark.parametrize(("error", "power"), [("mae", 1), ("mse", 2)])
@pytest.mark.parametrize("shot", ["all", "medium", "few"])
def test_a_difference_is_tested_over_images_and_over_seeds(error: str, power: int, shot: str) -> None:
    study, chosen = made_up(), in_group(shot)
    reg, other = (np.abs(study.errors[[f"{cell}-{seed}" for seed in range(3)]].to_numpy()[chosen]) ** power for cell in (0, 2))
    over_images = scipy_stats.ttest_rel(reg.mean(axis=1), other.mean(axis=1))
    over_seeds = scipy_stats.ttest_rel(reg.mean(axis=0), other.mean(axis=0))
    found = row_of(table_of(study), classes=100, error=error, shot=shot)
    assert found["gap"] == pytest.approx(reg.mean() - other.mean())
    assert (found["p"], found["p_seeds"]) == pytest.approx((over_images.pvalue, over_seeds.pvalue))
    assert (found["low"], found["high"]) == pytest.approx(tuple(over_images.confidence_interval(0.95)))
    assert (found["low_seeds"], found["high_seeds"]) == pytest.approx(tuple(over_seeds.confidence_interval(0.95)))
    assert (found["images"], found["seeds"]) == (chosen.sum(), 3)


def test_the_gap_is_the_difference_between_the_means_in_the_table() -> None:
    study = made_up()
    table = cells(study.subject, study.runs, study.subject.main.metrics)
    found = row_of(table_of(study), classes=10, error="mse", shot="many")
    by_hand = row_of(table, method="reg")["mse_many"] - row_of(table, classes=10)["mse_many"]
    assert found["gap"] == pytest.approx(by_hand)


def test_p_values_are_adjusted_over_the_whole_table_for_each_kind() -> None:
    table = table_of(made_up())
    assert len(table) == 2 * 2 * 4
    for p, adjusted in (("p", "p_holm"), ("p_seeds", "p_holm_seeds")):
        ordered = np.sort(table[p])
        by_hand = np.minimum(1, np.maximum.accumulate(ordered * np.arange(16, 0, -1)))
        assert np.sort(table[adjusted]) == pytest.approx(by_hand)


def test_rows_are_sorted_by_error_then_method_and_class_count() -> None:
    table = table_of(made_up())
    expected = [(error, classes, shot) for error in ("mae", "mse") for classes in (10, 100) for shot in SHOTS]
    assert table[["error", "classes", "shot"]].apply(tuple, axis=1).tolist() == expected


def test_only_common_seeds_are_compared() -> None:
    table = table_of(made_up(missing=("0-0", "1-1")))
    assert row_of(table, classes=10, error="mae", shot="all")["seeds"] == 1
    assert row_of(table, classes=100, error="mae", shot="all")["seeds"] == 2


def test_one_seed_is_tested_over_images_only() -> None:
    table = table_of(made_up(1))
    assert table["p"].notna().all() and table["p_seeds"].isna().all() and table["low_seeds"].isna().all()


def test_without_reg_there_is_nothing_to_compare_with() -> None:
    study = made_up()
    assert differences(study.runs.where(method="reg+cls"), study.subject.compare).empty


def test_an_empty_group_is_reported_as_empty() -> None:
    study = made_up()
    compare = of_means(lambda run_ids: {"mae": np.abs(study.errors[list(run_ids)].to_numpy())}, np.where(GROUPS == "few", "many", GROUPS))
    few = differences(study.runs, compare).query("shot == 'few'")
    assert set(few["answer"]) == {"no images"} and few["gap"].isna().all() and set(few["images"]) == {0}


# Ratios of sums: RMSE over pixels, of which an image has many or none.


def by_image(seeds: int = 3, *, missing: tuple[str, ...] = ()) -> pd.DataFrame:
    runs, sums = made_up_sums(seeds, missing=missing)
    return differences(runs, compared_by_image(sums))


def rmse(run_id: str, shot: str, images: list[int] | None = None) -> float:
    """RMSE in a loop over images, each counted as often as it is listed."""
    shots = SHOTS[1:] if shot == "all" else (shot,)
    chosen = [
        square for image in (range(IMAGES) if images is None else images) for each in shots for square in squares(run_id)[image, each]
    ]
    return math.sqrt(math.fsum(chosen) / len(chosen))


@pytest.mark.parametrize("shot", SHOTS)
def test_the_gap_of_ratios_is_that_of_their_means_tested_over_seeds(shot: str) -> None:
    reg, other = ([rmse(f"{cell}-{seed}", shot) for seed in range(3)] for cell in (0, 2))
    found = row_of(by_image(), classes=100, shot=shot)
    over_seeds = scipy_stats.ttest_rel(reg, other)
    assert (found["reg"], found["other"], found["gap"]) == pytest.approx((np.mean(reg), np.mean(other), np.mean(reg) - np.mean(other)))
    assert found["p_seeds"] == pytest.approx(over_seeds.pvalue)
    assert (found["low_seeds"], found["high_seeds"]) == pytest.approx(tuple(over_seeds.confidence_interval(0.95)))
    assert (found["error"], found["images"], found["seeds"]) == ("rmse", IMAGES, 3)


def test_the_bootstrap_resamples_whole_images_jointly() -> None:
    _, sums = made_up_sums()
    times = np.random.default_rng(3).multinomial(IMAGES, np.full(IMAGES, 1 / IMAGES), size=200)
    gaps = []
    for draw in times:
        images = np.repeat(np.arange(IMAGES), draw).tolist()
        gaps.append(np.mean([rmse(f"0-{seed}", "medium", images) - rmse(f"1-{seed}", "medium", images) for seed in range(3)]))
    sides = [np.stack([sums[f"{cell}-{seed}"][:, 2] for seed in range(3)], axis=1) for cell in (0, 1)]
    low, high, p = bootstrap(sides[0], sides[1], times.astype(float))
    assert (low, high) == pytest.approx(tuple(np.quantile(gaps, [0.025, 0.975])))
    assert p == pytest.approx(2 * (1 + min(np.sum(np.array(gaps) <= 0), np.sum(np.array(gaps) >= 0))) / 201)


def test_the_interval_agrees_with_scipys_paired_bootstrap() -> None:
    _, sums = made_up_sums(1)
    sides = [sums[f"{cell}-0"][:, 0] for cell in (0, 1)]

    def gap(*sums: np.ndarray, axis: int) -> np.ndarray:
        n, reg, _, other = (each.sum(axis=axis) for each in sums)
        return np.sqrt(reg / n) - np.sqrt(other / n)

    columns = [side[:, column] for side in sides for column in (0, 1)]
    theirs = scipy_stats.bootstrap(columns, gap, paired=True, method="percentile", n_resamples=9999, rng=np.random.default_rng(5))
    found = row_of(by_image(1), classes=10, shot="all")
    width = theirs.confidence_interval.high - theirs.confidence_interval.low
    assert (found["low"], found["high"]) == pytest.approx(tuple(theirs.confidence_interval), abs=0.1 * width)


def test_the_bootstrap_is_reproducible() -> None:
    pd.testing.assert_frame_equal(by_image(), by_image())


def test_equal_networks_are_not_tested() -> None:
    runs, sums = made_up_sums(2)
    table = differences(runs, compared_by_image(dict.fromkeys(sums, sums["0-0"])))
    assert table["p"].isna().all() and set(table["answer"]) == {"not tested"}


def test_resamples_without_such_pixels_are_left_out() -> None:
    sums = np.zeros((4, 1, 2))
    sums[:2, 0] = [[10, 40], [10, 90]]
    times = np.array([[0, 0, 2, 2], [2, 1, 1, 0], [1, 2, 0, 1], [1, 1, 1, 1]], dtype=float)
    low, high, _ = bootstrap(sums, sums * [1, 0.25], times)
    gaps = 0.5 * np.sqrt([170 / 30, 220 / 30, 130 / 20])
    assert (low, high) == pytest.approx(tuple(np.quantile(gaps, [0.025, 0.975])))


@pytest.mark.parametrize("images, tested", [(1, False), (9, False), (10, True)])
def test_a_group_present_in_few_images_is_not_tested_over_images(images: int, tested: bool) -> None:
    runs, sums = made_up_sums()
    for of_run in sums.values():
        of_run[:, 3] = of_run[:, 2]
        of_run[images:, 3] = 0
        of_run[:, 1] = 0
    table = differences(runs, compared_by_image(sums))
    few, many = (row_of(table, classes=10, shot=shot) for shot in ("few", "many"))
    assert math.isnan(few["p"]) != tested and few["images"] == images and not math.isnan(few["p_seeds"])
    assert (many["images"], many["answer"]) == (0, "no images") and math.isnan(many["gap"])


def test_ratios_are_compared_over_common_seeds_only() -> None:
    table = by_image(missing=("0-0", "1-1", "2-1", "2-2"))
    assert row_of(table, classes=10, shot="all")["seeds"] == 1
    alone = row_of(table, classes=100, shot="all")
    assert (alone["seeds"], alone["answer"]) == (0, "no runs")


@pytest.mark.parametrize("tests", [8, 200])
def test_enough_resamples_for_significance_after_correction(tests: int) -> None:
    _, sums = made_up_sums(1)
    better = {run_id: of_run * (1 if run_id == "0-0" else np.array([1.0, 0.01])) for run_id, of_run in sums.items()}
    compare = of_ratios(better, error="rmse", units=IMAGES, tests=tests)
    found = next(iter(compare(["0-0"], ["1-0"])))
    assert 0 < found["p"] * tests < LEVEL
