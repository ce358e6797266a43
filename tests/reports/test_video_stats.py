import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats as scipy_stats

from regcls.params import load_params
from regcls.reports import video_stats
from regcls.reports.stats import holm
from regcls.reports.video_collect import SequenceRuns
from reports.made_up import PARAMS

ACTIVITIES = ["coffee", "juice", "salat", "tea"]
METHODS = [("random", 0, ""), ("reg", 0, ""), ("reg+cls", 100, "10")]


def made_up(*, unit: str = "percent", missing: tuple[str, ...] = ()) -> SequenceRuns:
    """Two splits and two seeds of METHODS; the id of a run is its method's place, split and seed, as in `1-s1-0`."""
    rng = np.random.default_rng(3)
    wanted = pd.DataFrame(
        [
            {
                "unit": unit,
                "split": split,
                "method": method,
                "classes": classes,
                "weight": weight,
                "seed": seed,
                "run_id": f"{place}-{split}-{seed}",
            }
            for seed in range(2)
            for split in ("s1", "s2")
            for place, (method, classes, weight) in enumerate(METHODS)
        ]
    )
    wanted["state"] = np.where(wanted["run_id"].isin(missing), "missing", "finished")
    wanted["run_id"] = wanted["run_id"].where(wanted["state"] == "finished", "")
    ids = wanted.loc[wanted["state"] == "finished", "run_id"].tolist()
    rmse = pd.DataFrame(rng.uniform(20, 60, (len(ids), 4)), index=ids, columns=ACTIVITIES)
    return SequenceRuns(wanted=wanted, errors={"rmse": rmse, "rmse_batch40": 0.9 * rmse, "val_rmse": rmse})


def row_of(table: pd.DataFrame, **where: object) -> pd.Series:
    found = table[np.logical_and.reduce([table[key] == value for key, value in where.items()])]
    assert len(found) == 1
    return found.iloc[0]


def test_a_cell_is_the_mean_over_activities_each_averaged_over_seeds_first() -> None:
    runs = made_up()
    cell = row_of(video_stats.cells(runs), method="reg", split="s2")
    by_activity = [np.mean([runs.errors["rmse"].loc[f"1-s2-{seed}", activity] for seed in (0, 1)]) for activity in ACTIVITIES]
    assert (cell["rmse"], cell["rmse_std"]) == pytest.approx((np.mean(by_activity), np.std(by_activity, ddof=1)))
    as_released = row_of(video_stats.cells(runs, ddof=0), method="reg", split="s2")
    assert as_released["rmse_std"] == pytest.approx(np.std(by_activity))
    assert cell["rmse_batch40"] == pytest.approx(0.9 * cell["rmse"]) and (cell["seeds"], cell["seeds_wanted"]) == (2, 2)


def test_a_cell_without_runs_is_there_and_empty() -> None:
    cell = row_of(video_stats.cells(made_up(missing=("2-s1-0", "2-s1-1"))), method="reg+cls", split="s1")
    assert cell["seeds"] == 0 and math.isnan(cell["rmse"]) and math.isnan(cell["rmse_std"])


def test_methods_stand_in_the_papers_order() -> None:
    assert video_stats.by_activity(made_up())["method"].tolist() == ["random", "reg", "reg+cls"]


def test_an_activity_weighs_its_splits_alike_whatever_seeds_they_lack() -> None:
    runs = made_up(missing=("1-s1-1",))
    row = row_of(video_stats.by_activity(runs), method="reg")
    rmse = runs.errors["rmse"]["tea"]
    assert row["tea"] == pytest.approx((rmse["1-s1-0"] + (rmse["1-s2-0"] + rmse["1-s2-1"]) / 2) / 2)
    assert (row["runs"], row["runs_wanted"]) == (3, 4) and row["mean"] == pytest.approx(row[ACTIVITIES].mean())


def test_a_difference_is_a_paired_t_test_over_activities() -> None:
    runs = made_up()
    table = video_stats.differences(runs)
    assert table["split"].tolist() == ["s1", "s2", "all"]
    reg, other = (
        np.mean([runs.errors["rmse"].loc[f"{place}-{split}-{seed}"] for split in ("s1", "s2") for seed in (0, 1)], axis=0)
        for place in (1, 2)
    )
    row, test = row_of(table, split="all"), scipy_stats.ttest_rel(reg, other)
    assert (row["gap"], row["p"]) == pytest.approx((np.mean(reg - other), test.pvalue))
    assert (row["low"], row["high"]) == pytest.approx(tuple(test.confidence_interval(0.95)))
    relative = scipy_stats.ttest_1samp(100 * (reg - other) / reg, 0)
    assert (row["relative"], row["relative_p"]) == pytest.approx((np.mean(100 * (reg - other) / reg), relative.pvalue))
    assert table["p_holm"].tolist() == pytest.approx(holm(table["p"].tolist()))
    assert (row["activities"], row["seeds"], row["splits"]) == (4, 2, 2)


def test_only_the_seeds_that_both_have_are_compared() -> None:
    runs = made_up(missing=("1-s1-0", "2-s1-1"))
    table = video_stats.differences(runs)
    assert row_of(table, split="s1")["seeds"] == 0 and row_of(table, split="s1")["answer"] == "no runs"
    assert row_of(table, split="all")["splits"] == 1 and row_of(table, split="all")["gap"] == row_of(table, split="s2")["gap"]


def test_in_frames_the_relative_difference_decides() -> None:
    row = {"gap": -1.0, "relative": 2.0, "seeds": 2, "p_holm": 0.001, "relative_p_holm": 0.002}
    assert video_stats.answer(row, video_stats.deciding("percent")) == "hurts"
    assert video_stats.answer(row, video_stats.deciding("frames")) == "helps"
    assert video_stats.answer(row | {"relative_p_holm": 0.5}, "relative") == "not clear"
    assert video_stats.answer(row | {"p_holm": math.nan}, "gap") == "not tested"
    assert set(video_stats.differences(made_up(unit="frames"))["answer"]) <= {"not clear", "helps", "hurts"}


def test_what_stands_for_a_method_is_never_chosen_by_an_error() -> None:
    video = load_params(PARAMS).datasets["breakfast"]
    table = pd.DataFrame({"method": "reg+cls", "classes": [10, 100, 100, 100], "weight": ["10", "1", "10", "100"]})
    assert video_stats.main_row(video, table, "frames", "reg+cls") == {"method": "reg+cls", "classes": 100, "weight": "10"}
    assert video_stats.main_row(video, table.iloc[:1], "frames", "reg+cls") == {"method": "reg+cls", "classes": 10, "weight": "10"}
    assert video_stats.main_row(video, table, "percent", "reg+cls-bal") is None


def test_the_error_of_a_video_is_over_all_its_frames() -> None:
    table = pd.DataFrame({"video": ["a"] * 4 + ["b"], "frame": [0, 1, 2, 3, 0], "prediction": [0.1, 0.25, 0.5, 0.75, 9.0]})
    assert video_stats.video_error(table, "a", {"a": 4}, "percent") == pytest.approx(100 * 0.1 / 2)
    assert video_stats.video_error(table.assign(prediction=table["frame"] + 3.0), "a", {"a": 4}, "frames") == pytest.approx(3.0)


def test_a_curve_has_its_ends_and_no_more_points_than_asked_for() -> None:
    table = pd.DataFrame({"video": "a", "frame": range(1000), "prediction": np.arange(1000) / 2000})
    curves = video_stats.progress_curves({"reg": table}, ["a"], {"a": 1000}, "percent", points=11)
    true, reg = (curves[curves["method"] == method] for method in ("true", "reg"))
    assert true["frame"].iloc[[0, -1]].tolist() == [0, 999] and len(true) == len(reg) == 11
    assert true["progress"].iloc[-1] == pytest.approx(99.9) and reg["progress"].to_numpy() == pytest.approx(true["progress"].to_numpy() / 2)
    assert len(video_stats.progress_curves({}, ["b"], {"b": 3}, "frames", points=11)) == 3
