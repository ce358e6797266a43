"""Errors by shot group, against loops and scipy."""

import math

import numpy as np
import pytest
from scipy import stats

from regcls.metrics import evaluate, shot_of

COUNTS = {20: 101, 21: 100, 22: 20, 23: 19, 24: 1}


def made_up(samples=500):
    rng = np.random.default_rng(0)
    targets = rng.choice([20, 21, 22, 23, 24, 25], samples).astype(np.float32)
    predictions = targets + rng.normal(0, 5, samples).astype(np.float32)
    return predictions, targets, shot_of(targets, COUNTS, many_above=100, few_below=20)


@pytest.mark.parametrize(
    ("target", "shot"),
    [
        (20, "many"),
        (21, "medium"),
        (22, "medium"),
        (23, "few"),
        (24, "few"),
        (25, "few"),
        (-3, "few"),
        (20.99, "many"),
        (22.5, "medium"),
        (19.99, "few"),
    ],
)
def test_the_group_is_that_of_the_training_samples_of_the_integer_target(target, shot):
    assert shot_of([target], COUNTS, many_above=100, few_below=20).tolist() == [shot]


def test_a_negative_target_belongs_to_the_integer_below_it():
    assert shot_of([-0.5, 0.5], {-1: 50, 0: 500}, many_above=100, few_below=20).tolist() == ["medium", "many"]


def test_groups_have_the_shape_of_the_targets():
    assert shot_of(np.full((2, 3), 20), COUNTS, many_above=100, few_below=20).shape == (2, 3)
    assert shot_of([], COUNTS, many_above=100, few_below=20).shape == (0,)


def test_groups_may_touch_but_not_overlap():
    assert shot_of([23, 22], COUNTS, many_above=19, few_below=20).tolist() == ["few", "many"]  # nothing is medium
    with pytest.raises(ValueError, match="few_below = 20 must be at most many_above"):
        shot_of([22, 23], COUNTS, many_above=18, few_below=20)


@pytest.mark.parametrize("target", [math.nan, math.inf])
def test_a_target_that_is_not_finite_has_no_group(target):
    with pytest.raises(ValueError, match="not finite"):
        shot_of([20, target], COUNTS, many_above=100, few_below=20)


@pytest.mark.parametrize("shot", ["all", "many", "medium", "few"])
def test_errors_are_averaged_over_the_samples_of_the_group(shot):
    predictions, targets, shots = made_up()
    errors = [abs(float(p) - float(t)) for p, t, s in zip(predictions, targets, shots, strict=True) if shot in ("all", s)]
    found = dict(evaluate(predictions, targets, shots))
    assert found[f"n_{shot}"] == len(errors) > 0
    assert found[f"mae_{shot}"] == pytest.approx(math.fsum(errors) / len(errors))
    assert found[f"mse_{shot}"] == pytest.approx(math.fsum(e * e for e in errors) / len(errors))
    assert found[f"rmse_{shot}"] == pytest.approx(math.sqrt(math.fsum(e * e for e in errors) / len(errors)))
    assert found[f"gm_{shot}"] == pytest.approx(stats.gmean(errors))


def test_names_come_in_the_order_of_the_tables():
    groups = ("all", "many", "medium", "few")
    assert [name for name, _ in evaluate(*made_up())] == [f"{m}_{g}" for g in groups for m in ("mae", "mse", "rmse", "gm", "n")]


def test_values_are_plain_floats():
    assert {type(value) for _, value in evaluate(*made_up())} == {float}


def test_float32_predictions_are_averaged_in_float64():
    predictions, targets, shots = made_up()
    assert list(evaluate(predictions, targets, shots)) == list(evaluate(predictions.astype(float), targets.astype(float), shots))


def test_an_empty_group_has_zero_samples_and_no_number():
    found = dict(evaluate([1.0, 2.0], [1.5, 1.0], ["many", "many"]))
    assert {name: value for name, value in found.items() if name.endswith(("medium", "few"))} == {"n_medium": 0.0, "n_few": 0.0}


def test_one_exact_prediction_makes_the_geometric_mean_zero():
    found = dict(evaluate([20.0, 25.0, 30.0], [20.0, 24.0, 28.0], ["many", "many", "few"]))
    assert (found["gm_all"], found["gm_many"], found["gm_few"]) == (0.0, 0.0, 2.0)


def test_many_large_errors_do_not_overflow_the_geometric_mean():
    found = dict(evaluate(np.full(10_000, 1e3), np.zeros(10_000), np.full(10_000, "few")))
    assert found["gm_few"] == pytest.approx(1e3)


@pytest.mark.parametrize("missing", [math.nan, math.inf])
def test_a_prediction_that_is_no_number_shows_in_its_groups_alone(missing):
    found = dict(evaluate([missing, 20.0, 23.0], [20.0, 20.0, 22.0], ["few", "few", "many"]))
    assert not any(math.isfinite(found[f"{metric}_{shot}"]) for metric in ("mae", "mse", "rmse", "gm") for shot in ("all", "few"))
    assert found["mae_many"] == 1.0


def test_a_column_of_predictions_is_refused_not_broadcast():
    with pytest.raises(ValueError, match=r"predictions \(2, 1\), targets \(2,\)"):
        evaluate(np.zeros((2, 1)), np.zeros(2), ["few", "few"])


def test_groups_for_other_samples_are_refused():
    with pytest.raises(ValueError, match=r"shots \(1,\)"):
        evaluate(np.zeros(2), np.zeros(2), ["few"])


def test_no_samples_are_refused():
    with pytest.raises(ValueError, match="no samples"):
        evaluate([], [], [])
