import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats as scipy_stats

from regcls.params import load_params
from regcls.reports.measured import Runs
from regcls.reports.stats import holm
from regcls.tasks.sequences import compared
from reports.made_up import PARAMS, row_of

ACTIVITIES = ["coffee", "juice", "salat", "tea"]
METHODS = [("random", 0, ""), ("reg", 0, ""), ("reg+cls", 100, "10")]


def made_up(*, unit: str = "percent", missing: tuple[str, ...] = ()) -> Runs:
    """Two splits and two seeds of METHODS; a run's id is its method's index, split and seed, as in `1-s1-0`."""
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
                "run_id": f"{index}-{split}-{seed}",
            }
            for seed in range(2)
            for split in ("s1", "s2")
            for index, (method, classes, weight) in enumerate(METHODS)
        ]
    )
    wanted["state"] = np.where(wanted["run_id"].isin(missing), "missing", "finished")
    wanted["run_id"] = wanted["run_id"].where(wanted["state"] == "finished", "")
    ids = wanted.loc[wanted["state"] == "finished", "run_id"].tolist()
    rmse = pd.DataFrame(rng.uniform(20, 60, (len(ids), 4)), index=ids, columns=compared.columns("rmse", ACTIVITIES))
    batches = (0.9 * rmse).set_axis(compared.columns("rmse_batch40", ACTIVITIES), axis=1)
    return Runs(wanted=wanted, values=pd.concat([rmse, batches], axis=1), axes=("unit", "split"), order={"unit": ("percent", "frames")})


def rmse_of(runs: Runs, *run_ids: str) -> np.ndarray:
    """RMSE by run (first) and activity."""
    return np.array([[runs.values.loc[run_id, f"test/rmse/{activity}"] for activity in ACTIVITIES] for run_id in run_ids])


def test_a_cell_averages_over_seeds_then_activities() -> None:
    runs = made_up()
    cell = row_of(compared.cells(runs, ACTIVITIES), method="reg", split="s2")
    by_activity = rmse_of(runs, "1-s2-0", "1-s2-1").mean(axis=0)
    assert (cell["rmse"], cell["rmse_std"]) == pytest.approx((np.mean(by_activity), np.std(by_activity, ddof=1)))
    as_released = row_of(compared.cells(runs, ACTIVITIES, ddof=0), method="reg", split="s2")
    assert as_released["rmse_std"] == pytest.approx(np.std(by_activity))
    assert cell["rmse_batch40"] == pytest.approx(0.9 * cell["rmse"]) and (cell["seeds"], cell["seeds_wanted"]) == (2, 2)


def test_a_cell_without_runs_is_shown_empty() -> None:
    cell = row_of(compared.cells(made_up(missing=("2-s1-0", "2-s1-1")), ACTIVITIES), method="reg+cls", split="s1")
    assert cell["seeds"] == 0 and math.isnan(cell["rmse"]) and math.isnan(cell["rmse_std"])


def test_methods_are_in_the_papers_order() -> None:
    assert compared.by_activity(made_up(), ACTIVITIES)["method"].tolist() == ["random", "reg", "reg+cls"]


def test_splits_weigh_equally_whatever_seeds_they_lack() -> None:
    runs = made_up(missing=("1-s1-1",))
    row = row_of(compared.by_activity(runs, ACTIVITIES), method="reg")
    rmse = runs.values["test/rmse/tea"]
    assert row["tea"] == pytest.approx((rmse["1-s1-0"] + (rmse["1-s2-0"] + rmse["1-s2-1"]) / 2) / 2)
    assert (row["runs"], row["runs_wanted"]) == (3, 4) and row["mean"] == pytest.approx(row[ACTIVITIES].mean())


def test_a_difference_is_a_paired_t_test_over_activities() -> None:
    runs = made_up()
    table = compared.differences(runs, ACTIVITIES)
    assert table["split"].tolist() == ["s1", "s2", "all"]
    reg, other = (rmse_of(runs, *(f"{place}-{split}-{seed}" for split in ("s1", "s2") for seed in (0, 1))).mean(axis=0) for place in (1, 2))
    row, test = row_of(table, split="all"), scipy_stats.ttest_rel(reg, other)
    assert (row["gap"], row["p"]) == pytest.approx((np.mean(reg - other), test.pvalue))
    assert (row["low"], row["high"]) == pytest.approx(tuple(test.confidence_interval(0.95)))
    relative = scipy_stats.ttest_1samp(100 * (reg - other) / reg, 0)
    assert (row["relative"], row["relative_p"]) == pytest.approx((np.mean(100 * (reg - other) / reg), relative.pvalue))
    assert table["p_holm"].tolist() == pytest.approx(holm(table["p"].tolist()))
    assert (row["activities"], row["seeds"], row["splits"]) == (4, 2, 2)


def test_only_seeds_of_both_methods_are_compared() -> None:
    runs = made_up(missing=("1-s1-0", "2-s1-1"))
    table = compared.differences(runs, ACTIVITIES)
    assert row_of(table, split="s1")["seeds"] == 0 and row_of(table, split="s1")["answer"] == "no runs"
    assert row_of(table, split="all")["splits"] == 1 and row_of(table, split="all")["gap"] == row_of(table, split="s2")["gap"]


@pytest.mark.parametrize(("unit", "expected"), [("percent", "not clear"), ("frames", "helps")])
def test_frame_errors_are_compared_by_relative_difference(unit: str, expected: str) -> None:
    runs = made_up(unit=unit)
    longer = {f"test/rmse/{activity}": 10.0**index for index, activity in enumerate(ACTIVITIES)}
    shares = {"1": [1.0, 1.0, 1.0, 1.0], "2": [0.9, 0.91, 0.92, 0.9]}  # a tenth is clear; in frames the longest activity outweighs all
    for run_id in runs.values.index:
        runs.values.loc[run_id, list(longer)] = np.array(list(longer.values())) * shares.get(run_id[0], shares["1"])
    row = row_of(compared.differences(runs, ACTIVITIES), split="all")
    assert row["answer"] == expected and row["p_holm"] > 0.05 > row["relative_p_holm"]


def test_one_activity_is_not_tested() -> None:
    assert set(compared.differences(made_up(), ACTIVITIES[:1])["answer"]) == {"n = 1: not tested"}


def test_the_row_representing_a_method_is_not_chosen_by_error() -> None:
    video = load_params(PARAMS).datasets["breakfast"]
    table = pd.DataFrame({"method": "reg+cls", "classes": [10, 100, 100, 100], "weight": ["10", "1", "10", "100"]})
    assert compared.main_row(video, table, "frames", "reg+cls") == {"method": "reg+cls", "classes": 100, "weight": "10"}
    assert compared.main_row(video, table.iloc[:1], "frames", "reg+cls") == {"method": "reg+cls", "classes": 10, "weight": "10"}
    assert compared.main_row(video, table, "percent", "reg+cls-bal") is None
