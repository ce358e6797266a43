"""Choices by validation rows, differences to reg, and their tests, on numbers made up."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from regcls.params.shots import DensityShots
from regcls.relevance import Relevance
from regcls.reports.stats import USELESS, over_folds
from regcls.tasks.table.compared import Measured, Part, at_edges, chosen_texts, constants
from regcls.tasks.table.words import answers

SHOTS = DensityShots(by="density", bins=10, many_above=1.0, few_below=0.3)


def made_up(gains, *, folds=5, seeds=3, rows=200, noise=1.0, reg=None, spread=0.02):
    """Networks whose errors have a standard deviation of `noise` × (1 − gain); `gains`: (method, classes, λ) -> gain.

    Validation RMSE is known exactly: lower gains validate worse.
    """
    rng = np.random.default_rng(0)
    targets = np.concatenate([rng.normal(50, 10, rows * folds - 5), [120.0, 130, 140, 150, 160]])
    rng.shuffle(targets)
    parts, runs, validation, predictions = {}, [], {}, {}
    for k in range(folds):
        name = "split" if folds == 1 else f"fold_{k + 1}"
        own = np.arange(k, len(targets), folds)
        training = np.delete(targets, own) if folds > 1 else targets
        tested = targets[own]
        shots, relevance = SHOTS.groups(training).shot_of(tested), Relevance.of(training)(tested)
        parts[name] = Part(rows=own, targets=tested, shots=shots, relevance=relevance, mean=training.mean(), median=float(np.median(training)), training=len(training))  # fmt: skip
    cells = {("reg", 0, ""): 0.0, **gains}
    for index, ((method, classes, weight), gain) in enumerate(cells.items()):
        for seed in range(seeds):
            run_id = f"{index}-{seed}"
            runs.append({"run_id": run_id, "method": method, "classes": classes, "weight": weight, "seed": seed})
            scale = noise * (1 - gain)
            validation[run_id] = dict.fromkeys(parts, scale)
            for name, part in parts.items():
                draw = np.random.default_rng([seed, len(name), part.rows[0]]).normal(size=len(part.rows))
                own_draw = spread * np.random.default_rng([index, seed, part.rows[0]]).normal(size=len(part.rows))
                predictions[run_id, name] = part.targets + scale * (draw + own_draw)
    errors = {key: parts[key[1]].errors(values) for key, values in predictions.items()}
    return Measured(parts=parts, runs=pd.DataFrame(runs), validation=pd.DataFrame(validation).T, errors=errors, predictions=predictions)


def answer(measured, method="reg+cls", error="rmse", group="all", negligible=2.0):
    table = measured.differences(negligible=negligible)
    return table.set_index(["error", "group", "method"]).loc[(error, group, method)]


def test_each_part_chooses_its_own_cell_by_validation_alone():
    gains = {("reg+cls", 10, "1"): 0.1, ("reg+cls", 50, "1"): 0.2, ("reg+cls", 50, "10"): 0.05}
    measured = made_up(gains)
    measured.validation.loc[["1-0", "1-1", "1-2"], "fold_2"] = 0.01  # only here the first one validates best
    choices = measured.choices.set_index(["method", "part"])
    assert choices.loc["reg+cls"]["classes"].tolist() == [50, 10, 50, 50, 50]
    assert chosen_texts(measured.choices, "reg+cls") == ("50 (4), 10 (1)", "1")
    by_part = measured.by_part
    expected = np.mean([measured.errors[f"1-{seed}", "fold_2"]["rmse/all"] for seed in range(3)])
    assert by_part.loc[("reg+cls", "fold_2"), "rmse/all"] == pytest.approx(expected)


def test_cells_with_fewer_seeds_do_not_compete():
    measured = made_up({("reg+cls", 10, "1"): 0.1, ("reg+cls", 50, "1"): 0.2})
    fewer = measured.runs.drop(index=measured.runs.index[measured.runs["run_id"] == "2-2"])
    other = Measured(**{**vars(measured), "runs": fewer})
    assert set(other.choices.query("method == 'reg+cls'")["classes"]) == {10}


def test_the_interval_is_that_of_nadeau_and_bengio():
    values, ratio = np.array([0.3, 0.1, 0.4, 0.2, 0.25]), 1 / 3
    low, high, p = over_folds(values, ratio=ratio)
    error = math.sqrt(values.var(ddof=1) * (1 / 5 + ratio))
    assert (low + high) / 2 == pytest.approx(values.mean()) and (high - low) / 2 == pytest.approx(stats.t(4).ppf(0.975) * error)
    assert p == pytest.approx(2 * stats.t(4).sf(values.mean() / error))
    plain = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert high - low > plain.high - plain.low
    assert math.isnan(over_folds([1.0, 1.0, 1.0], ratio=0.2)[2]) and math.isnan(over_folds([1.0, 2.0], ratio=0.2)[2])


@pytest.mark.parametrize("folds", [5, 1])
@pytest.mark.parametrize(("gain", "expected"), [(0.2, "helps"), (-0.25, "hurts"), (0.0, "no difference above 2 %")])
def test_verdicts(folds, gain, expected):
    row = answer(made_up({("reg+cls", 10, "1"): gain}, folds=folds, rows=400))
    assert row["answer"] == expected and row["gap"] == pytest.approx(gain, abs=0.02) and row["relative"] == pytest.approx(100 * gain, abs=2)
    assert row["low"] <= row["gap"] <= row["high"] and row["rows"] == 400 * folds and row["seeds"] == 3 and row["folds"] == folds


def test_a_wide_interval_cannot_be_told_and_the_words_say_what_would_narrow_it():
    measured = made_up({("reg+cls", 10, "1"): 0.0}, rows=15, spread=1.5)
    table = measured.differences(negligible=2.0)
    row = answer(measured)
    assert row["answer"] == "cannot be told" and row["low"] < 0 < row["high"]
    lines = answers(measured, table, unit="$", negligible=2.0)
    assert lines[0].startswith("reg+cls (classes 10; λ 1): cannot be told; ")
    assert any("To tell more: data.repeats narrows the interval to 75% of its width at most; four times the rows" in line or "four times the rows" in line for line in lines)  # fmt: skip


def test_there_is_no_verdict_if_reg_is_no_better_than_a_constant():
    measured = made_up({("reg+cls", 10, "1"): 0.3}, noise=30.0, rows=400)
    table = measured.differences(negligible=2.0)
    tested = table[table["p"].notna()].set_index("group")["answer"]
    assert set(tested["all"]) == {USELESS} and set(tested.drop("all")) == {"no verdict"}
    assert min(frame["rmse/all"].mean() for frame in constants(measured.parts).values()) < 25
    lines = answers(measured, table, unit="", negligible=2.0)
    assert USELESS in lines[0] and any("networks that learn nothing say nothing of losses" in line for line in lines)


def test_holm_corrects_over_methods_of_an_error_and_group_only():
    one = made_up({("reg+cls", 10, "1"): 0.1})
    two = made_up({("reg+cls", 10, "1"): 0.1, ("reg+cls-bal", 10, "1"): 0.0})
    assert answer(one)["p_holm"] == answer(one)["p"]
    assert answer(two)["p_holm"] == pytest.approx(2 * answer(two)["p"])
    assert "hgb" not in set(made_up({("hgb", 0, ""): 0.5}).differences(negligible=2.0)["method"])


def test_groups_without_rows_have_no_answer():
    row = answer(made_up({("reg+cls", 10, "1"): 0.1}, folds=1, rows=40), group="medium")
    assert (row["rows"] > 0) == (row["answer"] != "no rows")
    measured = made_up({("reg+cls", 10, "1"): 0.1})
    none = {name: Part(**{**vars(part), "relevance": np.zeros(len(part.rows))}) for name, part in measured.parts.items()}
    errors = {key: none[key[1]].errors(values) for key, values in measured.predictions.items()}
    assert answer(Measured(**{**vars(measured), "parts": none, "errors": errors}), group="rare")["answer"] == "no rows"


def test_a_weight_at_the_end_of_its_grid_is_named():
    gains = {("reg+cls", 10, weight): gain for weight, gain in (("0.1", 0.3), ("1", 0.1), ("10", 0.0))}
    measured = made_up(gains)
    (line,) = at_edges(measured.choices, measured.runs)
    assert line == "reg+cls: λ 0.1, the lowest of the grid, is chosen in 5 of 5 folds: try a tenth of it too"
    inner = made_up({("reg+cls", 10, weight): gain for weight, gain in (("0.1", 0.0), ("1", 0.1), ("10", 0.0))})
    assert not list(at_edges(inner.choices, inner.runs))
    assert not list(at_edges((one := made_up({("reg+cls", 10, "1"): 0.1})).choices, one.runs)), "a grid of one value"


def test_errors_of_a_part_equal_plain_formulas():
    measured = made_up({})
    part, values = measured.parts["fold_1"], measured.predictions["0-0", "fold_1"]
    found, errors = part.errors(values), values - part.targets
    assert found["r2/all"] == pytest.approx(1 - np.sum(errors**2) / np.sum((part.targets - part.targets.mean()) ** 2))
    assert found["rmse/rare"] == pytest.approx(np.sqrt(np.mean(errors[part.relevance > 0.8] ** 2)))
    assert found["mae/few"] == pytest.approx(np.abs(errors[part.shots == "few"]).mean())
    perfect = part.errors(part.targets)
    assert perfect["rmse/all"] == perfect["sera/all"] == 0 and perfect["r2/all"] == 1
