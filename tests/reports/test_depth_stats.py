import math
from functools import cache

import numpy as np
import pandas as pd
import pytest
from scipy import stats as scipy_stats

from regcls.metrics import SHOTS
from regcls.reports import depth_stats
from regcls.reports.depth_collect import DepthRuns, _by_image, error_columns
from regcls.tasks.depth.metrics import BUCKETS, COLUMNS, errors_of, sums_of
from regcls.tasks.depth.params import DepthShots

IMAGES = 14
LIMITS = DepthShots(many=((10, 29),), medium=((30, 49),))
BY_SHOT = {"all": range(BUCKETS), "many": range(10, 30), "medium": range(30, 50), "few": [*range(10), *range(50, BUCKETS)]}
CELLS = [("reg", 0, np.nan), ("reg+cls", 10, 0.1), ("reg+cls", 100, 1.0)]


@cache
def table_of(cell: int, seed: int) -> pd.DataFrame:
    """Sums of a run: the same pixels for all."""
    counted = np.random.default_rng(1).poisson(2.0, (IMAGES, BUCKETS)).astype(float)
    image, bucket = np.nonzero(counted)
    n = counted[image, bucket]
    each = np.random.default_rng([cell, seed]).uniform(0.2, 3.0 - 0.6 * cell, (len(COLUMNS) - 1, len(n)))
    return pd.DataFrame({"image": image + 4, "bucket": bucket, "n": n} | dict(zip(COLUMNS[1:], each * n, strict=True)))


def made_up(seeds: int = 3, *, missing: tuple[str, ...] = ()) -> DepthRuns:
    """Runs of CELLS; the id of a run is its cell's place and its seed, as in `1-2`."""
    wanted = pd.DataFrame(
        [
            {"method": method, "classes": classes, "lam": lam, "seed": seed, "fingerprint": f"{cell}-{seed}", "run_id": f"{cell}-{seed}"}
            for seed in range(seeds)
            for cell, (method, classes, lam) in enumerate(CELLS)
        ]
    )
    wanted["state"] = np.where(wanted["run_id"].isin(missing), "missing", "finished")
    wanted["run_id"] = wanted["run_id"].where(wanted["state"] == "finished", "")
    ids = wanted.loc[wanted["state"] == "finished", "run_id"].tolist()
    tables = {run_id: table_of(*map(int, run_id.split("-"))) for run_id in ids}
    images = np.arange(IMAGES) + 4
    shots = {"many": LIMITS.buckets("many"), "medium": LIMITS.buckets("medium")}
    errors = {
        run_id: {
            f"{name.rpartition('_')[0]}_{selection}_{name.rpartition('_')[2]}": value
            for name, value in errors_of(sums_of(table), shots)
            for selection in ("val", "test")
        }
        for run_id, table in tables.items()
    }
    return DepthRuns(
        wanted=wanted,
        metrics=pd.DataFrame({"val_rmse_all": [5.0 - int(run_id[0]) for run_id in ids], "val_mae_all": 1.0}, index=ids),
        errors=pd.DataFrame(errors.values(), index=ids, columns=error_columns()),
        images=images,
        by_image={run_id: _by_image(table, images, LIMITS) for run_id, table in tables.items()},
        by_bucket={run_id: sums_of(table) for run_id, table in tables.items()},
    )


@cache
def image_sums(run_id: str, shot: str) -> dict[int, tuple[float, float]]:
    table = table_of(*map(int, run_id.split("-")))
    table = table[table["bucket"].isin(BY_SHOT[shot])]
    return {image: (part["squared"].sum(), part["n"].sum()) for image, part in table.groupby("image")}


def rmse(run_id: str, shot: str, images: list[int] | None = None) -> float:
    """In a loop over images; one counts as often as it is listed."""
    by_image = image_sums(run_id, shot)
    chosen = [by_image[image] for image in (range(4, 4 + IMAGES) if images is None else images) if image in by_image]
    return math.sqrt(sum(squared for squared, _ in chosen) / sum(n for _, n in chosen))


def row_of(table: pd.DataFrame, **where: object) -> pd.Series:
    found = table[np.logical_and.reduce([table[key] == value for key, value in where.items()])]
    assert len(found) == 1
    return found.iloc[0]


def test_a_cell_has_the_mean_and_the_deviation_over_its_seeds() -> None:
    values = [rmse(f"1-{seed}", "few") for seed in range(3)]
    cell = row_of(depth_stats.cells(made_up()), classes=10)
    assert (cell["rmse_val_few"], cell["rmse_val_few_std"]) == pytest.approx((np.mean(values), np.std(values, ddof=1)))


@pytest.mark.parametrize("shot", SHOTS)
def test_the_gap_is_that_of_the_means_and_is_tested_over_seeds(shot: str) -> None:
    reg, other = ([rmse(f"{cell}-{seed}", shot) for seed in range(3)] for cell in (0, 2))
    found = row_of(depth_stats.differences(made_up()), classes=100, shot=shot)
    over_seeds = scipy_stats.ttest_rel(reg, other)
    assert (found["reg"], found["other"], found["gap"]) == pytest.approx((np.mean(reg), np.mean(other), np.mean(reg) - np.mean(other)))
    assert found["p_seeds"] == pytest.approx(over_seeds.pvalue)
    assert (found["low_seeds"], found["high_seeds"]) == pytest.approx(tuple(over_seeds.confidence_interval(0.95)))
    assert (found["images"], found["seeds"]) == (IMAGES, 3)


def test_the_bootstrap_draws_whole_images_for_both_sides_at_once() -> None:
    runs = made_up()
    times = np.random.default_rng(3).multinomial(IMAGES, np.full(IMAGES, 1 / IMAGES), size=200)
    gaps = []
    for draw in times:
        images = np.repeat(runs.images, draw).tolist()
        gaps.append(np.mean([rmse(f"0-{seed}", "medium", images) - rmse(f"1-{seed}", "medium", images) for seed in range(3)]))
    sides = [np.stack([runs.by_image[f"{cell}-{seed}"][:, 2] for seed in range(3)], axis=1) for cell in (0, 1)]
    low, high, p = depth_stats.bootstrap(sides[0], sides[1], times.astype(float))
    assert (low, high) == pytest.approx(tuple(np.quantile(gaps, [0.025, 0.975])))
    assert p == pytest.approx(2 * (1 + min(np.sum(np.array(gaps) <= 0), np.sum(np.array(gaps) >= 0))) / 201)


def test_the_interval_is_that_of_scipys_paired_bootstrap_up_to_chance() -> None:
    runs = made_up(1)
    sides = [runs.by_image[f"{cell}-0"][:, 0] for cell in (0, 1)]

    def gap(*sums: np.ndarray, axis: int) -> np.ndarray:
        n, reg, _, other = (each.sum(axis=axis) for each in sums)
        return np.sqrt(reg / n) - np.sqrt(other / n)

    columns = [side[:, column] for side in sides for column in (0, 1)]
    theirs = scipy_stats.bootstrap(columns, gap, paired=True, method="percentile", n_resamples=9999, rng=np.random.default_rng(5))
    found = row_of(depth_stats.differences(runs), classes=10, shot="all")
    width = theirs.confidence_interval.high - theirs.confidence_interval.low
    assert (found["low"], found["high"]) == pytest.approx(tuple(theirs.confidence_interval), abs=0.1 * width)


def test_the_same_resamples_are_drawn_every_time() -> None:
    pd.testing.assert_frame_equal(depth_stats.differences(made_up()), depth_stats.differences(made_up()))


def test_equal_networks_are_not_tested() -> None:
    runs = made_up(2)
    same = DepthRuns(**(vars(runs) | {"by_image": dict.fromkeys(runs.by_image, runs.by_image["0-0"])}))
    table = depth_stats.differences(same)
    assert table["p"].isna().all() and set(table["answer"]) == {"not tested"}


def test_a_resample_without_such_pixels_is_left_out() -> None:
    sums = np.zeros((4, 1, 2))
    sums[:2, 0] = [[10, 40], [10, 90]]
    times = np.array([[0, 0, 2, 2], [2, 1, 1, 0], [1, 2, 0, 1], [1, 1, 1, 1]], dtype=float)
    low, high, _ = depth_stats.bootstrap(sums, sums * [1, 0.25], times)
    gaps = 0.5 * np.sqrt([170 / 30, 220 / 30, 130 / 20])
    assert (low, high) == pytest.approx(tuple(np.quantile(gaps, [0.025, 0.975])))


@pytest.mark.parametrize("images, tested", [(1, False), (9, False), (10, True)])
def test_a_group_that_few_images_have_is_not_tested_over_images(images: int, tested: bool) -> None:
    runs = made_up()
    for sums in runs.by_image.values():
        sums[:, 3] = sums[:, 2]
        sums[images:, 3] = 0
        sums[:, 1] = 0
    table = depth_stats.differences(runs)
    few, many = (row_of(table, classes=10, shot=shot) for shot in ("few", "many"))
    assert math.isnan(few["p"]) != tested and few["images"] == images and not math.isnan(few["p_seeds"])
    assert (many["images"], many["answer"]) == (0, "no images") and math.isnan(many["gap"])


def test_only_seeds_that_both_have_are_compared() -> None:
    table = depth_stats.differences(made_up(missing=("0-0", "1-1", "2-1", "2-2")))
    assert row_of(table, classes=10, shot="all")["seeds"] == 1
    alone = row_of(table, classes=100, shot="all")
    assert (alone["seeds"], alone["answer"]) == (0, "no runs")


def test_class_counts_are_chosen_by_validation() -> None:
    runs = made_up()
    assert depth_stats.best_by_validation(runs)["classes"].tolist() == [0, 100]
    assert depth_stats.reg_and_best(runs)["classes"].tolist() == [0, 100]
    runs.metrics.loc["2-1", "val_rmse_all"] = 99.0
    assert depth_stats.reg_and_best(runs)["classes"].tolist() == [0, 10]
    assert depth_stats.reg_and_best(made_up(1, missing=("0-0",)))["classes"].tolist() == [100]


def test_the_error_by_depth_is_the_mean_over_seeds_of_each_bucket() -> None:
    runs = made_up()
    lines = depth_stats.error_by_depth(runs, depth_stats.best_by_validation(runs))
    found = row_of(lines, method="reg", depth_from=3.1)
    tables = [table_of(0, seed).query("bucket == 31") for seed in range(3)]
    values = [math.sqrt(table["squared"].sum() / table["n"].sum()) for table in tables]
    assert (found["rmse"], found["std"]) == pytest.approx((np.mean(values), np.std(values, ddof=1)))
    assert (found["pixels"], found["depth_to"], found["seeds"]) == (tables[0]["n"].sum(), 3.2, 3)


def test_the_sizes_of_the_groups_are_counted_in_pixels_and_images() -> None:
    table = table_of(0, 0)
    sizes = depth_stats.group_sizes(made_up())
    assert sizes["all"] == (table["n"].sum(), IMAGES)
    assert sizes["few"] == (table.loc[table["bucket"].isin(BY_SHOT["few"]), "n"].sum(), IMAGES)
