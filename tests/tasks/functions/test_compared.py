import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats as scipy_stats

from regcls.tasks.functions import compared
from regcls.tasks.functions.collected import PANEL, Collected
from regcls.tasks.functions.collected import collected as collect
from regcls.tasks.functions.runs import FunctionSpec
from tasks.functions.made_up_functions import MadeUpSets


@pytest.fixture
def collected(runs: pd.DataFrame, fingerprints: dict[FunctionSpec, str]) -> Collected:
    return collect(runs, fingerprints, dataset="functions", sets=MadeUpSets())[0]


def at(table: pd.DataFrame, **where: object) -> pd.Series:
    found = table[np.logical_and.reduce([table[key] == value for key, value in where.items()])]
    assert len(found) == 1
    return found.iloc[0]


def test_a_standard_error_is_over_repetitions_and_not_over_networks(collected: Collected) -> None:
    cells = compared.cells(collected.networks, collected.wanted, "test_mse")
    cell = at(cells, setting="clean", sampling="severe", method="reg")
    one = collected.networks.query("setting == 'clean' and sampling == 'severe' and method == 'reg'")
    values = one.pivot(index="repetition", columns="function", values="test_mse")
    assert cell["mean"] == pytest.approx(values.to_numpy().mean())
    assert cell["std"] == pytest.approx(values.to_numpy().std(ddof=1))
    assert cell["se"] == pytest.approx(values.mean(axis=1).std(ddof=1) / math.sqrt(2))
    assert (cell["repetitions"], cell["networks"]) == (2, 20)


def test_the_gap_averages_over_classes_functions_and_repetitions(collected: Collected) -> None:
    one = collected.networks.query("setting == 'ood' and sampling == 'severe'")
    wide = one[one["method"] != "reg+cls-bal"].pivot(index=["repetition", "function"], columns="classes", values="test_mse")
    by_hand = np.mean([wide[0] - wide[classes] for classes in (4, 16)])
    gap = at(compared.gaps(collected.networks, "test_mse"), setting="ood", sampling="severe", method="reg+cls")
    assert gap["gap"] == pytest.approx(by_hand)
    assert gap["reg"] - gap["other"] == pytest.approx(gap["gap"])


def test_the_published_gap_averages_absolute_differences_over_classes() -> None:
    # Means over repetitions: reg 0.5, with 4 classes 0.2 better, with 16 classes 0.1 worse.
    rows = [("reg", 0, np.nan, 0, 0.4), ("reg", 0, np.nan, 1, 0.6), ("reg+cls", 4, 1.0, 0, 0.1), ("reg+cls", 4, 1.0, 1, 0.5)]
    rows += [("reg+cls", 16, 1.0, 0, 0.7), ("reg+cls", 16, 1.0, 1, 0.5)]
    networks = pd.DataFrame(rows, columns=["method", "classes", "lam", "repetition", "test_mse"])
    gap = compared.gaps(networks.assign(setting="clean", noise=0.0, sampling="uniform", function=0), "test_mse").iloc[0]
    assert (gap["gap"], gap["absolute_gap"]) == pytest.approx((0.05, 0.15))


def test_a_share_counts_networks_that_beat_their_own_reg() -> None:
    rows = [("reg", 0, np.nan, 0, f, 0.5) for f in range(4)] + [
        ("reg+cls", 4, 1.0, 0, f, mse) for f, mse in enumerate([0.4, 0.5, 0.6, 0.1])
    ]
    networks = pd.DataFrame(rows, columns=["method", "classes", "lam", "repetition", "function", "val_mse"])
    share = compared.win_shares(networks.assign(setting="clean", noise=0.0, sampling="uniform"), "val_mse").iloc[0]
    assert share["share"] == 50.0 and share["networks"] == 4 and math.isnan(share["std"])


def test_shares_are_tested_against_one_half_over_repetitions() -> None:
    won = {0: [1, 1, 1, 0], 1: [1, 1, 1, 1], 2: [1, 1, 0, 0]}
    rows = [
        (method, r, f, 0.5 if method == "reg" else 0.6 - 0.2 * win)
        for method in ("reg", "reg+cls")
        for r in won
        for f, win in enumerate(won[r])
    ]
    networks = pd.DataFrame(rows, columns=["method", "repetition", "function", "val_mse"])
    networks["classes"] = networks["method"].map({"reg": 0, "reg+cls": 4})
    share = compared.win_shares(networks.assign(setting="clean", noise=0.0, sampling="mild", lam=1.0), "val_mse").iloc[0]
    theirs = scipy_stats.ttest_1samp([75.0, 100.0, 50.0], 50.0)
    assert share["share"] == 75.0 and share["repetitions"] == 3 and share["p"] == share["p_holm"] == pytest.approx(theirs.pvalue)
    assert (share["low"], share["high"]) == pytest.approx(tuple(theirs.confidence_interval(0.95)))


def test_only_methods_with_classes_have_a_share() -> None:
    rows = [("reg", 0, 0.5), ("focal-r", 0, 0.4), ("reg+cls", 4, 0.4), ("focal-r+cls", 4, 0.6)]
    networks = pd.DataFrame(rows, columns=["method", "classes", "val_mse"])
    networks = networks.assign(setting="clean", noise=0.0, sampling="mild", lam=1.0, repetition=0, function=0)
    assert compared.win_shares(networks, "val_mse")[["method", "share"]].to_numpy().tolist() == [["reg+cls", 100.0], ["focal-r+cls", 0.0]]


def test_gaps_by_lambda_have_a_row_per_lambda(collected: Collected) -> None:
    networks = collected.networks
    table = compared.gaps(networks, "val_mse", by_lambda=True).query("setting == 'clean' and sampling == 'severe' and method == 'reg+cls'")
    assert sorted(table["lam"]) == [1.0, 100.0] and table["p_holm"].notna().equals(table["p"].notna())
    one = networks.query("setting == 'clean' and sampling == 'severe' and repetition == 0")
    by_hand = one.query("method == 'reg'")["val_mse"].mean() - one.query("method == 'reg+cls' and lam == 1")["val_mse"].mean()
    assert at(table, lam=1.0)["gap"] == pytest.approx(by_hand)


def test_the_best_class_count_is_chosen_by_validation_among_complete_means() -> None:
    cells = pd.DataFrame({"classes": [4, 16, 64], "mean": [0.3, 0.2, 0.1], "repetitions": [5, 5, 1]})
    best = compared.best_classes(cells.assign(setting="clean", noise=0.0, sampling="mild", method="reg+cls", lam=100.0))
    assert best["classes"].tolist() == [16]


def test_a_single_method_gives_empty_tables_that_still_merge(collected: Collected) -> None:
    reg = collected.networks[collected.networks["method"] == "reg"]
    for table in (compared.against_reg(reg, "test_mse"), compared.gaps(reg, "test_mse")):
        assert table.empty and table.merge(reg, on=[*PANEL, "method"]).empty
