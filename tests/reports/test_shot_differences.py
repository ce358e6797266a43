"""Differences made by a class loss, compared with scipy and plain loops."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats as scipy_stats

from regcls.metrics import SHOTS
from regcls.reports.shot_differences import differences, of_means
from regcls.reports.shot_subject import cells
from reports.made_up import row_of
from reports.made_up_shots import GROUPS, IMAGES, MadeUp, compared_by_image, in_group, made_up, made_up_sums, squares


def table_of(study: MadeUp) -> pd.DataFrame:
    return differences(study.runs, study.subject.compare, negligible=2.0)


# Means over images.


@pytest.mark.parametrize(("error", "power"), [("mae", 1), ("mse", 2)])
@pytest.mark.parametrize("shot", ["all", "medium", "few"])
def test_a_difference_is_tested_over_seeds_and_images(error: str, power: int, shot: str) -> None:
    study, chosen = made_up(), in_group(shot)
    reg, other = (np.abs(study.errors[[f"{cell}-{seed}" for seed in range(3)]].to_numpy()[chosen]) ** power for cell in (0, 2))
    variance = scipy_stats.sem((reg - other).mean(axis=0)) ** 2 + scipy_stats.sem((reg - other).mean(axis=1)) ** 2
    t = scipy_stats.t(min(3, chosen.sum()) - 1, loc=reg.mean() - other.mean(), scale=math.sqrt(variance))
    found = row_of(table_of(study), classes=100, error=error, shot=shot)
    assert (found["reg"], found["other"], found["gap"]) == pytest.approx((reg.mean(), other.mean(), reg.mean() - other.mean()))
    assert (found["low"], found["high"]) == pytest.approx(t.interval(0.95))
    assert found["p"] == pytest.approx(2 * min(t.cdf(0), t.sf(0)))
    assert (found["images"], found["seeds"]) == (chosen.sum(), 3)


def test_the_gap_is_the_difference_between_the_means_in_the_table() -> None:
    study = made_up()
    table = cells(study.subject, study.runs, study.subject.main.metrics)
    found = row_of(table_of(study), classes=10, error="mse", shot="many")
    by_hand = row_of(table, method="reg")["mse_many"] - row_of(table, classes=10)["mse_many"]
    assert found["gap"] == pytest.approx(by_hand)


def test_p_values_are_adjusted_over_the_whole_table() -> None:
    table = table_of(made_up())
    assert len(table) == 2 * 2 * 4
    by_hand = np.minimum(1, np.maximum.accumulate(np.sort(table["p"]) * np.arange(16, 0, -1)))
    assert np.sort(table["p_holm"]) == pytest.approx(by_hand)


def test_rows_are_sorted_by_error_then_method_and_class_count() -> None:
    table = table_of(made_up())
    expected = [(error, classes, shot) for error in ("mae", "mse") for classes in (10, 100) for shot in SHOTS]
    assert table[["error", "classes", "shot"]].apply(tuple, axis=1).tolist() == expected


def test_only_common_seeds_are_compared() -> None:
    table = table_of(made_up(missing=("0-0", "1-1")))
    assert row_of(table, classes=10, error="mae", shot="all")["seeds"] == 1
    assert row_of(table, classes=100, error="mae", shot="all")["seeds"] == 2


@pytest.mark.parametrize("seeds", [1, 2])
def test_fewer_than_three_seeds_have_a_difference_but_no_test(seeds: int) -> None:
    table = table_of(made_up(seeds))
    assert table["gap"].notna().all() and table[["low", "high", "p", "p_holm"]].isna().all(axis=None)
    assert set(table["answer"]) == {f"n = {seeds}: not tested"}


def test_without_reg_there_is_nothing_to_compare_with() -> None:
    study = made_up()
    assert differences(study.runs.where(method="reg+cls"), study.subject.compare, negligible=2.0).empty


def test_an_empty_group_is_reported_as_empty() -> None:
    study = made_up()
    compare = of_means(lambda run_ids: {"mae": np.abs(study.errors[list(run_ids)].to_numpy().T)}, np.where(GROUPS == "few", "many", GROUPS))
    few = differences(study.runs, compare, negligible=2.0).query("shot == 'few'")
    assert set(few["answer"]) == {"no images"} and few["gap"].isna().all() and set(few["images"]) == {0}


# Ratios of sums: RMSE over pixels, of which an image has many or none.


def by_image(seeds: int = 3, *, missing: tuple[str, ...] = ()) -> pd.DataFrame:
    runs, sums = made_up_sums(seeds, missing=missing)
    return differences(runs, compared_by_image(sums), negligible=2.0)


def rmse(run_id: str, shot: str, images: list[int] | None = None) -> float:
    """RMSE in a loop over images, each counted as often as it is listed."""
    shots = SHOTS[1:] if shot == "all" else (shot,)
    chosen = [
        square for image in (range(IMAGES) if images is None else images) for each in shots for square in squares(run_id)[image, each]
    ]
    return math.sqrt(math.fsum(chosen) / len(chosen))


@pytest.mark.parametrize("shot", SHOTS)
def test_the_gap_of_ratios_is_that_of_their_means_and_tested_over_seeds_and_images(shot: str) -> None:
    reg, other = ([rmse(f"{cell}-{seed}", shot) for seed in range(3)] for cell in (0, 2))
    found = row_of(by_image(), classes=100, shot=shot)
    assert (found["reg"], found["other"], found["gap"]) == pytest.approx((np.mean(reg), np.mean(other), np.mean(reg) - np.mean(other)))
    assert (found["error"], found["images"], found["seeds"]) == ("rmse", IMAGES, 3)
    over_seeds, (low, high) = scipy_stats.sem(np.subtract(reg, other)), found[["low", "high"]]
    over_images = np.std(
        [np.mean([rmse(f"0-{seed}", shot, images) - rmse(f"2-{seed}", shot, images) for seed in range(3)]) for images in leaving_one_out()]
    )
    jackknife = over_images * (IMAGES - 1) / math.sqrt(IMAGES - 1)  # close to the variance from influences
    assert (high - low) / 2 == pytest.approx(scipy_stats.t.ppf(0.975, 2) * math.hypot(over_seeds, jackknife), rel=0.02)


def leaving_one_out() -> list[list[int]]:
    return [[image for image in range(IMAGES) if image != left_out] for left_out in range(IMAGES)]


def test_equal_networks_are_not_tested() -> None:
    runs, sums = made_up_sums(3)
    table = differences(runs, compared_by_image(dict.fromkeys(sums, sums["0-0"])), negligible=2.0)
    assert table["p"].isna().all() and set(table["answer"]) == {"not tested"}


@pytest.mark.parametrize("images, tested", [(1, False), (9, False), (10, True)])
def test_images_without_pixels_of_a_group_do_not_count_for_it(images: int, tested: bool) -> None:
    runs, sums = made_up_sums()
    for of_run in sums.values():
        of_run[:, 3] = of_run[:, 2]
        of_run[images:, 3] = 0
        of_run[:, 1] = 0
    table = differences(runs, compared_by_image(sums), negligible=2.0)
    few, many = (row_of(table, classes=10, shot=shot) for shot in ("few", "many"))
    assert math.isnan(few["p"]) != tested and few["images"] == images
    assert (many["images"], many["answer"]) == (0, "no images") and math.isnan(many["gap"])


def test_ratios_are_compared_over_common_seeds_only() -> None:
    table = by_image(missing=("0-0", "1-1", "2-1", "2-2"))
    assert row_of(table, classes=10, shot="all")["seeds"] == 1
    alone = row_of(table, classes=100, shot="all")
    assert (alone["seeds"], alone["answer"]) == (0, "no runs")
