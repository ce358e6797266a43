import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats as scipy_stats

from regcls.reports import faces_stats
from regcls.reports.faces_collect import ImageRuns

TARGETS = np.array([5.0, 30.0, 31.0, 32.0, 70.5, 71.0, 90.0, 91.0])
SHOTS = np.array(["medium", "many", "many", "many", "medium", "medium", "few", "few"])
CELLS = [("reg", 0, np.nan), ("reg+cls", 10, 1.0), ("reg+cls", 100, 0.1)]


def made_up(seeds: int = 3, *, missing: tuple[str, ...] = ()) -> ImageRuns:
    """Runs of CELLS; the id of a run is its cell's place and its seed, as in `1-2`."""
    rng = np.random.default_rng(3)
    wanted = pd.DataFrame(
        [
            {"method": method, "classes": classes, "lam": lam, "seed": seed, "fingerprint": f"{cell}-{seed}", "run_id": f"{cell}-{seed}"}
            for seed in range(seeds)
            for cell, (method, classes, lam) in enumerate(CELLS)
        ]
    )
    wanted["state"] = np.where(wanted["run_id"].isin(missing), "missing", "finished")
    wanted["run_id"] = wanted["run_id"].where(wanted["state"] == "finished", "")
    ids = wanted.loc[wanted["state"] == "finished", "run_id"]
    errors = pd.DataFrame({run_id: rng.normal(0, 8 - 2 * int(run_id[0]), len(TARGETS)) for run_id in ids})
    metrics = pd.DataFrame(
        {
            f"{split}_{error}_{shot}": [float(np.mean(np.abs(errors.loc[chosen, run_id]) ** power)) for run_id in ids]
            for split in ("val", "test")
            for error, power in (("mae", 1), ("mse", 2))
            for shot in ("all", "many", "medium", "few")
            for chosen in [np.ones(8, bool) if shot == "all" else shot == SHOTS]
        },
        index=ids,
    )
    images = pd.DataFrame({"target": TARGETS, "age": np.floor(TARGETS).astype(int), "shot": SHOTS})
    return ImageRuns(wanted=wanted, metrics=metrics, images=images, errors=errors)


def row_of(table: pd.DataFrame, **where: object) -> pd.Series:
    found = table[np.logical_and.reduce([table[key] == value for key, value in where.items()])]
    assert len(found) == 1
    return found.iloc[0]


def test_a_cell_has_the_mean_and_the_deviation_over_its_seeds() -> None:
    runs = made_up()
    values = runs.metrics["test_mae_few"].loc[["1-0", "1-1", "1-2"]]
    cell = row_of(faces_stats.cells(runs, "test"), classes=10)
    assert (cell["mae_few"], cell["mae_few_std"]) == pytest.approx((np.mean(values), np.std(values, ddof=1)))
    assert (cell["seeds"], cell["seeds_wanted"]) == (3, 3) and math.isnan(cell["gm_few"])


def test_a_cell_without_runs_is_there_and_empty() -> None:
    cell = row_of(faces_stats.cells(made_up(1, missing=("2-0",)), "test"), classes=100)
    assert cell["seeds"] == 0 and math.isnan(cell["mae_all"])


@pytest.mark.parametrize(("error", "power"), [("mae", 1), ("mse", 2)])
@pytest.mark.parametrize("shot", ["all", "medium", "few"])
def test_a_difference_is_tested_over_images_and_over_seeds(error: str, power: int, shot: str) -> None:
    runs = made_up()
    chosen = np.ones(8, bool) if shot == "all" else shot == SHOTS
    reg, other = (np.abs(runs.errors[[f"{cell}-{seed}" for seed in range(3)]].to_numpy()[chosen]) ** power for cell in (0, 2))
    over_images = scipy_stats.ttest_rel(reg.mean(axis=1), other.mean(axis=1))
    over_seeds = scipy_stats.ttest_rel(reg.mean(axis=0), other.mean(axis=0))
    found = row_of(faces_stats.differences(runs), classes=100, error=error, shot=shot)
    assert found["gap"] == pytest.approx(reg.mean() - other.mean())
    assert (found["p"], found["p_seeds"]) == pytest.approx((over_images.pvalue, over_seeds.pvalue))
    assert (found["low"], found["high"]) == pytest.approx(tuple(over_images.confidence_interval(0.95)))
    assert (found["low_seeds"], found["high_seeds"]) == pytest.approx(tuple(over_seeds.confidence_interval(0.95)))
    assert (found["images"], found["seeds"]) == (chosen.sum(), 3)


def test_the_gap_is_the_difference_of_the_tracked_means() -> None:
    runs = made_up()
    cells = faces_stats.cells(runs, "test")
    found = row_of(faces_stats.differences(runs), classes=10, error="mse", shot="many")
    by_hand = row_of(cells, method="reg")["mse_many"] - row_of(cells, classes=10)["mse_many"]
    assert found["gap"] == pytest.approx(by_hand)


def test_p_values_are_adjusted_over_the_whole_table_and_by_kind() -> None:
    table = faces_stats.differences(made_up())
    assert len(table) == 2 * 2 * 4
    for p, adjusted in (("p", "p_holm"), ("p_seeds", "p_holm_seeds")):
        ordered = np.sort(table[p])
        by_hand = np.minimum(1, np.maximum.accumulate(ordered * np.arange(16, 0, -1)))
        assert np.sort(table[adjusted]) == pytest.approx(by_hand)


def test_only_seeds_that_both_have_are_compared() -> None:
    table = faces_stats.differences(made_up(missing=("0-0", "1-1")))
    assert row_of(table, classes=10, error="mae", shot="all")["seeds"] == 1
    assert row_of(table, classes=100, error="mae", shot="all")["seeds"] == 2


def test_one_seed_is_tested_over_images_alone() -> None:
    table = faces_stats.differences(made_up(1))
    assert table["p"].notna().all() and table["p_seeds"].isna().all() and table["low_seeds"].isna().all()


def test_the_class_count_is_chosen_by_validation_and_not_among_thin_means() -> None:
    runs = made_up()
    runs.metrics["val_mse_all"] = [9, 9, 1, 9, 2, 5, 9, 2, 1]  # by seed, then by cell
    assert faces_stats.best_by_validation(runs)["classes"].tolist() == [0, 100]
    thin = made_up(missing=("2-1",))
    thin.metrics["val_mse_all"] = 5.0
    thin.metrics.loc["2-0", "val_mse_all"] = 0.0
    assert faces_stats.best_by_validation(thin)["classes"].tolist() == [0, 10]


def test_the_error_by_age_is_the_mean_over_seeds_of_each_bin() -> None:
    runs = made_up()
    lines = faces_stats.error_by_age(runs, faces_stats.best_by_validation(runs), 5)
    found = row_of(lines, method="reg", age_from=70)
    by_seed = [np.mean(np.abs(runs.errors.loc[[4, 5], f"0-{seed}"])) for seed in range(3)]
    assert (found["mae"], found["std"]) == pytest.approx((np.mean(by_seed), np.std(by_seed, ddof=1)))
    assert found["images"] == 2 and lines.loc[lines["method"] == "reg", "age_from"].tolist() == [5, 30, 70, 90]


@pytest.mark.parametrize(("ages", "width"), [([0, 100], 5), ([3, 9], 1), ([-40, 170], 10), ([0, 5000], 160)])
def test_the_bins_of_ages_fit_their_range(ages: list[int], width: int) -> None:
    assert faces_stats.bin_width(np.array(ages)) == width


def test_the_sizes_of_the_groups_are_counted_in_images_and_ages() -> None:
    assert faces_stats.group_sizes(made_up().images) == {"all": (8, 8), "many": (3, 3), "medium": (3, 3), "few": (2, 2)}
